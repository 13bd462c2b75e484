"""Pictures of a case show each structure at its place in the patient, in the colours of the legend."""

import gzip
import itertools
import json
import re
import struct
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion
from tumour.cases.case import Case
from tumour.errors import InputError
from tumour.pictures import volumes as volumes_module
from tumour.pictures.drawing import (
    COLOURS,
    ERRORS,
    MARKS,
    PLANES,
    change_map,
    colours_of,
    cut,
    errors,
    outlines,
    picture,
    rgb,
    sweep,
)
from tumour.pictures.volumes import Volumes, read_case

from tests.cohorts import COHORTS
from tools.report.slides import columns, mosaic, painted, slides
from tools.report.surfaces import mz3, surface, surfaces

SHAPE = (13, 17, 11)
# Machado, Oliveira & Fernandes (2009), severity 1, on linear RGB
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deuteranopia": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritanopia": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9309, 0.1476], [0.0047, 0.6914, 0.3039]],
}


def masks_of(label):
    """The regions, the largest first, as pictures draw them."""
    masks = COHORTS["brats2021"].masks(label)
    return {region: masks[region] for region in ("WT", "TC", "ET")}


@pytest.fixture
def volumes():
    """A head with a tumour, and a prediction that is two voxels too far to the front."""
    rng = np.random.default_rng(0)
    images = {name: rng.integers(8, 255, SHAPE, dtype=np.uint8) for name in ("T1", "FLAIR")}
    label = np.zeros(SHAPE, np.uint8)
    label[3:9, 4:11, 2:8], label[5:8, 5:9, 4:7], label[6, 6:8, 5] = 2, 3, 1
    masks = {kind: masks_of(np.roll(label, by, axis=1)) for kind, by in (("reference", 0), ("prediction", 2))}
    return Volumes("case", images, masks, np.diag([1.0, 1, 1, 1]))


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "PIR"])
def test_the_voxel_order_of_a_file_does_not_change_the_picture(axcodes, tmp_path):
    array = np.zeros(SHAPE, np.float32)
    array[2:10, 3:15, 2:9] = np.random.default_rng(0).integers(1, 99, (8, 12, 7))
    label = np.zeros(SHAPE, np.uint8)
    label[8:10, 12:14, 3:5] = 4  # right, front, foot
    to = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axcodes))
    paths = {}
    for name, data in {"t1": array, "flair": array * 2, "seg": label}.items():
        paths[name] = tmp_path / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(data, np.diag([1.0, 1, 2, 1])).as_reoriented(to), paths[name])
    case = Case("a", "a", (str(paths["t1"]), str(paths["flair"])), ("T1", "FLAIR"), str(paths["seg"]))
    read = read_case(case, None, COHORTS["brats2021"], ["T1", "FLAIR"])
    assert nib.aff2axcodes(read.affine) == ("R", "A", "S") and list(read.spacing) == [1, 1, 2]
    corner = np.argwhere(read.masks["reference"]["ET"]).min(axis=0)
    assert nib.affines.apply_affine(read.affine, corner).tolist() == [8, 12, 6]  # mm, as in the RAS file
    shown = cut(read.masks["reference"]["ET"], "axial", read.centre()[2])
    rows, columns_ = np.nonzero(shown)
    assert (
        rows.max() < shown.shape[0] / 2 and columns_.max() < shown.shape[1] / 2
    )  # front is at the top, right on the left


def test_a_change_map_shows_what_is_gone_behind_and_what_is_new_in_front(volumes):
    plain = replace(volumes, images={"FLAIR": np.full(SHAPE, 100, np.uint8)}, before=volumes.masks["reference"])
    page = np.asarray(change_map(plain), int)[:, : 2 * SHAPE[0]]  # the axial planes; front is at the top
    tall = len(page) // 3  # one row per region
    for region in range(3):
        rows = page[region * tall : (region + 1) * tall]
        green = np.nonzero(rows[..., 1] - np.maximum(rows[..., 0], rows[..., 2]) > 15)[0]  # gone
        pink = np.nonzero(rows[..., 0] - rows[..., 1] > 40)[0]  # new
        assert green.size and pink.size and pink.max() < green.min()


@pytest.mark.parametrize("plane", PLANES)
def test_the_letters_at_the_edges_name_the_sides_of_the_patient(plane, volumes, monkeypatch):
    ramps = dict(zip("RAS", np.indices(SHAPE), strict=True))  # increases towards right, front, head
    opposite = {"L": "R", "P": "A", "I": "S"}
    written = {}
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda pen, place, mark, *_, **__: written.update({mark: place}))
    drawn = picture(volumes, "T1", plane, 5, [], pixel=0.5)
    assert set(written) == set(MARKS[plane])
    for mark, (x, y) in written.items():
        ramp = cut(ramps[opposite.get(mark, mark)], plane, 5)
        across, down = round(x / drawn.width * (ramp.shape[1] - 1)), round(y / drawn.height * (ramp.shape[0] - 1))
        assert abs(ramp[down, across] - (ramp.min() if mark in opposite else ramp.max())) <= 1


