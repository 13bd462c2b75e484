"""Rigid registration of heads, as 4x4 matrices between coordinates in mm (RAS)."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import itk
import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from tumour.errors import CaseError
from tumour.scanner.extra import require
from tumour.scans.grid import Scan

Matrix = NDArray[np.float64]  # (4, 4)
LPS = np.diag([-1.0, -1, 1, 1])
COARSE, FINE = 8.0, 2.0  # mm
ANGLES = (-25, 0, 25)  # degrees about each axis, from which the coarse search starts
RADIUS = 80.0  # mm from the centre of a head
# mm that a coarse search may move a registered head of the same person, and of another one, whose shape differs
FARTHEST, FARTHEST_OTHER = 10.0, 15.0
AXES = ["left and right", "front and back", "head and feet"]
BINS = 32
ELASTIX = {
    "AutomaticTransformInitialization": "false",
    "MaximumNumberOfIterations": "150",
    "NumberOfSpatialSamples": "3000",
    "ImagePyramidSchedule": "2 2 2 1 1 1",
    "WriteResultImage": "false",
}


def register(fixed: Scan, moving: Scan) -> Matrix:
    """The rigid motion that brings a head onto another one, from mm to mm.

    Mutual information is maximised, first coarsely from the scanner's coordinates and from the centres of the heads at
    several angles, then by elastix (Klein et al., 2010).

    Args:
        fixed, moving: heads of any modality on any grids.

    Raises:
        InputError: elastix is missing.
        CaseError: elastix fails.
    """
    require("itk-elastix")
    fixed, moving = resampled(fixed, FINE), resampled(moving, FINE)
    start = _coarse(resampled(fixed, COARSE), resampled(moving, COARSE))
    return _fine(fixed, moved(moving, start)) @ start


def moved(scan: Scan, motion: Matrix) -> Scan:
    """A scan after a motion: the same voxels at other places."""
    return replace(scan, affine=motion @ scan.affine)


def resampled(scan: Scan, spacing: float) -> Scan:
    """A scan with averaged voxels of about the given size (mm); its voxels are never made smaller."""
    steps = np.maximum(np.round(spacing / scan.spacing), 1).astype(int)
    shape = np.array(scan.shape) // steps
    kept = scan.data[tuple(map(slice, shape * steps))]
    blocks = kept.reshape([size for pair in zip(shape, steps, strict=True) for size in pair])
    data = blocks.mean(axis=(1, 3, 5), dtype=np.float32)
    return replace(scan, data=data, affine=scan.affine @ nib.affines.from_matvec(np.diag(steps), (steps - 1) / 2))


def on_grid(scan: Scan, grid: Scan, order: int = 1) -> NDArray[np.float32]:
    """The voxels of a scan on another grid (x, y, z), by splines of the given order; 0 outside."""
    to_index = np.linalg.inv(scan.affine) @ grid.affine
    data = scan.data.astype(np.float32)
    return ndimage.affine_transform(data, to_index[:3, :3], to_index[:3, 3], grid.shape, order=order)


def seen(scan: Scan, grid: Scan) -> NDArray[np.bool_]:
    """The voxels of another grid (x, y, z) that are within the field of view of a scan."""
    return on_grid(replace(scan, data=np.ones(scan.shape, np.uint8)), grid, 0) > 0


def head(scan: Scan) -> NDArray[np.bool_]:
    """The voxels of the head (x, y, z): those above Otsu's threshold (1979) of the logarithm, and what they enclose."""
    data = np.log1p(np.maximum(scan.data.astype(np.float32), 0))
    return ndimage.binary_fill_holes(ndimage.binary_opening(data > threshold_otsu(data)))


def centre_of(scan: Scan) -> NDArray[np.float64]:
    """The centre of a head (3,), mm."""
    return nib.affines.apply_affine(scan.affine, ndimage.center_of_mass(head(scan)))


def better_place(fixed: Scan, moving: Scan, same: bool) -> str | None:
    """How a head would have to move to explain the fixed one better; None if it is in its place.

    Args:
        fixed, moving: heads in the pose of an atlas, with right, anterior and superior along the axes.
        same: whether both are of one person. Only then is left and right swapped too, and little motion allowed.
    """
    fixed, moving = resampled(fixed, COARSE), resampled(moving, COARSE)
    centre = centre_of(fixed)
    score = _score(fixed, moving)
    best = _climb(score, np.eye(4), centre)
    if (mm := distance(best, centre)) > (FARTHEST if same else FARTHEST_OTHER):
        return f"moved by {mm:.0f} mm"
    found = score(best)
    for signs in product((1, -1), repeat=3):
        swapped = [axis for axis, sign in zip(AXES, signs, strict=True) if sign < 0]
        if not swapped or (swapped == AXES[:1] and not same):
            continue
        flip = nib.affines.from_matvec(np.diag(signs), centre - np.array(signs) * centre)
        if swapped == AXES[:1]:  # heads are nearly symmetric, so it must be placed well
            flip = _climb(score, flip, centre)
        if score(flip) >= found:
            return f"with {' and with '.join(swapped)} swapped"
    return None


