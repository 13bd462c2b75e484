"""One NIfTI file, read whole; what is wrong with it is told in a sentence that names the file and the mend."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from tumour.errors import InputError
from tumour.scans.series import read_series

AGAIN = "download it again"


@dataclass(frozen=True)
class Scan:
    """The voxels of a file and the grid that they lie on.

    Args:
        path: the file.
        data: its values (x, y, z) or (x, y, z, channel).
        affine: from voxel to world, mm (4, 4).
        notes: what is doubtful but can be used.
    """

    path: str
    data: NDArray
    affine: NDArray
    notes: list[str] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape[:3]

    @property
    def spacing(self) -> NDArray:
        """Edges of a voxel, mm (3)."""
        return nib.affines.voxel_sizes(self.affine)

    @property
    def orientation(self) -> str:
        return "".join(nib.aff2axcodes(self.affine))  # type: ignore[attr-defined]

    def emptied(self) -> Scan:
        """The same grid, without its values in memory."""
        return replace(self, data=np.broadcast_to(np.uint8(0), self.data.shape))

    def digest(self, data: NDArray) -> str:
        """A hash of some of its values that two scans do not share by chance; processors have SHA-256 built in."""
        return hashlib.sha256(np.ascontiguousarray(data.T).data).hexdigest()[:24]


def read_scan(path: str) -> Scan:
    """Read a file to its last byte, so that its checksum is compared too, or a folder with a DICOM series.

    Raises:
        InputError: it is not there, not whole, no NIfTI file, or its values or its grid can be no scan's.
    """
    notes = []
    if Path(path).is_dir():
        data, affine = read_series(path)
    else:
        image = _image(path)
        data, affine = _values(path, image), np.asarray(image.affine, float)
        if not (image.header["sform_code"] or image.header["qform_code"]):
            notes.append(f"'{path}' does not say how it lies (sform and qform codes are 0): left and right are a guess")
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:  # mm3
        raise InputError(f"'{path}' says no size or place of its voxels (its affine is singular); export it again")
    if data.ndim not in (3, 4) or min(data.shape[:3]) < 8:
        raise InputError(f"'{path}' has the shape {data.shape}, not that of a volume; export the whole series")
    return Scan(path, data, affine, notes)


def apart(one: Scan, other: Scan) -> str | None:
    """How the grids of two files differ, in a sentence with the mend, or None; a tenth of a voxel is no difference."""
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


def file_fault(path: str) -> str | None:
    """What is wrong with a NIfTI file and how to mend it, or None."""
    try:
        read_scan(path)
    except InputError as error:
        return str(error)
    return None


def _bytes(path: str) -> bytes:
    """What a file holds, unpacked."""
    if not Path(path).is_file():
        raise InputError(f"'{path}' is not there; restore it")
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}); mend its rights or its disk") from error
    if not raw:
        raise InputError(f"'{path}' is empty; {AGAIN}")
    if raw.startswith(b"version https://git-lfs"):
        raise InputError(f"'{path}' is a Git LFS pointer, not the scan; fetch it with 'git lfs pull'")
    if raw[:64].lstrip()[:1] == b"<":
        raise InputError(f"'{path}' is a web page, not a scan; {AGAIN}, logged in")
    if not raw.strip(b"\0"):
        raise InputError(f"'{path}' holds nothing but zeros, as a broken-off copy does; {AGAIN}")
    if raw.startswith((b".git/annex", b"/annex/")):
        raise InputError(f"'{path}' is a git-annex pointer, not the scan; fetch it with 'git annex get'")
    packed = raw.startswith(b"\x1f\x8b")
    if packed != path.endswith(".gz") and (packed or raw[344:347] == b"n+1" or raw[4:7] == b"n+2"):
        right = f"{path}.gz" if packed else path.removesuffix(".gz")
        raise InputError(f"'{path}' is {'' if packed else 'not '}compressed, unlike its name; rename it to '{right}'")
    try:
        return gzip.decompress(raw) if packed else raw
    except EOFError as error:
        raise InputError(f"'{path}' is cut short or damaged (its compressed data break off); {AGAIN}") from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"'{path}' is damaged (its content does not fit its checksum); {AGAIN}") from error


def _image(path: str) -> Any:
    """A file as an image of nibabel, with its voxels in memory but not yet as numbers."""
    raw = _bytes(path)
    kind: Any = nib.Nifti2Image if raw[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nib.Nifti1Image  # type: ignore[attr-defined]
    try:
        return kind.from_bytes(raw)
    except Exception as error:
        raise InputError(f"'{path}' is damaged or no NIfTI file ({type(error).__name__}); {AGAIN}") from error


def _values(path: str, image: Any) -> NDArray:
    """The numbers of an image; they are finite and not all the same."""
    if image.get_data_dtype().kind not in "biuf":
        raise InputError(f"'{path}' holds colours or complex numbers, not one grey value a voxel; export it again")
    try:
        data = np.asanyarray(image.dataobj)
    except Exception as error:
        raise InputError(f"'{path}' is cut short or damaged (it has fewer voxels than it says); {AGAIN}") from error
    low, high = (data.min(), data.max()) if data.size else (0, 0)  # NaN where any is
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"'{path}' holds values that are not finite; export it again")
    return data
