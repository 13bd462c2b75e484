"""The choice rests on out-of-fold scores alone, and on paired differences."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from tumour.errors import InputError
from tumour.records import read_table

from tests.conftest import TINY, here
from tools import crossvalidate as folds_module
from tools.best import Candidate, choose, compare, read_cases
from tools.crossvalidate import crossvalidate
from tools.patients.synthetic import make_patients

SHORT = TINY | {"epochs": 1}
PLAIN, MIRRORED, BOTH = (
    Candidate((Path("a"),), False),
    Candidate((Path("a"),), True),
    Candidate((Path("a"), Path("b")), False),
)
COSTS = {PLAIN: 1.0, MIRRORED: 8.0, BOTH: 2.0}


def series(values):
    return pd.Series(values, index=[f"case{number}" for number in range(len(values))])


def test_the_best_is_chosen_where_every_paired_difference_is_clear():
    base = np.linspace(0.4, 0.9, 20)
    scores = {PLAIN: series(base), MIRRORED: series(base + 0.02), BOTH: series(base + 0.01)}
    assert choose(scores, COSTS) == (MIRRORED, [MIRRORED])


def test_the_cheapest_is_chosen_where_the_differences_do_not_distinguish():
    base = np.linspace(0.4, 0.9, 20)
    noise = np.where(np.arange(20) % 2, 0.05, -0.049)
    scores = {PLAIN: series(base), MIRRORED: series(base + noise), BOTH: series(base - 0.1)}
    assert choose(scores, COSTS) == (PLAIN, [PLAIN, MIRRORED])


def test_differences_are_paired_by_case_not_by_position():
    base = np.linspace(0.4, 0.9, 20)
    shuffled = series(base + 0.02).sample(frac=1, random_state=0)
    assert choose({PLAIN: series(base), MIRRORED: shuffled}, COSTS)[1] == [MIRRORED]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two finished cross-validations of the same six patients, and their data."""
    data, folders = tmp_path_factory.mktemp("six"), []
    make_patients(data, cases=6, size=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folds_module.__file__.rsplit("/", 2)[0])
        start = SimpleNamespace(Popen=lambda c: SimpleNamespace(wait=lambda: here(c).returncode))
        patch.setattr(folds_module, "subprocess", start)
        for bundle in ("unet3d", "neuroseg3d"):
            folders.append(tmp_path_factory.mktemp(bundle))
            crossvalidate(bundle, "brats2021", str(data), str(folders[-1]), 2, **SHORT)
    return data, folders


@pytest.fixture
def runs(monkeypatch, at_the_root):
    done = []

    def start(command):
        done.append(command)
        return SimpleNamespace(wait=lambda: here(command).returncode)

    monkeypatch.setattr(folds_module, "subprocess", SimpleNamespace(Popen=start))
    return done


def test_all_candidates_are_scored_on_the_folds_and_one_is_named(two, runs, tmp_path):
    data, folders = two
    given = " ".join(map(str, folders)), "brats2021", str(data), str(tmp_path / "best"), 2
    before = [(folder / "fold0" / "models" / "scores.json").read_text() for folder in folders]
    text = compare(*given, **SHORT)
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line[:1] == "|"][2:]
    plain = ["unet3d", "neuroseg3d", "unet3d + neuroseg3d"]
    assert rows[:-1] == [name for each in plain for name in (each, f"{each}, mirrored")]
    assert (
        rows[-1].endswith("with after-treatment")
        and f"Use {json.loads((tmp_path / 'best/best.json').read_text())['bundles'][0]}" in text
    )
    for fold in range(2):  # each patient by a network that was not trained on it
        place = tmp_path / "best" / "unet3d+neuroseg3d" / f"fold{fold}"
        trained = json.loads((place / "models" / "patients.json").read_text())["train"]
        scored = read_table(place / "results" / "scores" / "scores.csv")["case"].unique()
        assert len(scored) == 3 and not {*scored} & {*trained}
    assert before == [(folder / "fold0" / "models" / "scores.json").read_text() for folder in folders]
    count = len(runs)
    assert compare(*given, **SHORT) == text and len(runs) == count  # nothing is repeated


def test_the_after_treatment_of_a_fold_is_fitted_to_the_other_folds(two, runs, tmp_path, monkeypatch):
    data, folders = two
    fits = []

    def note(cases, path, cohort):
        fits.append(([case.reference.sum() for case in cases], path))
        Path(path).write_text("{}")

    monkeypatch.setattr("tools.best.fit", note)
    with pytest.raises(InputError):  # an empty file is no after-treatment
        compare(str(folders[0]), "brats2021", str(data), str(tmp_path / "best"), 2, **SHORT)
    sums, path = fits[0]
    own, other = (
        [c.reference.sum() for c in read_cases(path.parents[1] / f"fold{n}/results/fitting.pt")] for n in (0, 1)
    )
    assert path.parent.name == "fold0" and sums == other != own


def test_what_cannot_be_compared_is_refused(two, runs, tmp_path):
    data, folders = two
    for given, options, message in [
        ("", {}, "There is no finished cross-validation"),
        (str(tmp_path), {}, "is not a finished cross-validation"),
        (str(folders[0]), {"epochs": 9}, "epochs = 1, but epochs is now 9"),
    ]:
        with pytest.raises(InputError, match=message):
            compare(given, "brats2021", str(data), str(tmp_path / "best"), 2, **{**SHORT, **options})
    assert runs == []
