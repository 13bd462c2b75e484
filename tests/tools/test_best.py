"""The choice rests on out-of-fold scores alone, and on paired differences."""

import json
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tumour.errors import InputError, OptionError
from tumour.records import read_table

from tests.conftest import TINY, here
from tools import crossvalidate as folds_module
from tools.best import Candidate, Folds, choose, compare, improves, names_of, read_cases, row_of
from tools.crossvalidate import crossvalidate, options_of
from tools.patients.synthetic import make_patients

SHORT = TINY | {"epochs": 1}
PLAIN, MIRRORED, BOTH = (
    Candidate((Path("a"),), False, ("a",)),
    Candidate((Path("a"),), True, ("a",)),
    Candidate((Path("a"), Path("b")), False, ("a", "b")),
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


def test_mirroring_costs_a_pass_for_each_of_eight_flips_and_an_ensemble_the_sum_of_its_members(monkeypatch):
    monkeypatch.setattr("tools.best.bundle_of", lambda folder: folder.name)
    operations = {"bundles/a/args.yaml": 3.0, "bundles/b/args.yaml": 5.0}
    monkeypatch.setattr("tools.best.cost", lambda file, size, modalities: (0.0, operations[file]))
    settings = {"size": "fast", "modalities": ["T1"], "cohort": "msd"}
    both_mirrored = Candidate(BOTH.folders, True, BOTH.names)
    assert [each.cost(settings) for each in (PLAIN, MIRRORED, BOTH, both_mirrored)] == [3, 24, 8, 64]


def test_a_row_is_the_difference_of_the_candidate_from_the_best_on_the_same_cases():
    best = series([0.5, 0.9])
    row = row_of("worse", series([0.4, 0.6]), best, 7.0)
    assert row["minus the best"] == "-0.200 (-0.300 to -0.100)" and row["mean Dice"] == "0.500 (0.400 to 0.600)"
    assert row_of("best", best, best, 7.0)["minus the best"] == ""


@pytest.mark.parametrize(
    ("change", "used"), [([0.1, 0.3], True), ([-0.1, -0.3], False), ([0.3, -0.1], False), ([0, 0], False)]
)
def test_an_after_treatment_is_used_if_the_interval_of_its_gain_is_above_zero(change, used):
    plain = series([0.5, 0.4])
    assert improves(plain + change, plain) is used


class Scored:
    """Stands for the runs of the candidates: only `b` scored case2, which is hard."""

    gain: float  # of the after-treatment, on each case

    def __init__(self, *_):
        pass

    def scored(self, candidate):
        dice = pd.Series({"case0": 0.5, "case1": 0.7, "case2": 0.0}).rename_axis("case")
        return dice if candidate.folders[0].name == "b" else dice[:2] - 0.1

    def treated(self, candidate):
        return self.scored(candidate) + self.gain, Path("treatment.json")


@pytest.mark.parametrize(
    ("gain", "dice", "used"), [(-0.1, "0.500 (0.400 to 0.600)", False), (0.1, "0.700 (0.600 to 0.800)", True)]
)
def test_candidates_are_compared_on_the_cases_that_all_scored_and_the_others_are_named(
    gain, dice, used, tmp_path, monkeypatch
):
    """The mean of `a` over fewer and easier cases is higher (0.5 against 0.4), but it is worse on each of them."""
    for folder in ("a", "b"):
        (tmp_path / folder / "fold0" / "models").mkdir(parents=True)
        (tmp_path / folder / "fold0" / "models" / "model.pt").touch()
    settings = {"patients": {}, "args_file": ""}
    stubs = {"started": lambda _: settings, "bundle_of": lambda folder: folder.name, "Folds": Scored}
    stubs |= dict.fromkeys(("options_of", "settings_of_folds", "require_same_settings"), lambda *_: {})
    for name, stub in stubs.items():
        monkeypatch.setattr(f"tools.best.{name}", stub)
    monkeypatch.setattr(Candidate, "cost", lambda *_: 1.0)
    monkeypatch.setattr(Scored, "gain", gain, raising=False)
    folders = f"'{tmp_path / 'a'}' '{tmp_path / 'b'}'"
    text = compare(folders, "data", str(tmp_path / "best"), folds=1)
    assert text.startswith("2 scans") and "not all candidates scored them: case2." in text
    assert "| a | 1.0 | 0.500 (0.400 to 0.600) | -0.100 (-0.100 to -0.100) |" in text
    assert f"| b, with after-treatment | 1.0 | {dice} | {gain:.3f} ({gain:.3f} to {gain:.3f}) |" in text
    assert (
        "Use b. " in text
        and f"{gain:+.3f} ({gain:+.3f} to {gain:+.3f}); it is {'used' if used else 'not used'}" in text
    )
    assert json.loads((tmp_path / "best" / "best.json").read_text()) == {
        "bundles": ["b"],
        "crossvalidations": [str(tmp_path / "b")],
        "mirror": False,
        "after_treatment": "treatment.json" if used else None,
    }


def test_an_after_treatment_is_fitted_for_a_data_set_that_a_file_adds(tmp_path, monkeypatch, at_the_root):
    added = tmp_path / "mine.yaml"
    added.write_text(
        "+cohorts: {mine: {files: {T1: _a, T1ce: _b, T2: _c, FLAIR: _d, label: _e}, label_values: [0, 5, 6, 7], "
        "patient: (.+), challenge: legacy}}"
    )
    options = options_of("unet3d", "data", "mine", 2, "", {"+config_file": str(added)})
    fitted = {}
    monkeypatch.setattr(Folds, "run", lambda *_, **__: None)
    monkeypatch.setattr("tools.best.read_cases", lambda path: [])
    monkeypatch.setattr("tools.best.mean_dice", lambda *folders: pd.Series(dtype=float))
    monkeypatch.setattr("tools.best.fit", lambda cases, path, cohort: fitted.update({path.parent.name: cohort.name}))
    Folds(tmp_path, {Path("a"): options}, 2).treated(PLAIN)
    assert fitted == {"fold0": "mine", "fold1": "mine", tmp_path.name: "mine"}


def test_cross_validations_of_one_bundle_have_names_and_folders_of_their_own(monkeypatch):
    monkeypatch.setattr("tools.best.bundle_of", lambda folder: "unet3d" if folder.name[0] == "x" else "resunet")
    names = names_of([Path("long/x"), Path("short/x"), Path("y")])
    assert [*names.values()] == ["unet3d long_x", "unet3d short_x", "resunet"]
    candidates = [Candidate((folder,), False, (name,)) for folder, name in names.items()]
    assert len({Folds(Path("out"), {}, 2).place(each, 0) for each in candidates}) == 3
    with pytest.raises(OptionError, match="y' is named twice in --crossvalidations"):
        names_of([Path("y"), Path("y").absolute()])


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two finished cross-validations of the same six patients, and their data."""
    data, folders = tmp_path_factory.mktemp("six"), []
    make_patients(data, cases=6, size=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folds_module.__file__.rsplit("/", 2)[0])
        patch.setattr(folds_module, "status_of", lambda command: here(command).returncode)
        for bundle in ("unet3d", "neuroseg3d"):
            folders.append(tmp_path_factory.mktemp(f"o'neil {bundle}"))
            crossvalidate(bundle, str(data), str(folders[-1]), "brats2021", 2, **SHORT)
    return data, folders


@pytest.fixture
def runs(monkeypatch, at_the_root):
    done = []

    def start(command):
        done.append(command)
        return here(command).returncode

    monkeypatch.setattr("tools.best.status_of", start)
    return done


def test_all_candidates_are_scored_on_the_folds_and_one_is_named(two, runs, tmp_path):
    data, folders = two
    given = shlex.join(map(str, folders)), str(data), str(tmp_path / "o'neil"), "brats2021", 2
    before = [(folder / "fold0" / "models" / "scores.json").read_text() for folder in folders]
    text = compare(*given, **SHORT)
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line[:1] == "|"][2:]
    plain = ["unet3d", "neuroseg3d", "unet3d + neuroseg3d"]
    assert rows[:-1] == [name for each in plain for name in (each, f"{each}, mirrored")]
    best = json.loads((tmp_path / "o'neil" / "best.json").read_text())
    assert rows[-1].endswith("with after-treatment") and f"Use {best['bundles'][0]}" in text
    for fold in range(2):  # each patient by a network that was not trained on it
        place = tmp_path / "o'neil" / "unet3d+neuroseg3d" / f"fold{fold}"
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
        compare(shlex.quote(str(folders[0])), str(data), str(tmp_path / "best"), "brats2021", 2, **SHORT)
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
        (shlex.quote(str(folders[0])), {"epochs": 9}, "epochs = 1, but epochs is now 9"),
    ]:
        with pytest.raises(InputError, match=message):
            compare(given, str(data), str(tmp_path / "best"), "brats2021", 2, **{**SHORT, **options})
    assert runs == []
