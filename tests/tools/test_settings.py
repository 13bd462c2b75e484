"""docs/settings.md is what the configs say."""

import pytest
from tumour.errors import InputError
from tumour.runs.options import rules

from tests.conftest import ROOT
from tools import settings
from tools.show import merged


@pytest.fixture(scope="module")
def page():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return settings.page()


def test_the_page_of_settings_is_up_to_date(page):
    assert settings.PAGE.read_text(encoding="utf-8") == page, "run `make docs`"


def test_every_setting_has_a_row_with_four_cells(page, at_the_root):
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    names = [name for name, _ in rules(merged("bundles/unet3d/args.yaml")["settings"])]
    assert sorted(row[0].strip("| `") for row in rows) == sorted(names)
    assert all(len(row) == 4 and row[1] and row[2] for row in rows)


@pytest.mark.parametrize(
    "row",
    [
        "| `batch_size` | patches per step and device | an integer from 1 to 1024 | `2` |",
        "| `epochs` | how long to train; a validation is at the end of some epochs | an integer of 1 or more "
        "| `10`, on a GPU `200` |",
        "| `size` | fast: half-resolution stem, for a CPU or a quick GPU run; full: full-resolution first level, "
        "like nnU-Net | one of fast, full | `fast`, on a GPU `full`* |",
    ],
)
def test_a_row_gives_meaning_range_and_default(row, page):
    assert row in page.splitlines()


def test_the_defaults_of_references_are_those_of_the_config(at_the_root):
    parser = merged("bundles/unet3d/args.yaml")
    assert parser.get_parsed_content("head") == parser.get_parsed_content("heads::regions")
    assert parser["default_loss"] == {"sigmoid": "@losses::dice_bce", "softmax": "@losses::dice_ce"}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("epochs: 3 # how long", "how long"),
        ("epochs: 3", ""),
        ("my_epochs: 3 # other", None),
        ("part:\n  epochs: 3 # inner", None),
    ],
)
def test_the_meaning_is_the_comment_behind_the_setting(line, found):
    assert settings.meaning("epochs", line.splitlines()) == found


def test_a_nested_setting_is_found_in_its_part_only():
    lines = ["other:", "  threshold: 1 # wrong", "part:", "  threshold: 2 # right"]
    assert settings.meaning("part::threshold", lines) == "right"


def test_a_setting_without_a_comment_is_refused(monkeypatch, at_the_root):
    monkeypatch.setattr(settings, "meaning", lambda setting, lines: "")
    with pytest.raises(InputError, match="bundle_root has no comment in bundles/common/"):
        settings.page()