def distance(motion: Matrix, centre: NDArray[Any]) -> float:
    """How far a motion brings the places of a head with this centre, at most, mm."""
    places = centre + RADIUS * np.vstack([np.eye(3), -np.eye(3)])
    return float(np.linalg.norm(nib.affines.apply_affine(motion, places) - places, axis=1).max())


def information(fixed: NDArray[Any], moving: NDArray[Any]) -> float:
    """Normalised mutual information of two images of one shape (Studholme et al., 1999), from 1 to 2."""
    counts = np.bincount((_binned(fixed) * BINS + _binned(moving)).ravel(), minlength=BINS**2).reshape(BINS, BINS)

    def entropy(counts: NDArray[Any]) -> float:
        share = counts[counts > 0] / fixed.size
        return float(-(share * np.log(share)).sum())

    return (entropy(counts.sum(0)) + entropy(counts.sum(1))) / max(entropy(counts), 1e-9)


def _binned(image: NDArray[Any]) -> NDArray[np.intp]:
    low, high = float(image.min()), float(image.max())
    return ((image - low) * ((BINS - 0.001) / max(high - low, 1e-9))).astype(np.intp)


def _score(fixed: Scan, moving: Scan) -> Callable[[Matrix], float]:
    """How well a motion of the moving head explains the fixed one."""
    return lambda motion: information(fixed.data, on_grid(moved(moving, motion), fixed))


def _coarse(fixed: Scan, moving: Scan) -> Matrix:
    """The best of several starts, each improved by steps along and about the axes."""
    centre = centre_of(fixed)
    score = _score(fixed, moving)
    starts = sorted(_starts(moving, centre), key=score, reverse=True)[:3]
    return max((_climb(score, start, centre) for start in starts), key=score)


def _starts(moving: Scan, centre: NDArray[Any]) -> Iterator[Matrix]:
    yield np.eye(4)
    there = centre_of(moving)
    for angles in product(ANGLES, repeat=3):
        yield _about(np.radians(angles), centre) @ nib.affines.from_matvec(np.eye(3), centre - there)


def _about(angles: NDArray[Any], centre: NDArray[Any]) -> Matrix:
    """The rotation by angles (radians) about x, y and z through a point."""
    turn = nib.eulerangles.euler2mat(*angles[::-1])
    return nib.affines.from_matvec(turn, centre - turn @ centre)


def _climb(score: Callable[[Matrix], float], motion: Matrix, centre: NDArray[Any]) -> Matrix:
    """Improve a motion by single steps, which become smaller, until none improves the score."""
    best = score(motion)
    for mm in (12.0, 6.0, 3.0):
        steps = [nib.affines.from_matvec(np.eye(3), sign * mm * axis) for axis in np.eye(3) for sign in (-1, 1)]
        steps += [_about(sign * np.radians(mm) * axis, centre) for axis in np.eye(3) for sign in (-1, 1)]
        improved = True
        while improved:
            improved = False
            for step in steps:
                value = score(step @ motion)
                if value > best:
                    best, motion, improved = value, step @ motion, True
    return motion


def _fine(fixed: Scan, moving: Scan) -> Matrix:
    """The motion that elastix finds from the given positions on."""
    settings = itk.ParameterObject.New()
    rigid = settings.GetDefaultParameterMap("rigid", 2)
    for name, value in ELASTIX.items():
        rigid[name] = value.split()
    settings.AddParameterMap(rigid)
    try:
        _, found = itk.elastix_registration_method(
            _image(fixed), _image(moving), parameter_object=settings, log_to_console=False
        )
    except RuntimeError as error:
        raise CaseError(f"elastix cannot register '{moving.path}'; check that it is a scan of a head") from error
    last = found.GetParameterMap(found.GetNumberOfParameterMaps() - 1)
    turn = itk.Euler3DTransform[itk.D].New()
    turn.SetCenter([float(mm) for mm in last["CenterOfRotationPoint"]])
    turn.SetParameters(itk.OptimizerParameters[itk.D]([float(value) for value in last["TransformParameters"]]))
    matrix, offset = np.asarray(turn.GetMatrix()), np.asarray(turn.GetOffset())
    return LPS @ np.linalg.inv(nib.affines.from_matvec(matrix, offset)) @ LPS


def _image(scan: Scan) -> Any:
    """A scan as an ITK image."""
    lps, spacing = LPS @ scan.affine, scan.spacing
    image = itk.image_from_array(np.ascontiguousarray(scan.data.T, np.float32))
    image.SetSpacing([float(mm) for mm in spacing])
    image.SetOrigin([float(mm) for mm in lps[:3, 3]])
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
    return image
