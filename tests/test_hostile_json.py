"""JSON that anybody may have written is refused in one sentence with its path, or ignored; nothing in it is run."""

import hashlib
import json

import pytest
from tumour.cases.case import Case
from tumour.cases.datalist import read_datalist
from tumour.cases.parts import recorded_patients
from tumour.checks.case import CaseCheck, Finding
from tumour.checks.label import stated_values
from tumour.errors import InputError
from tumour.maps.aftertreatment import treatment_of
from tumour.records import LARGEST
from tumour.runs.options import check_after_treatment, check_command
from tumour.runs.trained import settings_of, settings_to_use
from tumour.scores.evaluation import crossvalidation_of, scores_of
from tumour.scores.quality import Quality

from tests.cohorts import COHORTS, FOUR
from tools.compare import read_run
from tools.quality import evidence_in
from tools.report.results import Results

COHORT = COHORTS["brats2021"]
TREATMENT = {"threshold": {"ET": 0.4}, "smallest_piece": {}, "fitted": {"cases": 3, "ET": {"dice_before": 0.5}}}
CODE = "$__import__('pathlib').Path('ran').touch()"
MEAN = {"cases": 2, "mean": 0.5, "interval_low": 0.4, "interval_high": 0.6}
SCORED = {"challenge": "legacy", "scores": {"ET": {"kind": "region", "dice": MEAN, "hd95": MEAN, "iou": MEAN}}}
RUN = {
    "run": "training",
    "state": "finished",
    "started": "2026",
    "seconds": 1,
    "device": "cpu",
    "versions": {"torch": "2"},
}
RUN |= {"peak_memory_gb": {"main": 1}, "left_out": [{"case": "a", "why": "b"}], "settings": ["a = 1"], "files": ["f"]}
RUN |= {"cases": [Case("a", "a", ("a.nii",)).record()], "notes": [{"case": "a", "why": "b"}], "config": "training.yaml"}


def results(path):
    return Results.read(path.parent, path.parent, path.parent, path.parent)


def compared(path):
    path.with_name("scores.csv").write_text("case,kind,region,dice\na,region,ET,1\n")
    return read_run(str(path.parent))


def scored(path):
    return scores_of(path.with_name("model.pt")), crossvalidation_of(path.with_name("model.pt"))


READ = {  # each file: how it is read, and what it should contain
    "settings.json": (
        lambda path: (settings_of(str(path.parent)), settings_to_use({"size": "full"}, str(path.parent))),
        {"cohort": "msd", "modalities": ["T1"], "size": "fast", "norm": "batch", "activation": "sigmoid"}
        | {"spacing": [1, 1, 1], "resize": [], "patch_size": [96, 96, 96], "window": [96, 96, 96], "layers": ["Conv3d"]}
        | {"modality_dropout": 0.1, "channels": {"ET": ["enhancing"]}, "normalisation": {"nonzero": True}},
    ),
    "patients.json": (recorded_patients, {"train": ["a"], "validate": ["b"], "test": []}),
    "scores.json": (scored, {"sha256": hashlib.sha256(b"").hexdigest(), "cohorts": {"msd": SCORED}}),
    "runs/training.json": (lambda path: results(path.parent), RUN),
    "summary.json": (results, SCORED | {"folds": 5, "groups": [{"patients": "all"}], "cohort": "msd"}),
    "./summary.json": (compared, {"challenge": "legacy"}),
    "datalist.json": (
        lambda path: read_datalist(path, COHORT, FOUR),
        {"training": [{"image": ["t1.nii"], "label": "s.nii", "case": "a", "fold": 0}], "modality": {"0": "T1"}},
    ),
    "quality.json": (
        Quality.read,
        {
            "regions": {"ET": {"offset": 0.1, "slope": 1, "empty": 0.9}},
            "low": -0.1,
            "high": 0.1,
            "red": 0.5,
            "poor": 0.6,
        }
        | {"cases": 12, "settings": {"norm": "batch"}, "sha256": ""},
    ),
    "evidence.json": (
        lambda path: evidence_in([path.parent]),
        {"a": {"histograms": {"ET": [[1, 2], [3, 4]]}, "entropy": [0.5]}},
    ),
    "after_treatment.json": (
        lambda path: treatment_of("threshold", str(path.parent)),
        TREATMENT,
    ),
    "fitted.json": (lambda path: check_after_treatment(f"%{path}"), TREATMENT),
}
ENTRIES = [(name, key) for name, (_, content) in READ.items() for key in content]
VALUES = [3, -1e30, "x", [], {}, [[]], None, True, CODE, [CODE], {"a": CODE}, {"_target_": "os.system", "command": "x"}]
KINDS = {bool: "truth", int: "number", float: "number", str: "text", list: "list", dict: "object", type(None): "null"}

