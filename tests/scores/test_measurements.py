"""Measurements: exact on shapes of known size, the same for every orientation, and right about known changes."""

import math
from dataclasses import replace
from weakref import ref

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tumour.cases.case import Case
from tumour.errors import InputError
from tumour.scans.grid import Scan
from tumour.scans.readers import read_classes
from tumour.scores import measurements
from tumour.scores.measurements import change, diameters, measure, rano, write_measurements

from tests.cohorts import COHORTS, glioma
from tests.masks import mask
from tools.measure import cases as measure_folder
from tools.measure import change as print_change

NECROTIC, OEDEMA, ENHANCING = 1, 2, 3  # classes
X, Y = np.meshgrid(np.arange(61) - 30, np.arange(55) - 27, indexing="ij")


def turned(a, b, degrees):
    """The coordinates of an ellipse with the semi-axes a and b (mm), as a mask."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return ((c * X + s * Y) / a) ** 2 + ((c * Y - s * X) / b) ** 2 <= 1


def brute_force(piece, spacing):
    """Longest diameter between any two corners of voxels, and the longest chord of the hull at a right angle to it.

    The chord is searched on 2,000 lines, on which the hull is sampled by all segments between two corners.
    """
    found = np.argwhere(piece)
    corners = np.unique(np.concatenate([found + end for end in ((0, 0), (0, 1), (1, 0), (1, 1))]), axis=0) * spacing
    steps = corners[:, None] - corners
    lengths = np.hypot(*np.moveaxis(steps, -1, 0))
    i, j = np.unravel_index(lengths.argmax(), lengths.shape)
    along = steps[i, j] / lengths[i, j]
    u, v = corners @ along, corners @ (-along[1], along[0])
    best = 0.0
    for line in np.linspace(u.min(), u.max(), 2000):
        left, right = np.flatnonzero(u <= line), np.flatnonzero(u >= line)
        width = u[right][None] - u[left][:, None]
        share = np.divide(line - u[left][:, None], width, out=np.zeros_like(width), where=width > 0)
        crossing = v[left][:, None] + share * (v[right][None] - v[left][:, None])
        best = max(best, crossing.max() - crossing.min())
    return lengths.max(), best


@pytest.mark.parametrize(
    ("size", "spacing", "expected"),
    [  # a rectangle a x b: the diagonal d, and the chord b d / a at a right angle to it
        ((30, 20), (1, 1), (math.hypot(30, 20), 20 * math.hypot(30, 20) / 30)),
        ((10, 40), (2.0, 0.5), (math.hypot(20, 20), math.hypot(20, 20))),
        ((1, 1), (0.5, 0.5), (math.hypot(0.5, 0.5), math.hypot(0.5, 0.5))),
        ((1, 12), (1, 1), (math.hypot(1, 12), math.hypot(1, 12) / 12)),
    ],
)
def test_the_diameters_of_a_rectangle_are_exact(size, spacing, expected):
    piece = np.zeros((40, 50), bool)
    piece[3 : 3 + size[0], 5 : 5 + size[1]] = True
    assert diameters(piece, spacing) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("degrees", [0, 17, 45, 90, 120])
@pytest.mark.parametrize(("a", "b"), [(25, 12), (20, 20), (14.5, 6)])
def test_the_diameters_of_an_ellipse_are_its_axes_to_a_voxel(a, b, degrees):
    found = diameters(turned(a, b, degrees), (1, 1))
    assert np.abs(np.subtract(found, (2 * a, 2 * b))).max() < math.sqrt(2)
    ring = turned(a, b, degrees) & ~turned(a - 2, b - 2, degrees)
    assert diameters(ring, (1, 1)) == pytest.approx(found)  # necrosis inside changes nothing


@pytest.mark.parametrize("seed", range(6))
def test_the_diameters_are_those_of_a_search_over_all_corners(seed):
    random = np.random.default_rng(seed)
    piece = np.zeros((16, 13), bool)
    for _ in range(3):
        x, y = random.integers(0, 9, 2)
        piece[x : x + random.integers(1, 7), y : y + random.integers(1, 5)] = True
    spacing = random.uniform(0.4, 2, 2)
    assert diameters(piece, spacing) == pytest.approx(brute_force(piece, spacing), abs=0.01)


def box(size, at=(2, 2, 2), value=ENHANCING, shape=(44, 40, 30), spacing=(1, 1, 1)):
    data = np.zeros(shape, np.uint8)
    data[tuple(slice(start, start + length) for start, length in zip(at, size, strict=True))] = value
    return Scan("x", data, np.diag([*spacing, 1.0]))


@pytest.mark.parametrize(
    ("size", "measurable"),
    [((10, 10, 2), 1), ((10, 10, 1), 0), ((30, 6, 4), 0)],  # 6 mm wide: the perpendicular diameter is 6.1 mm
)
def test_a_lesion_is_measurable_from_10_mm_in_both_directions_and_two_slices(size, measurable):
    assert rano(box(size).data > 0, (1, 1, 1))["measurable"] == measurable


def test_the_diameters_are_those_of_the_lesion_with_the_largest_product():
    label = mask([(0, 28), (0, 3), (0, 3)], [(3, 17), (8, 20), (6, 9)])
    found = rano(label, (1, 1, 1))
    assert found["longest_mm"] == pytest.approx(math.hypot(14, 12)) and found["measurable"] == 1


def test_no_enhancing_tumour_has_no_diameter_and_volumes_are_in_ml():
    row = measure(box((10, 10, 10), value=OEDEMA, spacing=(1, 1, 2)), glioma())
    assert row["WT_ml"] == pytest.approx(2) and row["WT_lesions"] == 1
    assert row["TC_ml"] == row["ET_ml"] == row["ET_longest_mm"] == row["ET_measurable"] == row["TC_lesions"] == 0


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAL", "PIR"])
def test_axial_slices_are_found_whatever_the_order_of_the_axes(axes):
    label = box((20, 12, 3), spacing=(1, 0.5, 3))
    turn = nib.orientations.ornt_transform(*map(nib.orientations.axcodes2ornt, ("RAS", axes)))
    image = nib.Nifti1Image(label.data, label.affine).as_reoriented(turn)
    found = measure(replace(label, data=np.asarray(image.dataobj), affine=image.affine), glioma())
    assert found == pytest.approx(measure(label, glioma()))
    assert found["ET_longest_mm"] == pytest.approx(math.hypot(20, 6))


def test_a_known_change_of_each_kind_is_counted_as_this_kind():
    before, after = np.zeros((2, 60, 12, 12), np.uint8)
    before[0:5, :10, :10] = OEDEMA  # 500 voxels become 700
    after[0:7, :10, :10] = OEDEMA
    before[10:20, :10, :10] = ENHANCING  # 1000 become 1300: stable
    after[8:21, :10, :10] = ENHANCING
    before[25:35, :10, :10] = NECROTIC  # 1000 become 300
    after[25:28, :10, :10] = NECROTIC
    before[37:42, :10, :10] = OEDEMA  # 500 become 200: stable
    after[37:39, :10, :10] = OEDEMA
    before[44:46, :2, :2] = OEDEMA  # resolved
    after[50:52, :3, :3] = ENHANCING  # new
    pair = [Scan(name, data, np.diag([1.0, 1, 2, 1])) for name, data in (("before", before), ("after", after))]
    rows = {row["region"]: row for row in change(*pair, glioma())}
    kinds = ("new", "grown", "stable", "shrunk", "resolved")
    assert [rows["WT"][kind] for kind in kinds] == [1, 1, 2, 1, 1]
    assert [rows["ET"][kind] for kind in kinds] == [1, 0, 1, 0, 0]
    assert rows["WT"]["before_ml"] == pytest.approx(2 * 3.008) and rows["WT"]["after_ml"] == pytest.approx(2 * 2.518)
    assert rows["ET"]["change_ml"] == pytest.approx(2 * 0.318) and rows["ET"]["change_percent"] == pytest.approx(31.8)


def test_time_points_on_different_grids_are_refused():
    with pytest.raises(InputError, match="must be on one grid: .* has the shape"):
        change(box((5, 5, 5)), box((5, 5, 5), shape=(40, 40, 30)), glioma())


def save(folder, case, size, shape=(44, 40, 30)):
    label = box(size, shape=shape)
    nib.save(nib.Nifti1Image(label.data, label.affine), folder / f"{case}.nii.gz")


def test_the_tables_have_a_row_per_case_and_the_changes_of_patients_with_several_time_points(tmp_path, caplog):
    gli = COHORTS["brats2023_gli"]
    names = [f"BraTS-GLI-0000{patient}-{time}" for patient, time in [(1, "000"), (1, "001"), (1, "002"), (2, "000")]]
    for number, name in enumerate(names):
        save(tmp_path, name, (20, 12 + number, 5))
    save(tmp_path, "BraTS-GLI-00002-001", (5, 5, 5), (40, 40, 30))
    names.append("BraTS-GLI-00002-001")
    write_measurements([Case(name, gli.patient_of(name), ("a",)) for name in reversed(names)], str(tmp_path), gli)
    rows = pd.read_csv(tmp_path / "measurements.csv")
    assert rows["case"].tolist() == names and rows["ET_ml"].tolist() == pytest.approx([1.2, 1.3, 1.4, 1.5, 0.125])
    changes = pd.read_csv(tmp_path / "changes.csv")
    assert changes[["before", "after"]].drop_duplicates().to_numpy().tolist() == [names[0:2], names[1:3]]
    assert changes["change_ml"].to_numpy() == pytest.approx([0.1] * 6)
    assert "from BraTS-GLI-00002-000 to BraTS-GLI-00002-001 is not measured, because" in caplog.text


def test_few_label_maps_are_in_memory_at_a_time_however_many_patients_have_several(tmp_path, monkeypatch):
    cohort, maps, together = COHORTS["brats2023_gli"], [], []
    names = [f"BraTS-GLI-0000{patient}-00{time}" for patient in range(6) for time in range(3)]

    def read(path, cohort):
        label = read_classes(path, cohort)
        maps.append(ref(label))
        together.append(sum(each() is not None for each in maps))
        return label

    for name in names:
        save(tmp_path, name, (5, 5, 5))
    monkeypatch.setattr(measurements, "read_classes", read)
    write_measurements([Case(name, cohort.patient_of(name), ("a",)) for name in names], str(tmp_path), cohort)
    assert len(together) == len(names) and max(together) <= 3


def test_the_commands_measure_a_folder_and_print_a_change(tmp_path):
    save(tmp_path, "A", (20, 10, 5))
    save(tmp_path, "B", (20, 20, 5))
    assert "2 cases measured" in measure_folder(str(tmp_path), "brats2023_gli", str(tmp_path / "out"))
    assert len(pd.read_csv(tmp_path / "out" / "measurements.csv")) == 2
    printed = print_change(str(tmp_path / "A.nii.gz"), str(tmp_path / "B.nii.gz"), "brats2023_gli")
    assert "100.0" in printed and "not for clinical use" in printed
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="No label map"):
        measure_folder(str(tmp_path / "empty"), "brats2021", str(tmp_path / "out"))
