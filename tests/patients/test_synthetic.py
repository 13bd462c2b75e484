"""Synthetic patients are stored like real ones and look like scans of a tumour."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from tumour.cases.find import find_cases
from tumour.errors import InputError

from tests.cohorts import COHORTS, FOUR
from tools.command_line import command_line
from tools.patients import synthetic
from tools.patients.phantom import NOT_ENHANCING, SCATTERED, SIGNAL, TISSUES, make_patient, scan
from tools.patients.synthetic import AXES, make_patients, with_fifth_class

NECROTIC, OEDEMA, ENHANCING = 1, 2, 3
SHAPE = (38, 44, 36)
TOUCHING = np.ones((3, 3, 3))

patient = cache(lambda index, edge=48: make_patient(0, index, (edge,) * 3))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder with three patients of a data set, written once."""

    @cache
    def folder(convention: str) -> Path:
        path = tmp_path_factory.mktemp(convention)
        make_patients(path, cases=3, size=SHAPE, cohort=convention)
        return path

    return folder


def in_world(path: str, cohort: Mapping[str, Any], name: str) -> nib.Nifti1Image:
    """A modality or the label (as positions in the canonical classes) with its axes to the right, the front and up."""
    image = nib.load(path)
    data = np.asanyarray(image.dataobj)
    if name == "label":
        position = np.full(256, -1)
        position[list(cohort.label_values)] = range(len(cohort.label_values))
        data = position[data]
    elif data.ndim == 4:
        data = data[..., cohort.channels.index(name)]
    return nib.as_closest_canonical(nib.Nifti1Image(data.astype(np.int16), image.affine))


def healthy_tissue(images: Mapping[str, np.ndarray], label: np.ndarray) -> dict[str, np.ndarray]:
    """The tissues outside the tumour, found in T1: fluid is dark, grey matter medium, white matter bright."""
    t1 = images["T1"]
    healthy = (t1 > 0) & (label == 0)
    dark, low, high, bright = np.percentile(t1[healthy], [4, 25, 40, 75])
    return {
        "csf": healthy & (t1 <= dark),
        "grey": healthy & (low <= t1) & (t1 <= high),
        "white": healthy & (t1 >= bright),
    }


# Files
@pytest.mark.parametrize("convention", COHORTS)
def test_every_case_is_found_with_its_label_and_belongs_to_one_patient(written, convention):
    found = find_cases(str(written(convention)), COHORTS[convention], FOUR)
    cases, notes = found.complete, found.left_out
    assert not notes and len(cases) == 3
    assert all(case.label for case in cases) and len({case.patient for case in cases}) == 3
    values = np.unique(np.asanyarray(nib.load(cases[0].label).dataobj))
    assert sorted(COHORTS[convention].label_values) == values.tolist()


@pytest.mark.parametrize("convention", COHORTS)
def test_a_data_set_without_its_own_case_names_works_too(tmp_path, monkeypatch, convention):
    monkeypatch.delitem(synthetic.CASES, convention)
    make_patients(tmp_path, cases=2, size=32, cohort=convention)
    cases = find_cases(str(tmp_path), COHORTS[convention], FOUR).complete
    assert len({case.patient for case in cases if case.label}) == 2


@pytest.mark.parametrize("convention", COHORTS)
def test_every_cohort_stores_the_same_patient_in_world_space(written, convention):
    cohort = COHORTS[convention]
    case = find_cases(str(written(convention)), cohort, FOUR).complete[0]
    images, label = make_patient(0, 0, SHAPE)
    label = with_fifth_class(label) if len(cohort.classes) > 4 else label
    affine = np.eye(4)
    affine[0, 3] = 1 - SHAPE[0]
    paths = case.images * 4 if cohort.channels else case.images
    for name, path, made in zip([*FOUR, "label"], [*paths, case.label], [*images.values(), label], strict=True):
        image = in_world(path, cohort, name)
        assert np.array_equal(image.affine, affine) and np.array_equal(image.dataobj, made), name
    assert "".join(nib.aff2axcodes(nib.load(paths[0]).affine)) == AXES.get(convention, "LPS")