BROKEN = [  # no JSON, or not for us
    b"",
    b"{",
    b"\0\0\0\0",
    b"\xff\xfe{\0}\0",
    "é".encode("latin-1"),
    b"{'a': 1}",
    b"[" * 100_000,
    b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    b'{"a": 1, "a": 2}',
    b'{"a": ' + b"9" * 5000 + b"}",
    b'{"a": "\\ud800"}',
    b" " * (LARGEST + 1),
    b"<html>404</html>",
    b"version https://git-lfs.github.com/spec/v1\n",
    *(json.dumps(value).encode() for value in ([], [1], "x", CODE, 3, None, True)),
]


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Write a file and read it; the sentence if it is refused."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "model.pt").touch()

    def attempt(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        try:
            READ[name][0](path)
        except InputError as error:
            text = str(error)
            assert str(path) in text and "\n" not in text and len(text) < 500 and text.endswith("."), text
            return text
        finally:
            assert not (tmp_path / "ran").exists()
            path.unlink()
        return ""

    return attempt


@pytest.mark.parametrize("name", READ)
def test_what_should_be_there_is_read(name, read):
    assert read(name, json.dumps(READ[name][1]).encode()) == ""


@pytest.mark.parametrize("name", READ)
def test_a_file_that_is_not_what_it_should_be_is_refused(name, read):
    assert all(read(name, content) for content in BROKEN)


@pytest.mark.parametrize(("name", "key"), ENTRIES)
def test_a_value_of_another_type_is_refused(name, key, read):
    sound = READ[name][1]
    for value in VALUES:
        kind = KINDS[type(value)]
        told = read(name, json.dumps(sound | {key: value}).encode())
        if kind != KINDS[type(sound[key])] or (value == [[]] and key != "training"):  # an entry without an image
            assert told, f"{key} = {value!r} is read without a word"


@pytest.mark.parametrize(
    "content", [*BROKEN, b'{"labels": [1]}', b'{"cases": [{"stamp": 3}]}', b'{"labels": {"a": []}}']
)
def test_what_is_only_a_help_is_ignored_where_it_is_damaged(content, tmp_path):
    for name in ("check.json", "dataset.json"):
        (tmp_path / name).write_bytes(content)
    assert stated_values(str(tmp_path)) is None
    assert CaseCheck(COHORT, COHORTS, FOUR, str(tmp_path / "check.json")).known == {}


def test_an_earlier_check_whose_values_have_other_types_is_not_used(tmp_path):
    record = Finding("a", "a", stamp="s").record()
    for name, value in {
        "case": 3,
        "faults": "none",
        "notes": [1],
        "labelled": "yes",
        "facts": [],
        "stamp": None,
    }.items():
        (tmp_path / "check.json").write_text(json.dumps({"cases": [record | {name: value}]}))
        assert CaseCheck(COHORT, COHORTS, FOUR, str(tmp_path / "check.json")).known == {}
    (tmp_path / "check.json").write_text(json.dumps({"cases": [record]}))
    assert CaseCheck(COHORT, COHORTS, FOUR, str(tmp_path / "check.json")).known == {"s": Finding("a", "a", stamp="s")}


@pytest.mark.parametrize("part", ["", "::threshold", "#threshold"])
@pytest.mark.parametrize("option", ["after_treatment", "after_treatment::threshold", "after_treatment#threshold"])
@pytest.mark.usefixtures("at_the_root")
def test_an_after_treatment_given_in_part_is_checked_like_one_given_whole(option, part, tmp_path):
    """MONAI would run the text of the file."""
    path = tmp_path / "after_treatment.json"
    path.write_text(json.dumps({"threshold": {"ET": CODE.replace("ran", str(tmp_path / "ran"))}}))
    value = f"%{path}{part}"
    given = value if "threshold" in option else f"{{threshold: '{value}', smallest_piece: {{}}, smallest_region: {{}}}}"
    with pytest.raises(InputError, match="threshold.ET is .*, not a number"):
        check_command(["run", "inferring", "--args_file", "bundles/unet3d/args.yaml", f"--{option}", given])
    assert not (tmp_path / "ran").exists()
