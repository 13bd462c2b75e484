"""Read scans: checks, MONAI's transforms, scores and pictures all open files through this module."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple
from tumour.cohort import Cohort
from tumour.errors import InputError
from tumour.processes import cores
from tumour.scans.grid import Scan
from tumour.scans.nifti import read_nifti

WIDEST, NARROWEST = 1e12, 1e-12  # of the largest value: z-scores are made of squares, and float32 has no others
EXTENT = 1000  # mm, more than a head
FEWEST = 8  # voxels along each axis


def read_scan(path: str) -> Scan:
    """Read a NIfTI file, or a folder with a DICOM series. Trailing axes of length 1 after the third are dropped.

    Raises:
        InputError: the file is missing or damaged, or its values, affine or shape cannot be those of a scan.
    """
    if Path(path).is_dir():
        from tumour.scans.series import read_series  # ITK takes a second to import

        data, affine, patient = read_series(path)
        return usable(Scan(path, data, affine, patient=patient))
    return usable(Scan(path, *read_nifti(path)))


def usable(scan: Scan) -> Scan:
    """A scan without trailing axes of length 1.

    Raises:
        InputError: its values, affine or shape cannot be those of a scan.
    """
    path, data, affine = scan.path, scan.data, scan.affine
    low, high = (data.min(), data.max()) if data.size else (0, 0)  # NaN where any is
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"'{path}' holds values that are not finite; export it again")
    largest = max(float(high), -float(low))
    if largest > WIDEST or 0 < largest < NARROWEST:
        limits = f"its largest value is {largest:.2g}, not from {NARROWEST:g} to {WIDEST:g}"
        raise InputError(f"'{path}' cannot be used: {limits}; check its scl_slope, or export it again")
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:  # mm³
        raise InputError(f"'{path}' has no valid voxel size or position (its affine is singular); export it again")
    if data.ndim not in (3, 4) or min(data.shape[:3]) < FEWEST:
        raise InputError(f"'{path}' has the shape {data.shape}, which is not a volume; export the complete series")
    scan = replace(scan, data=data)
    if max(scan.shape * scan.spacing) > EXTENT:
        size = " x ".join(f"{mm:.0f}" for mm in scan.shape * scan.spacing)
        raise InputError(f"'{path}' extends over {size} mm, so its voxel size is wrong; export it again")
    return scan


def background_of(data: np.ndarray) -> float:
    """The value outside the head of an image (x, y, z): 0, or one that all corners and over 5% of the voxels have.

    Z-scored scans have a background below 0.
    """
    corners = data[np.ix_(*[(0, -1)] * 3)]
    value = corners.flat[0]
    return float(value) if value and (corners == value).all() and (data == value).mean() > 0.05 else 0.0


def read_classes(path: str, cohort: Cohort) -> Scan:
    """Read a label map; its data are positions in the cohort's classes, uint8 (x, y, z).

    Raises:
        InputError: as in `read_scan`, or the label map has four axes or values that the cohort does not define.
    """
    scan = read_scan(path)
    if scan.data.ndim != 3:
        raise InputError(f"'{path}' has the shape {scan.data.shape}, not three axes; export one label map")
    return replace(scan, data=cohort.to_classes(scan.data, f"'{path}'"))


class ScanReader(ImageReader):
    """`read_scan` for MONAI's LoadImaged: the scans of a case become channels on the grid of the first scan.

    MONAI's readers reject affines that differ by more than rounding errors; this one does not compare them, because the
    check of a case allows differences of up to a tenth of a voxel.
    """

    def verify_suffix(self, filename: Any) -> bool:
        return True

    def read(self, data: Any, **kwargs: Any) -> list[Scan]:
        with ThreadPoolExecutor(cores()) as pool:  # decompressing releases Python's global lock
            return list(pool.map(read_scan, map(str, ensure_tuple(data))))

    def get_data(self, img: Sequence[Scan]) -> tuple[np.ndarray, dict[str, Any]]:
        first = img[0]
        if len(img) == 1:
            data, channel = np.asarray(first.data, np.float32), float("nan") if first.data.ndim == 3 else -1
        else:
            data, channel = np.empty((len(img), *first.data.shape), np.float32), 0
            for each, scan in zip(data, img, strict=True):
                each[...] = scan.data  # one copy, into the memory order that MONAI wants
        return data, {
            MetaKeys.AFFINE: first.affine,
            MetaKeys.ORIGINAL_AFFINE: first.affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.array(first.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: channel,
        }
