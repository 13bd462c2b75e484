"""Read one NIfTI file completely; errors name the file, what is wrong with it and how to fix it."""

import math
import os
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from tumour.errors import InputError

AGAIN = "download it again"
MOST = 2**28  # voxels of a file, so that it takes at most 2 GB: 4 channels of 400³
SHEAR = 0.02  # cosine between two axes: 1 degree off the right angle
RATIO = 1032  # gzip makes files at most this many times smaller
START, HEADER = 2**16, 540  # bytes: of the beginning, which holds the longer of the two kinds of header
FEWER, MORE = "fewer voxels than its header states", "more data than its header states"


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
    with np.errstate(all="ignore"):  # a voxel size may be 0 or NaN, which `read_scan` refuses
        axes = affine[:3, :3] / spacing
    if np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR:
        notes.append(f"the axes of '{path}' are not at right angles, as after a gantry tilt; resample it")
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


def _image(path: str) -> Any:
    """A file as a nibabel image, with its voxels in memory but not decoded yet."""
    if not Path(path).is_file():
        raise InputError(f"'{path}' does not exist; restore it")
    try:
        with open(path, "rb") as file:
            start = file.read(START)
            compressed = _is_compressed(path, start)
            kind, stated = _stated(path, _inflated(start, HEADER, cut=True) if compressed else start)
            size = os.fstat(file.fileno()).st_size
            if stated > size * (RATIO if compressed else 1):
                raise InputError(f"'{path}' is incomplete or damaged ({FEWER}); {AGAIN}")
            if not compressed and size > stated:
                raise InputError(f"'{path}' is damaged ({MORE}); {AGAIN}")
            content = start + file.read()
        if compressed:
            content = _inflated(content, stated + 1)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}); check its permissions and its disk") from error
    except EOFError as error:
        raise InputError(f"'{path}' is incomplete or damaged (its compressed data end too early); {AGAIN}") from error
    except zlib.error as error:
        raise InputError(f"'{path}' is damaged (its content does not match its checksum); {AGAIN}") from error
    if len(content) != stated:
        raise InputError(f"'{path}' is damaged ({MORE if len(content) > stated else FEWER}); {AGAIN}")
    try:
        return kind.from_bytes(content)
    except Exception as error:
        raise InputError(f"'{path}' is damaged or not a NIfTI file ({type(error).__name__}); {AGAIN}") from error


def _is_compressed(path: str, start: bytes) -> bool:
    """Whether the first bytes of a file are those of gzip; what is not a scan at all is refused."""
    if not start:
        raise InputError(f"'{path}' is empty; {AGAIN}")
    if start.startswith(b"version https://git-lfs"):
        raise InputError(f"'{path}' is a Git LFS pointer, not the scan; fetch it with 'git lfs pull'")
    if start[:64].lstrip()[:1] == b"<":
        raise InputError(f"'{path}' is a web page, not a scan; log in and {AGAIN}")
    if not start[:HEADER].strip(b"\0"):
        raise InputError(
            f"'{path}' has only zero bytes where its header should be, perhaps from an interrupted copy; {AGAIN}"
        )
    if start.startswith((b".git/annex", b"/annex/")):
        raise InputError(f"'{path}' is a git-annex pointer, not the scan; fetch it with 'git annex get'")
    compressed = start.startswith(b"\x1f\x8b")
    if compressed != path.lower().endswith(".gz") and (compressed or start[344:347] == b"n+1" or start[4:7] == b"n+2"):
        if compressed:
            raise InputError(f"'{path}' is compressed, but its name does not end in .gz; rename it to '{path}.gz'")
        right = path[: -len(".gz")]
        raise InputError(f"'{path}' is not compressed, but its name ends in .gz; rename it to '{right}'")
    return compressed


def _stated(path: str, start: bytes) -> tuple[Any, int]:
    """The class of a file and its size in bytes according to its header.

    Raises:
        InputError: the header is damaged, or states more than `MOST` voxels.
    """
    kind: Any = nib.Nifti2Image if start[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nib.Nifti1Image  # type: ignore[attr-defined]
    try:
        header = kind.header_class(start[: kind.header_class.sizeof_hdr], check=False)
        shape, bytes_each = header.get_data_shape(), header.get_data_dtype().itemsize
        offset, bits = int(header.get_data_offset()), int(header["bitpix"])
        if offset < 0 or min(shape, default=0) < 1 or bits not in (0, 8 * bytes_each):
            raise ValueError("it contradicts itself")
    except Exception as error:
        raise InputError(f"'{path}' is damaged or not a NIfTI file ({type(error).__name__}); {AGAIN}") from error
    if math.prod(shape) > MOST:
        claim = f"states {' x '.join(map(str, shape))} voxels in its header, and a file may have {MOST:,}"
        raise InputError(f"'{path}' {claim}; resample it, or {AGAIN}")
    return kind, offset + math.prod(shape) * bytes_each


def _inflated(content: bytes, most: int, cut: bool = False) -> bytes:
    """Decompress gzip data.

    Args:
        content: one or several members of gzip.
        most: when to stop, in bytes.
        cut: `content` is only the beginning of the data.

    Raises:
        EOFError, zlib.error: the data are incomplete or damaged.
    """
    parts, size = [], 0
    while content and size < most:
        stream = zlib.decompressobj(16 + zlib.MAX_WBITS)  # of gzip: it verifies the checksum
        parts.append(stream.decompress(content, most - size))
        size += len(parts[-1])
        if not stream.eof and size < most and not cut:
            raise EOFError
        content = stream.unused_data.lstrip(b"\0")
    return b"".join(parts)


def _values(path: str, image: Any) -> NDArray[Any]:
    """The voxel values of an image."""
    if image.get_data_dtype().kind not in "biuf":
        raise InputError(f"'{path}' has colours or complex numbers, not one grey value per voxel; export it again")
    try:
        return np.asanyarray(image.dataobj)
    except Exception as error:
        raise InputError(f"'{path}' is incomplete or damaged ({FEWER}); {AGAIN}") from error
