"""Voxels on a grid, and the only rule for whether two grids are the same."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Self

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Scan:
    """The voxels of a file and their grid.

    Args:
        path: the file, or the folder of a DICOM series.
        data: voxel values (x, y, z) or (x, y, z, channel).
        affine: (4, 4), from voxel indices to world coordinates in mm.
        notes: possible problems of a usable file.
        patient: patient id of a DICOM series, else empty.
    """

    path: str
    data: NDArray[Any]
    affine: NDArray[np.float64]
    notes: tuple[str, ...] = ()
    patient: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape[:3]

    @property
    def volumes(self) -> NDArray[Any]:
        """The voxel values (x, y, z, channel); with one channel `data` lacks the last axis."""
        return self.data.reshape(*self.shape, -1)

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Edge lengths of a voxel, (3,), mm."""
        return nib.affines.voxel_sizes(self.affine)

    @property
    def orientation(self) -> str:
        return "".join(nib.aff2axcodes(self.affine))  # type: ignore[attr-defined]

    @property
    def has_affine(self) -> bool:
        """Whether its affine is more than what nibabel or ITK write for an array without one."""
        return not np.array_equal(np.abs(self.affine), np.eye(4))

    def without_data(self) -> Self:
        """The same grid, without its voxel values in memory."""
        return replace(self, data=np.broadcast_to(np.uint8(0), self.data.shape))

    def in_ras(self) -> Self:
        """The same voxels with axes swapped and flipped so that they come closest to right, anterior, superior."""
        turn = nib.io_orientation(self.affine)  # type: ignore[attr-defined]
        data = nib.apply_orientation(self.data, turn)  # type: ignore[attr-defined]
        affine = self.affine @ nib.orientations.inv_ornt_aff(turn, self.shape)
        return replace(self, data=data, affine=affine)


def digest(data: NDArray[Any]) -> str:
    """A hash of all voxel values of a scan. Processors support SHA-256, so it is the fastest of hashlib."""
    return hashlib.sha256(np.ascontiguousarray(data.T).data).hexdigest()[:24]


def difference(first: Scan, second: Scan) -> str | None:
    """How the grids of two files differ and how to fix it, or None if they differ by at most a tenth of a voxel."""
    fault = _difference(first, second)
    if fault and first.shape == second.shape and first.has_affine != second.has_affine:
        bare, full = (first, second) if second.has_affine else (second, first)
        copied = "nib.save(nib.Nifti1Image(bare.dataobj, full.affine), ...)"
        return (
            f"'{bare.path}' has lost its affine (it is the identity); if its voxels are in the order of those of "
            f"'{full.path}', copy that affine with nibabel: {copied}"
        )
    return fault


def _difference(first: Scan, second: Scan) -> str | None:
    for name, a, b in (
        ("shape", first.shape, second.shape),
        ("orientation", first.orientation, second.orientation),
        ("spacing", first.spacing.round(3).tolist(), second.spacing.round(3).tolist()),
    ):
        if a != b:
            return f"'{second.path}' has the {name} {b}, but '{first.path}' has {a}; resample them to one grid"
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * [*np.array(first.shape) - 1, 1]
    shift = np.linalg.norm(((first.affine - second.affine) @ corners.T)[:3], axis=0).max()  # mm
    if shift > 0.1 * first.spacing.min():
        moved = f"'{second.path}' is shifted or rotated by up to {shift:.1f} mm relative to '{first.path}'"
        return f"{moved}; resample them to one grid"
    return None


def pieces_of(mask: Mask) -> tuple[NDArray[np.int32], int]:
    """Number the pieces of a mask from 1, and count them; voxels that share a corner belong to one piece.

    connected-components-3d gives the same pieces, but would be another dependency.
    """
    return ndimage.label(mask, np.ones((3,) * mask.ndim))


def bounding_box(mask: Mask, margin: int = 0) -> tuple[slice, ...]:
    """The smallest box that contains a mask, enlarged by `margin` voxels within the grid.

    `scipy.ndimage.find_objects` finds the same box but takes several times as long.

    Returns:
        A slice per axis; for an empty mask they are empty.
    """
    box = []
    for axis, size in enumerate(mask.shape):
        where = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        first, last = (int(where[0]), int(where[-1])) if where.size else (0, -1)
        box.append(slice(max(first - margin, 0), min(last + 1 + margin, size)))
        mask = mask[(slice(None),) * axis + (slice(first, last + 1),)]  # a smaller mask to search along the next axis
    return tuple(box)
