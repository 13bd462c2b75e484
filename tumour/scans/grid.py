"""Voxels on a grid, and the one rule for two grids being the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Scan:
    """The voxels of a file and the grid that they lie on.

    Args:
        path: the file, or the folder of a DICOM series.
        data: its values (x, y, z) or (x, y, z, channel).
        affine: from voxel to world, mm (4, 4).
        notes: what is doubtful but can be used.
        patient: the patient's id in DICOM, else empty.
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
    def spacing(self) -> NDArray[np.float64]:
        """Edge lengths of a voxel, mm (3)."""
        return nib.affines.voxel_sizes(self.affine)

    @property
    def orientation(self) -> str:
        return "".join(nib.aff2axcodes(self.affine))  # type: ignore[attr-defined]

    @property
    def has_affine(self) -> bool:
        """Whether its affine is more than what nibabel or ITK write for an array without one."""
        return not np.array_equal(np.abs(self.affine), np.eye(4))

    def without_data(self) -> Scan:
        """The same grid, without its values in memory."""
        return replace(self, data=np.broadcast_to(np.uint8(0), self.data.shape))

    def in_ras(self) -> Scan:
        """The same voxels in the order right, anterior, superior, as far as whole axes can be swapped or flipped."""
        turn = nib.io_orientation(self.affine)  # type: ignore[attr-defined]
        data = nib.apply_orientation(self.data, turn)  # type: ignore[attr-defined]
        affine = self.affine @ nib.orientations.inv_ornt_aff(turn, self.shape)
        return replace(self, data=data, affine=affine)


def digest(data: NDArray[Any]) -> str:
    """A hash of all values of a scan; processors have SHA-256 built in."""
    return hashlib.sha256(np.ascontiguousarray(data.T).data).hexdigest()[:24]


def difference(one: Scan, other: Scan) -> str | None:
    """How the grids of two files differ and how to fix it, or None. A tenth of a voxel is no difference."""
    fault = _difference(one, other)
    if fault and one.shape == other.shape and one.has_affine != other.has_affine:
        bare, full = (one, other) if other.has_affine else (other, one)
        copied = "nib.save(nib.Nifti1Image(bare.dataobj, full.affine), ...)"
        return (
            f"'{bare.path}' has lost its affine (it is the identity); if its voxels are in the order of those of "
            f"'{full.path}', copy that affine with nibabel: {copied}"
        )
    return fault


def _difference(one: Scan, other: Scan) -> str | None:
    for what, a, b in (
        ("shape", one.shape, other.shape),
        ("orientation", one.orientation, other.orientation),
        ("spacing", one.spacing.round(3).tolist(), other.spacing.round(3).tolist()),
    ):
        if a != b:
            return f"'{other.path}' has the {what} {b}, '{one.path}' {a}; resample them to one grid"
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * [*np.array(one.shape) - 1, 1]
    moved = np.linalg.norm(((one.affine - other.affine) @ corners.T)[:3], axis=0).max()
    if moved > 0.1 * one.spacing.min():
        return f"'{other.path}' lies up to {moved:.1f} mm off '{one.path}' (another affine); resample them to one grid"
    return None


def bounding_box(mask: Mask, margin: int = 0) -> tuple[slice, ...]:
    """The smallest box that holds a mask, widened by `margin` voxels within the grid; empty slices for an empty mask.

    `scipy.ndimage.find_objects` finds the same box in several times the time.
    """
    box = []
    for axis, size in enumerate(mask.shape):
        where = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        first, last = (int(where[0]), int(where[-1])) if where.size else (0, -1)
        box.append(slice(max(first - margin, 0), min(last + 1 + margin, size)))
        mask = mask[(slice(None),) * axis + (slice(first, last + 1),)]  # less to search for the next axis
    return tuple(box)