@pytest.mark.parametrize("plane", PLANES)
def test_an_outline_runs_along_the_outermost_voxels_of_its_region(plane, volumes):
    index = volumes.centre()[PLANES[plane]]
    region = {"WT": volumes.masks["reference"]["WT"]}
    mask = cut(region["WT"], plane, index)
    layer = outlines(region, plane, index, (mask.shape[0] * 2, mask.shape[1] * 2), dotted=False)
    assert set(map(tuple, layer[layer[..., 3] > 0])) == {(*rgb(COLOURS["WT"]), 255)}
    voxels = layer[..., 3].reshape(mask.shape[0], 2, mask.shape[1], 2).any(axis=(1, 3))
    assert mask.any() and np.array_equal(voxels, mask & ~binary_erosion(mask))


def test_the_reference_is_dotted_and_the_prediction_is_not(volumes):
    grid = (SHAPE[1] * 2, SHAPE[0] * 2)
    solid, dotted = (outlines(volumes.masks["reference"], "axial", 5, grid, d)[..., 3] > 0 for d in (False, True))
    assert 0.3 < dotted.sum() / solid.sum() < 0.7 and not (dotted & ~solid).any()


def test_the_error_map_shows_what_was_missed_and_what_was_invented(volumes):
    masks = [volumes.masks[kind]["WT"] for kind in ("reference", "prediction")]
    layer = errors(*masks, "axial", 5, (SHAPE[1], SHAPE[0]))
    reference, prediction = (cut(mask, "axial", 5) for mask in masks)
    for name, wrong in (("missed", reference & ~prediction), ("invented", prediction & ~reference)):
        assert wrong.any() and np.array_equal((layer[..., :3] == rgb(ERRORS[name])).all(axis=-1), wrong)
    assert np.array_equal(layer[..., 3] > 0, reference != prediction)


