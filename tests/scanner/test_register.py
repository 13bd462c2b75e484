"""Registration finds a known motion, and a head in a wrong place is found out."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from tumour.errors import InputError
from tumour.scanner import register as registration
from tumour.scanner.register import better_place, information, moved, on_grid, register, resampled
from tumour.scanner.register import head as head_mask
from tumour.scans.grid import Scan

from tests.scanner.heads import AFFINE, SHAPE, brain, distance, head, motion, needs

OBLIQUE = nib.affines.from_matvec(motion((4, -7, 3))[:3, :3] @ np.diag([-1.5, -1.5, 4]), (115, 130, -70))


@pytest.mark.parametrize("spacing", [2.0, 4.0, 8.0])
def test_averaged_voxels_stay_where_they_were(spacing):
    ramp = Scan("x", np.indices((40, 36, 32))[1].astype(float), OBLIQUE)
    coarse = resampled(ramp, spacing)
    assert np.all(coarse.spacing <= np.maximum(spacing * 1.34, ramp.spacing + 1e-6))
    inner = np.array(coarse.shape) // 2
    place = nib.affines.apply_affine(np.linalg.inv(ramp.affine) @ coarse.affine, inner)
    assert coarse.data[tuple(inner)] == pytest.approx(place[1], abs=1e-4)


def test_a_scan_on_another_grid_keeps_its_values_at_the_same_places():
    ramp = Scan("x", np.indices((40, 36, 32))[2].astype(float), OBLIQUE)
    grid = Scan("y", np.zeros((20, 18, 16)), OBLIQUE @ np.diag([1, 1, 0.5, 1]))
    assert np.allclose(on_grid(ramp, grid)[5, 5], np.arange(16) / 2)


def test_information_is_largest_for_images_that_determine_each_other():
    image = np.random.default_rng(0).normal(size=(40, 40, 40))
    assert information(image, 3 * image + 5) == pytest.approx(2) and information(image, -image) > 1.8
    assert information(image, image[::-1]) < 1.1


def test_a_head_is_what_its_skull_encloses():
    found = head_mask(head())
    assert found[brain(head())].mean() > 0.99 and 0.2 < found.mean() < 0.6


OTHER = {"skull": 150, "brain": 260, "fluid": 400, "spot": 120}  # tissue of another modality


def test_a_head_in_its_place_has_no_better_one():
    moving = head(OBLIQUE, (150, 150, 40), **OTHER)
    for off in (motion(), motion((1, -1, 0.5), (1, 0.5, -1))):
        assert better_place(head(), moved(moving, off), same=True) is None


@pytest.mark.parametrize("wrong", [motion(shift=20 * axis) for axis in np.vstack([np.eye(3), [[0.6, -0.64, 0.48]]])])
def test_a_head_that_is_20_mm_off_has_a_better_place(wrong):
    assert better_place(head(), moved(head(OBLIQUE, (150, 150, 40), **OTHER), wrong), same=True)


@pytest.mark.parametrize("wrong", [motion(shift=12 * axis) for axis in np.eye(3)] + [motion((0, 0, 10))])
def test_a_scan_of_the_same_person_that_is_12_mm_or_10_degrees_off_has_a_better_place(wrong):
    assert better_place(head(), moved(head(OBLIQUE, (150, 150, 40), **OTHER), wrong), same=True)


@pytest.mark.parametrize("degrees", [(25, 0, 0), (0, -25, 0), (0, 0, 25), (16, -15, 12)])
def test_a_head_that_is_turned_by_25_degrees_has_a_better_place(degrees):
    moving = moved(head(OBLIQUE, (150, 150, 40), **OTHER), motion(degrees))
    assert better_place(head(), moving, same=True)


@pytest.mark.parametrize("signs", [(-1, 1, 1), (-1, -1, 1)])  # as voxels lie if a header is wrong
def test_a_head_whose_sides_are_swapped_has_a_better_place(signs):
    moving = moved(head(OBLIQUE, (150, 150, 40), **OTHER), np.diag([*signs, 1.0]))
    assert better_place(head(), moving, same=True)


def test_a_head_outside_the_other_has_a_better_place():
    assert better_place(head(), moved(head(), motion(shift=(900, 0, 0))), same=True)


def test_the_coarse_search_comes_close_from_another_pose():
    truth = motion((15, -20, 10), (30, -20, 10))
    fixed, moving = head(), head(OBLIQUE, (150, 150, 40), motion=truth)
    found = registration._coarse(resampled(fixed, 8.0), resampled(moving, 8.0))
    assert distance(found @ truth, np.eye(4)) < 15  # the capture range of the fine one


@needs("itk-elastix")
@pytest.mark.parametrize(("degrees", "shift"), [((0, 0, 0), (3, -2, 4)), ((-18, 12, 20), (-20, 25, 15))])
def test_the_motion_of_another_modality_is_found(degrees, shift):
    truth = motion(degrees, shift)
    moving = head(OBLIQUE, (150, 150, 40), motion=truth, skull=150, brain=260, fluid=400, spot=120)
    assert distance(register(head(), moving) @ truth, np.eye(4)) < 2


def test_without_elastix_the_sentence_says_how_to_get_it(monkeypatch):
    def missing(package):
        raise InputError(f"{package} is not installed")

    monkeypatch.setattr(registration, "require", missing)
    with pytest.raises(InputError, match="itk-elastix is not installed"):
        register(replace(head(), data=np.zeros(SHAPE), affine=AFFINE), head())
