"""Read one NIfTI file completely; errors name the file, what is wrong with it and how to fix it."""

import gzip
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from tumour.errors import InputError

AGAIN = "download it again"


def read_nifti(path: str) -> tuple[NDArray[Any], NDArray[np.float64], tuple[str, ...]]:
    """Read all voxels of a file and verify its checksum if it is compressed.

    Returns:
        The voxels (x, y, z, ...), the affine (4, 4) in mm, and possible problems that do not prevent its use.

    Raises:
        InputError: the file is missing, incomplete or not a NIfTI file, or its values are not real numbers.
    """
    image = _image(path)
    data, affine = _values(path, image), np.asarray(image.affine, float)
    notes = []
    if not (image.header["sform_code"] or image.header["qform_code"]):
        codes = "its sform and qform codes are 0"
        notes.append(f"'{path}' has no orientation ({codes}); check that left and right are not swapped")
    stated = np.array(image.header.get_zooms()[:3], float)
    spacing = nib.affines.voxel_sizes(affine)
    if not np.allclose(spacing[: len(stated)], stated, rtol=0.01):
        both = f"{spacing.round(3).tolist()}, its pixdim {stated.round(3).tolist()}"
        notes.append(f"the affine of '{path}' has the spacing {both}; the affine is used")
    return data, affine, tuple(notes)


def read_header(path: str) -> Any:
    """The header of a NIfTI file."""
    return nib.load(path).header  # type: ignore[attr-defined]


def is_marked(path: Path, field: str, mark: bytes) -> bool:
    """Whether a field in the header of a file is a mark; False if there is no header."""
    try:
        return read_header(str(path))[field].tobytes().rstrip(b"\0") == mark
    except Exception:  # nibabel raises many kinds
        return False


def _bytes(path: str) -> bytes:
    """The content of a file, decompressed."""
    if not Path(path).is_file():
        raise InputError(f"'{path}' does not exist; restore it")
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}); check its permissions and its disk") from error
    if not raw:
        raise InputError(f"'{path}' is empty; {AGAIN}")
    if raw.startswith(b"version https://git-lfs"):
        raise InputError(f"'{path}' is a Git LFS pointer, not the scan; fetch it with 'git lfs pull'")
    if raw[:64].lstrip()[:1] == b"<":
        raise InputError(f"'{path}' is a web page, not a scan; log in and {AGAIN}")
    if not raw.strip(b"\0"):
        raise InputError(f"'{path}' contains only zero bytes, perhaps from an interrupted copy; {AGAIN}")
    if raw.startswith((b".git/annex", b"/annex/")):
        raise InputError(f"'{path}' is a git-annex pointer, not the scan; fetch it with 'git annex get'")
    compressed = raw.startswith(b"\x1f\x8b")
    if compressed != path.endswith(".gz") and (compressed or raw[344:347] == b"n+1" or raw[4:7] == b"n+2"):
        if compressed:
            raise InputError(f"'{path}' is compressed, but its name does not end in .gz; rename it to '{path}.gz'")
        right = path.removesuffix(".gz")
        raise InputError(f"'{path}' is not compressed, but its name ends in .gz; rename it to '{right}'")
    try:
        return gzip.decompress(raw) if compressed else raw
    except EOFError as error:
        raise InputError(f"'{path}' is incomplete or damaged (its compressed data end too early); {AGAIN}") from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"'{path}' is damaged (its content does not match its checksum); {AGAIN}") from error


def _image(path: str) -> Any:
    """A file as a nibabel image, with its voxels in memory but not decoded yet."""
    raw = _bytes(path)
    kind: Any = nib.Nifti2Image if raw[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nib.Nifti1Image  # type: ignore[attr-defined]
    try:
        return kind.from_bytes(raw)
    except Exception as error:
        raise InputError(f"'{path}' is damaged or not a NIfTI file ({type(error).__name__}); {AGAIN}") from error


def _values(path: str, image: Any) -> NDArray[Any]:
    """The voxel values of an image."""
    if image.get_data_dtype().kind not in "biuf":
        raise InputError(f"'{path}' has colours or complex numbers, not one grey value per voxel; export it again")
    try:
        return np.asanyarray(image.dataobj)
    except Exception as error:
        raise InputError(f"'{path}' is incomplete or damaged (fewer voxels than its header states); {AGAIN}") from error