def lab(colour, blindness):
    """CIE L*a*b* of a colour as seen with a kind of colour blindness."""
    share = np.array(rgb(colour)) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(BLINDNESS[blindness]) @ linear, 0, 1)
    xyz = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]) @ seen
    f = np.cbrt(xyz / [0.9505, 1, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("group", [COLOURS, ERRORS], ids=["regions", "errors"])
def test_colour_blind_readers_can_distinguish_the_colours(group):
    for first, second in itertools.combinations(group.values(), 2):
        assert min(np.linalg.norm(lab(first, kind) - lab(second, kind)) for kind in BLINDNESS) > 12


def test_a_region_has_the_same_colour_whatever_else_is_drawn():
    assert colours_of(["ET", "WT"]).items() <= colours_of(["TC", "WT", "ET"]).items() == COLOURS.items()
    assert colours_of(["RC", "SNFH", "WT"]) == colours_of(["WT", "SNFH", "RC"])
    assert len({*colours_of(["RC", "SNFH", *COLOURS]).values(), *ERRORS.values()}) == 7


def test_the_centre_is_the_slice_with_most_tumour():
    mask = np.zeros(SHAPE, bool)
    mask[4, 2:9, 3:9], mask[2:5, 6, 5:9] = True, True
    image = {"T1": np.ones(SHAPE, np.uint8)}
    assert Volumes("a", image, {"prediction": {"WT": mask}}).centre() == (4, 6, 5)
    assert Volumes("a", image).centre() == (6, 8, 5)


def test_a_large_volume_is_subsampled_and_its_voxels_stay_at_their_places(monkeypatch):
    monkeypatch.setattr(volumes_module, "LARGEST", 20)
    image = np.ones((40, 8, 8), np.float32)
    image[24:] = 5
    affine = np.array([[0.5, 0, 0, -7], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    small = volumes_module._compact("P1", {"T1": image}, {}, affine, None)
    assert small.shape == (20, 8, 8) and small.spacing.tolist() == [1, 1, 2]
    first = int(np.argmax(small.images["T1"][:, 0, 0] > 100))
    assert nib.affines.apply_affine(small.affine, [first, 0, 0]).tolist() == [24 * 0.5 - 7, 0, 0]


def test_the_uncertainty_is_that_of_the_least_certain_region():
    sure, half, quarter = np.array([1.0, 0.0, 1.0]), np.array([0.5, 0.0, 1.0]), np.array([1.0, 0.0, 0.25])
    assert volumes_module._uncertainty([sure, half, quarter]).tolist() == [255, 0, 207]  # 0.8113 bits are 207


def test_a_mosaic_contains_every_slice_from_foot_to_head(volumes):
    image = volumes.images["T1"]
    pixels, across = np.asarray(mosaic(cut(image, "axial", k) for k in range(SHAPE[2]))), columns(SHAPE[2])
    for z in range(SHAPE[2]):
        row, column = divmod(z, across)
        tile = pixels[row * SHAPE[1] : (row + 1) * SHAPE[1], column * SHAPE[0] : (column + 1) * SHAPE[0]]
        assert np.array_equal(tile[::-1, ::-1].T, image[..., z])


def test_the_page_and_the_viewer_get_the_colours_of_the_pictures(volumes):
    text = slides(volumes)
    assert not re.search(r"https?:", text)
    content = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert content["colours"] == COLOURS and list(content["colours"]) == list(volumes.masks["reference"])
    values = painted(volumes, "reference")
    for value, region in enumerate(content["colours"], 1):  # the viewer colours value n as the n-th region
        inner = [
            mask for other, mask in volumes.masks["reference"].items() if list(content["colours"]).index(other) >= value
        ]
        own = volumes.masks["reference"][region] & ~np.logical_or.reduce([np.zeros(SHAPE, bool), *inner])
        assert np.array_equal(values == value, own)
    assert set(content["layers"]) == {"reference", "prediction", "errors in WT", "errors in TC", "errors in ET"}


def test_an_animation_shows_the_reference_on_the_left_and_the_prediction_on_the_right(volumes, tmp_path):
    alone = {"reference": volumes.masks["reference"], "prediction": {"WT": np.zeros(SHAPE, bool)}}
    grey = {"FLAIR": np.broadcast_to(np.uint8(10 * np.arange(1, SHAPE[2] + 1)), SHAPE)}  # no two frames are equal
    sweep(Volumes("case", grey, alone, volumes.affine), tmp_path / "case.gif")
    with Image.open(tmp_path / "case.gif") as film:
        assert film.n_frames == SHAPE[2]
        film.seek(volumes.centre()[2])
        frame = np.asarray(film.convert("RGB")).astype(int)
    coloured = (frame.max(axis=-1) - frame.min(axis=-1) > 60).any(axis=0)
    assert coloured[: frame.shape[1] // 2].any() and not coloured[frame.shape[1] // 2 :].any()


def ball(spacing, radius=12.0):
    axes = np.indices((40, 40, 20)) * np.reshape(spacing, (3, 1, 1, 1))
    return (axes[0] - 20) ** 2 + (axes[1] - 18) ** 2 + (axes[2] - 19) ** 2 < radius**2


def test_a_surface_encloses_its_region_in_millimetres():
    spacing = np.array([1.0, 1.0, 2.0])
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -50, 10, 30
    corners, triangles = surface(ball(spacing), spacing, affine, edge=2.0)
    assert np.allclose((corners.max(axis=0) + corners.min(axis=0)) / 2, [-30, 28, 49], atol=0.6)
    a, b, c = (corners[triangles[:, i]] for i in range(3))
    volume = abs(np.einsum("ij,ij->i", a, np.cross(b, c)).sum()) / 6
    assert volume == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.08)  # smoothing removes a little


def test_an_empty_region_has_no_surface_and_a_small_lesion_has_one():
    small = np.zeros((20, 20, 20), bool)
    small[4:6, 4:6, 4:6] = True
    assert len(surface(small, np.ones(3), np.eye(4), edge=2.0)[1]) > 0
    empty = {"prediction": {"WT": small, "ET": np.zeros_like(small)}}
    files = surfaces(Volumes("a", {"T1": np.full(small.shape, 9, np.uint8)}, empty))
    assert set(files["prediction"]) == {"WT"} and set(files["head"]) == {"head"}


def test_an_mz3_file_contains_triangles_then_corners():
    corners, triangles = np.float32([[0, 0, 0], [1, 0, 0], [0, 2, 0.5]]), np.int32([[0, 1, 2]])
    data = gzip.decompress(mz3(corners, triangles))
    assert struct.unpack("<2s2xIII", data[:16]) == (b"MZ", 1, 3, 0)
    assert np.array_equal(np.frombuffer(data[16:28], "<i4"), [0, 1, 2])
    assert np.array_equal(np.frombuffer(data[28:], "<f4").reshape(3, 3), corners)


def test_a_label_map_on_another_grid_is_refused_with_one_clear_sentence(tmp_path):
    for name, shape in (("t1", SHAPE), ("p", (9, 9, 9))):
        nib.save(nib.Nifti1Image(np.ones(shape, np.uint8), np.eye(4)), tmp_path / f"{name}.nii.gz")
    case = Case("a", "a", (str(tmp_path / "t1.nii.gz"),), ("T1",))
    with pytest.raises(InputError, match=r"^a: '.*p\.nii\.gz' has the shape .* to one grid"):
        read_case(case, str(tmp_path / "p.nii.gz"), COHORTS["brats2021"], ["T1"])
