"""Read the scans of a case for MONAI's `LoadImaged`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import NibabelReader
from monai.utils import MetaKeys, ensure_tuple
from numpy.typing import NDArray

from tumour.processes import cores


class OneGridReader(NibabelReader):
    """Read the modalities of a case on the grid of the first.

    MONAI refuses affines that differ by more than rounding. The check of a case lets them differ by a tenth of a voxel,
    as header fields of low precision do, so here the first of them counts for all. Axes of length 1 after the third go.
    """

    def __init__(self) -> None:
        super().__init__(squeeze_non_spatial_dims=True)

    def get_data(self, img: Any) -> tuple[Any, dict]:
        images = ensure_tuple(img)
        if len(images) == 1:
            return super().get_data(img)
        volumes = np.empty((len(images), *images[0].shape[:3]), np.float32)

        def unpack(volume: NDArray, image: Any) -> None:  # zlib lets other threads run
            volume[...] = np.asanyarray(image.dataobj).reshape(volume.shape)

        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(unpack, volumes, images))
        _, meta = super().get_data(nib.Nifti1Image(volumes[0], images[0].affine, images[0].header))  # type: ignore[attr-defined]
        return volumes, meta | {MetaKeys.ORIGINAL_CHANNEL_DIM: 0}
