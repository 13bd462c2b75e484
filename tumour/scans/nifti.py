"""Read one NIfTI file completely; an error says in one sentence what is wrong with which file and how to fix it."""

from __future__ import annotations

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
    """The voxels, the affine and the doubtful points of a file, which is read to its last byte and its checksum.

    Raises:
        InputError: it is missing, incomplete or no NIfTI file, or its values are no numbers.
    """
    image = _image(path)
    data, affine = _values(path, image), np.asarray(image.affine, float)
    notes = []
    if not (image.header["sform_code"] or image.header["qform_code"]):
        notes.append(f"'{path}' does not say how it lies (sform and qform codes are 0): left and right are a guess")
    stated = np.array(image.header.get_zooms()[:3], float)
    spacing = nib.affines.voxel_sizes(affine)
    if not np.allclose(spacing[: len(stated)], stated, rtol=0.01):
        both = (
            f"the affine of '{path}' has the spacing {spacing.round(3).tolist()}, its pixdim {stated.round(3).tolist()}"
        )
        notes.append(f"{both}; the affine is used")
    return data, affine, tuple(notes)


def read_header(path: str) -> Any:
    """The header of a file that was read before."""
    return nib.load(path).header  # type: ignore[attr-defined]


def _bytes(path: str) -> bytes:
    """The content of a file, decompressed."""
    if not Path(path).is_file():
        raise InputError(f"'{path}' is missing; restore it")
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}); check its permissions and its disk") from error
    if not raw:
        raise InputError(f"'{path}' is empty; {AGAIN}")
    if raw.startswith(b"version https://git-lfs"):
        raise InputError(f"'{path}' is a Git LFS pointer, not the scan; fetch it with 'git lfs pull'")
    if raw[:64].lstrip()[:1] == b"<":
        raise InputError(f"'{path}' is a web page, not a scan; {AGAIN}, logged in")
    if not raw.strip(b"\0"):
        raise InputError(f"'{path}' holds nothing but zeros, as an interrupted copy does; {AGAIN}")
    if raw.startswith((b".git/annex", b"/annex/")):
        raise InputError(f"'{path}' is a git-annex pointer, not the scan; fetch it with 'git annex get'")
    packed = raw.startswith(b"\x1f\x8b")
    if packed != path.endswith(".gz") and (packed or raw[344:347] == b"n+1" or raw[4:7] == b"n+2"):
        right = f"{path}.gz" if packed else path.removesuffix(".gz")
        raise InputError(f"'{path}' is {'' if packed else 'not '}compressed, unlike its name; rename it to '{right}'")
    try:
        return gzip.decompress(raw) if packed else raw
    except EOFError as error:
        raise InputError(f"'{path}' is cut short or damaged (its compressed data end early); {AGAIN}") from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"'{path}' is damaged (its content does not match its checksum); {AGAIN}") from error


def _image(path: str) -> Any:
    """A file as an image of nibabel, with its voxels in memory but not yet as numbers."""
    raw = _bytes(path)
    kind: Any = nib.Nifti2Image if raw[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nib.Nifti1Image  # type: ignore[attr-defined]
    try:
        return kind.from_bytes(raw)
    except Exception as error:
        raise InputError(f"'{path}' is damaged or no NIfTI file ({type(error).__name__}); {AGAIN}") from error


def _values(path: str, image: Any) -> NDArray[Any]:
    """The numbers of an image."""
    if image.get_data_dtype().kind not in "biuf":
        raise InputError(f"'{path}' holds colours or complex numbers, not one grey value per voxel; export it again")
    try:
        return np.asanyarray(image.dataobj)
    except Exception as error:
        raise InputError(f"'{path}' is cut short or damaged (it has fewer voxels than it says); {AGAIN}") from error
