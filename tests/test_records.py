"""What others wrote is data: strings stay strings, other types are refused by name, no spreadsheet computes a cell."""

import csv
import json
import math

import numpy as np
import pytest
from tumour.errors import InputError
from tumour.records import LARGEST, csv_text, read_json, read_table

SHAPE = {"names": [str], "count": int, "mean": (float, None), "of": {str: {"dice": float}}, "note?": str}
RIGHT = {"names": ["a"], "count": 2, "mean": 0.5, "of": {"ET": {"dice": 1}}}


def test_a_file_of_the_right_shape_is_read_as_it_is(tmp_path):
    for content in (RIGHT, RIGHT | {"mean": None, "note": "$__import__('os')", "more": [{"_target_": "os.system"}]}):
        (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())  # Windows writes these marks
        assert read_json(tmp_path / "a.json", SHAPE) == content


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"names": "a"}, 'names is "a", not a list'),
        ({"names": [["a"]]}, r"names\[0\] is \[\"a\"\], not text"),
        ({"count": 2.5}, "count is 2.5, not a whole number"),
        ({"count": True}, "count is true, not a whole number"),
        ({"mean": math.nan}, "mean is NaN, not a number or null"),
        ({"mean": "0.5"}, 'mean is "0.5", not a number or null'),
        ({"of": {"ET": {}}}, "of.ET.dice is missing"),
        ({"of": []}, r"of is \[\], not an object"),
        ({"note": 3}, "note is 3, not text"),
    ],
)
def test_another_type_is_refused_with_its_place(change, place, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(RIGHT | change))
    with pytest.raises(InputError, match=f"'{tmp_path}/a.json' is not what it should be: {place}; restore or delete"):
        read_json(tmp_path / "a.json", SHAPE)


HOSTILE = {  # what no shape allows, with part of the sentence
    b"": "not valid JSON",
    b"{": "not valid JSON",
    b"\xff\xfe{\0}\0": "not valid JSON",
    b"[" * 100_000: "nested too deeply",
    b'{"a": 1, "a": 2}': "the name 'a' twice",
    b'{"a": ' + b"9" * 5000 + b"}": "not valid JSON",
    b'{"a": "\\ud800"}': "not valid JSON",
    b" " * (LARGEST + 1): "over 64 MiB",
}


@pytest.mark.parametrize("content", HOSTILE, ids=HOSTILE.values())
def test_what_is_not_json_is_refused_in_one_sentence(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=f"^'{tmp_path}/a.json' is not valid JSON .*; restore or delete it.$") as error:
        read_json(tmp_path / "a.json", object)
    assert HOSTILE[content] in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(InputError, match=f"'{path}' cannot be read"):
            read_json(path, object)


NAMES = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1",
    "'=1",
    "''+1",
    "a;=1",
    'a","=1',
    "NA",
    "007",
    "'",
    "-",
]


def test_no_cell_is_a_formula_and_reading_gives_back_the_names(tmp_path):
    rows = [{"case": name, "dice": -0.1 * number, name: number} for number, name in enumerate(NAMES)]
    (tmp_path / "a.csv").write_text(csv_text(rows), newline="")
    with open(tmp_path / "a.csv", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    texts = [cell for cell in cells if not cell.lstrip("-").replace(".", "").replace("e", "").isdigit()]
    assert len(texts) >= 2 * len(NAMES) and not any(cell[:1] in set("=+-@\t\r\n\uff1d") for cell in texts)
    back = read_table(tmp_path / "a.csv", ["case", "dice"])
    assert back["case"].tolist() == NAMES and back.columns.tolist() == ["case", "dice", *NAMES]
    assert back["dice"].tolist() == [row["dice"] for row in rows]


def test_text_is_quoted_and_numbers_are_not():
    assert csv_text([{"case": "a;=1", "dice": -0.5}, {"case": "b"}]) == '"case","dice"\n"a;=1",-0.5\n"b",""\n'
    assert csv_text([], ["case", "dice"]) == '"case","dice"\n'


def test_numbers_survive_writing_and_reading_exactly(tmp_path):
    values = np.random.default_rng(0).standard_normal(500) * 10.0 ** np.arange(-250, 250)
    (tmp_path / "a.csv").write_text(csv_text([{"dice": value} for value in values]))
    assert read_table(tmp_path / "a.csv")["dice"].tolist() == values.tolist()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "cannot be read as a table"),
        ("case\na\n", "has no column dice"),
        ("case,dice\na,high\n", "has text in its column dice"),
        ('case,dice\n"a,1\n', "cannot be read as a table"),
        ("case,dice\na,1,2\nb,1,2\n", "more cells than columns"),
        ("case,dice\n\xff,1\n", "cannot be read as a table"),
    ],
)
def test_a_damaged_table_is_refused_in_one_sentence(text, sentence, tmp_path):
    (tmp_path / "a.csv").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=sentence) as error:
        read_table(tmp_path / "a.csv", ["case", "dice"])
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