def test_2021_and_2023_differ_only_in_the_value_of_enhancing_tumour(written):
    old, new = (
        find_cases(str(written(convention)), COHORTS[convention], FOUR).complete
        for convention in ("brats2021", "brats2023_gli")
    )
    for before, after in zip(old, new, strict=True):
        for one, other in zip(before.images, after.images, strict=True):
            assert np.array_equal(nib.load(one).dataobj, nib.load(other).dataobj)
            assert nib.load(one).get_data_dtype() == np.int16
        values, others = (np.asanyarray(nib.load(case.label).dataobj) for case in (before, after))
        assert np.array_equal(np.where(values == 4, 3, values), others) and 3 not in values


def test_msd_stores_four_channels_in_its_own_order(written):
    stored = np.asanyarray(nib.load(written("msd") / "imagesTr" / "BRATS_001.nii.gz").dataobj)
    images, _ = make_patient(0, 0, SHAPE)
    assert stored.shape == (*SHAPE, 4)
    assert all(np.array_equal(stored[..., i], images[m]) for i, m in enumerate(["FLAIR", "T1", "T1ce", "T2"]))


def test_an_interrupted_write_leaves_only_the_old_file(tmp_path, monkeypatch):
    make_patients(tmp_path, cases=1, size=32)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.nii.gz")}

    def break_off(image, path):
        assert path.name.startswith(".")  # `find_cases` ignores it
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(nib, "save", break_off)
    with pytest.raises(InputError, match="disk full"):
        make_patients(tmp_path, cases=1, size=32, seed=1)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


# Determinism
def test_a_patient_depends_only_on_seed_and_index(tmp_path):
    make_patients(tmp_path / "few", cases=2, size=32, seed=7)
    make_patients(tmp_path / "more", cases=3, size=32, seed=7)
    few, more = ({p.name: p.read_bytes() for p in (tmp_path / folder).rglob("*.nii.gz")} for folder in ("few", "more"))
    assert len(few) == 10 and few.items() < more.items()
    first = make_patient(7, 0, (32,) * 3)
    for other in (make_patient(7, 1, (32,) * 3), make_patient(8, 0, (32,) * 3)):
        assert (first[1] != other[1]).any() and all((first[0][m] != other[0][m]).any() for m in FOUR)


def test_a_patient_has_the_same_tumour_at_another_size():
    (small, small_label), (large, large_label) = patient(0, 40), patient(0, 64)
    centres = [np.array(ndimage.center_of_mass(label > 0)) / len(label) for label in (small_label, large_label)]
    shares = [(label > 0).sum() / (images["T1"] > 0).sum() for images, label in (patient(0, 40), patient(0, 64))]
    assert np.allclose(*centres, atol=0.02) and np.allclose(*shares, rtol=0.1)
    assert np.isclose((small["T1"] > 0).mean(), (large["T1"] > 0).mean(), rtol=0.05)


# Anatomy
@pytest.mark.parametrize("index", range(3))
def test_the_brain_is_one_piece_on_a_background_of_zero_with_the_tumour_inside(index):
    images, label = patient(index)
    brain = images["T1"] > 0
    assert ndimage.label(brain)[1] == 1 and not brain[[0, -1]].any() and not brain[:, [0, -1]].any()
    assert all(np.array_equal(image > 0, brain) and image.min() == 0 for image in images.values())
    assert brain[label > 0].all() and 0.02 < (label > 0).sum() / brain.sum() < 0.11
    length = np.ptp(np.flatnonzero(brain.any(axis=(0, 2)))) + 1
    assert 0.78 < length / 48 < 0.92


