"""A case that differs from the training cases in its grid, brain volume or intensities gets a note."""

import nibabel as nib
import numpy as np
import pytest
from tumour.cases.find import find_cases
from tumour.checks.case import CaseCheck
from tumour.checks.strangers import measures, ranges, relations, strange, widest, z_scores
from tumour.patches.datasets import ReadableCases

from tests.cohorts import COHORTS, FOUR

COHORT = COHORTS["brats2021"]


@pytest.fixture(scope="module")
def seen(patients):
    return ranges(facts_of(case) for case in cases_in(patients("brats2021")))


def cases_in(folder):
    return find_cases(str(folder), COHORT, FOUR).complete


def facts_of(case):
    return CaseCheck(COHORT, COHORTS, FOUR)(case).facts


def changed(case, folder, change):
    """The case with its scans changed."""
    (folder / case.name).mkdir()
    for path in case.images:
        image = nib.load(path)
        data, affine = change(path, np.asarray(image.dataobj).astype(np.float32), image.affine)
        nib.save(nib.Nifti1Image(data, affine), folder / case.name / path.rsplit("/", 1)[1])
    return cases_in(folder)[0]


def test_the_training_cases_are_within_their_own_ranges_and_the_ranges_are_theirs(patients, seen):
    every = [measures(facts_of(case)) for case in cases_in(patients("brats2021"))]
    assert {"brain volume, ml", "voxel side, mm (largest)", "T1ce, percentile 95, sd"} <= seen.keys() == every[0].keys()
    for name, (low, high) in seen.items():
        assert low == min(one[name] for one in every) and high == max(one[name] for one in every)
    assert not any(strange(facts_of(case), seen) for case in cases_in(patients("brats2021")))


def ring(path, data, affine):
    data[2:-2, 2:-2, 2:-2][data[2:-2, 2:-2, 2:-2] == 0] = 50  # as if it were not skull-stripped
    return data, affine


def bright(path, data, affine):
    return ((data / data.max()) ** 6 if "_t2" in path else data), affine


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (
            lambda path, data, affine: (data, affine @ np.diag([1, 1, 3, 1])),
            r"voxel side, mm \(largest\), 3 \(1 to 1\)",
        ),
        (ring, "brain volume, ml"),
        (bright, "T2, percentile"),
        (lambda path, data, affine: (data[:, :, :24], affine), r"field of view, mm \(foot-head\), 24 \(40 to 40\)"),
    ],
)
def test_what_differs_is_noted_with_the_value_and_the_range_of_the_training(change, part, patients, seen, tmp_path):
    case = changed(cases_in(patients("brats2021"))[0], tmp_path, change)
    (note,) = strange(facts_of(case), seen)
    assert note.startswith("unlike the cases used for training: ") and note.endswith("; check its result")
    assert __import__("re").search(part, note), note


@pytest.mark.parametrize(
    ("facts", "name", "seen", "usual", "odd"),
    [
        ("brain_ml", "brain volume, ml", (1000, 1000), (810, 1190), (790, 1210)),  # a fifth of the value
        ("brain_ml", "brain volume, ml", (800, 2000), (510, 2290), (490, 2310)),  # a quarter of the range
        ("relations", "T2 where T1 is bright", (0.1, 0.2), (-0.14, 0.44), (-0.16, 0.46)),  # a quarter of an sd
    ],
)
def test_a_measure_is_odd_beyond_a_margin_around_the_range_of_the_training(facts, name, seen, usual, odd):
    def noted(value):
        measured = {facts: {name: value} if facts == "relations" else value}
        return bool(strange(measured, {f"{name}, sd" if facts == "relations" else name: seen}))

    assert not any(map(noted, usual)) and all(map(noted, odd))


def test_a_relation_is_the_mean_of_one_modality_where_another_is_brightest():
    random = np.random.default_rng(0)
    brain = random.random((14, 12, 10)) < 0.8
    scans = {name: random.random(brain.shape) * factor for name, factor in {"T2": 50, "FLAIR": 7}.items()}
    scores = {name: z_scores(data, brain) for name, data in scans.items()}
    z = {name: data[::2, ::2, ::2][brain[::2, ::2, ::2]] for name, data in scans.items()}
    z = {name: (values - values.mean()) / values.std() for name, values in z.items()}
    bright = z["T2"] >= np.percentile(z["T2"], 90)
    found = relations(scores)
    assert list(found) == ["FLAIR where T2 is bright", "T2 where FLAIR is bright"]
    assert found["FLAIR where T2 is bright"] == pytest.approx(z["FLAIR"][bright].mean(), abs=0.001)


def test_exchanged_modalities_are_noted_though_each_has_usual_intensities(tmp_path):
    """Fluid is bright in T2 and dark in FLAIR; a tumour is bright in both."""
    random, facts = np.random.default_rng(0), []
    for case in range(4):
        tissue = random.random((16, 16, 16))
        fluid, tumour = tissue < 0.10, tissue > 0.88
        noise = random.normal(0, 0.2, (2, *tissue.shape))
        t2, flair = 3 * (fluid + tumour) + noise[0], 3 * tumour - 0.5 * fluid + noise[1]
        names = ("T2", "FLAIR") if case else ("FLAIR", "T2")
        scores = {name: z_scores(data, tissue < 2) for name, data in zip(names, (t2, flair), strict=True)}
        facts.append({"relations": relations(scores)})
    (note,) = strange(facts[0], ranges(facts[1:]))
    assert "FLAIR where T2 is bright" in note and not strange(facts[1], ranges(facts[2:]))


def test_a_scan_with_other_units_or_axes_is_no_stranger(patients, seen, tmp_path):
    case = changed(
        cases_in(patients("brats2021"))[0],
        tmp_path,
        lambda path, data, affine: (
            np.ascontiguousarray(data.transpose(2, 0, 1)[::-1]) * 37,
            affine @ [[0, 1, 0, 0], [0, 0, 1, 0], [-1, 0, 0, data.shape[2] - 1], [0, 0, 0, 1]],
        ),
    )
    assert strange(facts_of(case), seen) == []


def test_a_stranger_is_read_with_a_note_and_weights_without_a_record_note_nothing(patients):
    case = cases_in(patients("brats2021"))[0]
    read = {
        name: ReadableCases([case], dict, CaseCheck(COHORT, COHORTS, FOUR), seen=ranges)
        for name, ranges in {"record": {"brain volume, ml": [900, 1000]}, "none": {}}.items()
    }
    assert all(len(list(cases)) == 1 for cases in read.values())
    assert [note.case for note in read["record"].notes] == [case.name] and read["none"].notes == []


def test_an_ensemble_knows_the_cases_of_all_members():
    assert widest([{"a": [1, 2], "b": [0, 1]}, {"a": [-1, 1.5]}, {}]) == {"a": [-1, 2], "b": [0, 1]}
