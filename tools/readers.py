"""Read the scans of a case for MONAI's `LoadImaged`."""

from __future__ import annotations

from typing import Any

import nibabel as nib
from monai.data import NibabelReader
from monai.utils import ensure_tuple


class OneGridReader(NibabelReader):
    """Read the modalities of a case on the grid of the first.

    MONAI refuses affines that differ by more than rounding. The check of a case lets them differ by a tenth of a voxel,
    as header fields of low precision do, so here the first of them counts for all. Axes of length 1 after the third go.
    """

    def __init__(self) -> None:
        super().__init__(squeeze_non_spatial_dims=True)

    def get_data(self, img: Any) -> tuple[Any, dict]:
        first, *others = ensure_tuple(img)
        alike = [nib.Nifti1Image(other.dataobj, first.affine, first.header) for other in others]  # type: ignore[attr-defined]
        return super().get_data([first, *alike])