@pytest.mark.parametrize("index", range(3))
def test_fluid_is_dark_in_flair_and_bright_in_t2(index):
    images, label = patient(index)
    tissue = healthy_tissue(images, label)
    t2, flair = ({name: np.median(images[m][mask]) for name, mask in tissue.items()} for m in ("T2", "FLAIR"))
    assert t2["csf"] > 1.2 * t2["grey"] and t2["grey"] > 1.1 * t2["white"]
    assert flair["csf"] < 0.7 * flair["white"] and flair["csf"] < 0.7 * flair["grey"]


def test_each_contrast_has_the_tissues_in_the_order_of_a_real_scan():
    slabs = np.eye(len(TISSUES), dtype=np.float32).repeat(4, axis=1)[..., None, None] * np.ones((9, 9), np.float32)
    shares = dict(zip(TISSUES, slabs, strict=True))  # (x, y, z) each: four slices of every tissue
    axes = [np.linspace(-9, 9, edge, dtype=np.float32) for edge in (4 * len(TISSUES), 9, 9)]
    seen = {}
    for modality, signal in SIGNAL.items():
        image = scan(np.random.default_rng(0), axes, shares, signal)
        seen[modality] = {tissue: np.median(image[share > 0]) for tissue, share in shares.items()}
    assert [sorted(("csf", "grey", "white"), key=image.get) for image in seen.values()] == [
        ["csf", "grey", "white"],
        ["csf", "grey", "white"],
        ["white", "grey", "csf"],
        ["csf", "white", "grey"],
    ]
    assert max(seen["FLAIR"], key=seen["FLAIR"].get) == "oedema"
    assert set(sorted(seen["T1ce"], key=seen["T1ce"].get)[-2:]) == {"enhancing", "vessel"}
    assert all(seen[m]["necrotic"] < seen[m]["oedema"] < seen[m]["white"] for m in ("T1", "T1ce"))
    assert seen["T2"]["grey"] < seen["T2"]["oedema"] < seen["T2"]["necrotic"]


def test_scanner_gain_and_bias_differ_from_contrast_to_contrast_and_patient_to_patient():
    gains = {np.median(image[image > 0]) for index in (0, 1) for image in patient(index)[0].values()}
    assert len(gains) == 8 and max(gains) > 1.5 * min(gains)


# Tumour
@pytest.mark.parametrize("index", [0, SCATTERED, 3])
def test_the_ring_is_bright_only_in_t1ce_and_surrounds_the_necrosis(index):
    images, label = patient(index)
    white = healthy_tissue(images, label)["white"]
    ring, dead = label == ENHANCING, label == NECROTIC
    t1, t1ce = (np.median(images[m][ring]) / np.median(images[m][white]) for m in ("T1", "T1ce"))
    assert t1 < 0.85 and t1ce > 1.05 and t1ce > 1.5 * t1
    assert np.median(images["T1ce"][dead]) < 0.75 * np.median(images["T1ce"][white])
    border = ndimage.binary_dilation(dead) & ~dead
    assert ring[border].mean() > 0.7


@pytest.mark.parametrize("index", range(3))
def test_oedema_is_brighter_than_white_matter_in_flair_and_t2_and_surrounds_the_core(index):
    images, label = patient(index)
    white, oedema = healthy_tissue(images, label)["white"], label == OEDEMA
    for modality in ("T2", "FLAIR"):
        assert np.median(images[modality][oedema]) > 1.4 * np.median(images[modality][white])
    core = (label == NECROTIC) | (label == ENHANCING)
    border = ndimage.binary_dilation(core) & ~core
    assert oedema[border].mean() > 0.6 and core.sum() < oedema.sum()


def test_one_patient_has_no_enhancing_tumour():
    label = patient(NOT_ENHANCING)[1]
    assert np.unique(label).tolist() == [0, NECROTIC, OEDEMA]
    assert all(np.unique(patient(index)[1]).tolist() == [0, 1, 2, 3] for index in (0, SCATTERED))


@pytest.mark.parametrize("edge", [32, 48])
def test_one_patient_has_many_small_lesions(edge):
    label = patient(SCATTERED, edge)[1]
    lesions, count = ndimage.label(label > 0, TOUCHING)
    sizes = np.bincount(lesions.ravel())[1:]
    assert count >= 8 and sizes.max() < 0.4 * sizes.sum()
    assert ndimage.label((label == NECROTIC) | (label == ENHANCING), TOUCHING)[1] >= 8


def test_the_number_of_lesions_can_be_set():
    label = make_patient(0, 0, (48,) * 3, lesions=4)[1]
    assert ndimage.label((label == NECROTIC) | (label == ENHANCING), TOUCHING)[1] == 4


def test_a_cavity_or_cyst_takes_half_of_the_necrosis_and_nothing_else():
    label = patient(0)[1]
    after = with_fifth_class(label)
    assert 0.4 < (after == 4).sum() / (label == NECROTIC).sum() < 0.7
    assert np.array_equal(np.where(after == 4, NECROTIC, after), label)


@pytest.mark.parametrize("convention", ["brats2024_met", "msd"])
def test_another_grid_shows_the_same_head_in_world_space(tmp_path, convention):
    cohort, spacing = COHORTS[convention], (0.8, 0.9, 2.5)
    make_patients(tmp_path, cases=1, size=SHAPE, cohort=convention, spacing=spacing)
    case = find_cases(str(tmp_path), cohort, FOUR).complete[0]
    _, label = make_patient(0, 0, SHAPE)
    stored = in_world(case.label, cohort, "label")
    assert np.allclose(nib.affines.voxel_sizes(stored.affine), spacing)
    volume, made = (np.asanyarray(stored.dataobj) > 0).sum() * np.prod(spacing), (label > 0).sum()
    assert volume == pytest.approx(made, rel=0.06)
    centre = nib.affines.apply_affine(stored.affine, ndimage.center_of_mass(np.asanyarray(stored.dataobj) > 0))
    expected = np.array(ndimage.center_of_mass(label > 0)) + [1 - SHAPE[0], 0, 0]
    assert np.allclose(centre, expected, atol=0.5)


# Arguments
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cases": 0}, "cases is 0; it must be an integer from 1"),
        ({"size": 31}, "size is 31; it must be an integer from 32"),
        ({"size": (40, 40, 16)}, "size is 16; it must be an integer from 32"),
        ({"size": (40, 40)}, "three"),
        ({"size": 40.5}, "size is 40.5"),
        ({"seed": -1}, "seed is -1"),
        ({"lesions": 0}, "lesions is 0"),
        ({"spacing": (1, 0, 1)}, "spacing is 0; it must be a number from 0.2"),
        ({"missing": "T3"}, "missing must be one of T1, T1ce, T2, FLAIR; it is 'T3'"),
        ({"corrupt": "rust"}, "corrupt must be one of absent, .*; it is 'rust'"),
        ({"corrupt": "half", "cohort": "msd"}, "one file per modality"),
        ({"cohort": "brats1999"}, "cohort must be one of brats2018, .*; it is 'brats1999'"),
    ],
)
def test_a_wrong_argument_gives_one_clear_sentence_and_nothing_is_written(tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        make_patients(tmp_path, **wrong)
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_what_it_wrote_and_exits_with_2_on_a_wrong_argument(tmp_path, capsys):
    command_line(make_patients, "patients", [f"--output={tmp_path}", "--cases=1", "--size=36,40,32"])
    printed = capsys.readouterr().out.strip()
    assert printed == f"Synthetic patients BraTS2021_00000 to BraTS2021_00000 (1) written to '{tmp_path}' as brats2021."
    with pytest.raises(SystemExit) as stop:
        command_line(make_patients, "patients", [f"--output={tmp_path}", "--size=8"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.strip().startswith("error: size is 8;")
