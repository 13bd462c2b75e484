"""A picture of a registration, to be judged by eye."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from tumour.pictures.drawing import PLANES, cut, write_image
from tumour.scans.grid import Mask, Scan

PICTURE = "registration.png"  # in the folder of a prepared case
FIELD = 24  # voxels of a field of the checkerboard
OUTLINE = (86, 180, 233)


def picture(heads: Mapping[str, Scan], atlas: Scan, brain: Mask, reference: str, path: Path) -> None:
    """Write one row per image: a checkerboard of it and T1ce in three planes, with the outline of the brain.

    Edges of skull, ventricles and gyri that continue from field to field are registered well.

    Args:
        heads: heads on the atlas grid, by modality.
        atlas: head on the same grid.
        brain: mask on the same grid.
        reference: the modality that the others are compared with.
        path: PNG to write.
    """
    fixed = heads[reference].in_ras()
    mask = Scan("", brain, atlas.affine).in_ras().data
    centre = [int(index) for index in ndimage.center_of_mass(mask)]
    rows = []
    for image in [atlas, *(head for name, head in heads.items() if name != reference)]:
        other = image.in_ras()
        tiles = [tile(fixed.data, other.data, mask, plane, centre[axis]) for plane, axis in PLANES.items()]
        tallest = max(each.shape[0] for each in tiles)
        rows.append(np.hstack([np.pad(each, ((0, tallest - each.shape[0]), (0, 0), (0, 0))) for each in tiles]))
    write_image(Image.fromarray(np.vstack(rows)), path)


def tile(fixed: NDArray, moving: NDArray, brain: Mask, plane: str, index: int) -> NDArray[np.uint8]:
    """One slice of the checkerboard as RGB (rows, columns, 3)."""
    shown = [_grey(cut(volume, plane, index)) for volume in (fixed, moving)]
    rows, columns = np.indices(shown[0].shape)
    image = np.where((rows // FIELD + columns // FIELD) % 2 == 0, *shown)
    colours = np.repeat(image[..., None], 3, axis=-1)
    mask = cut(brain, plane, index)
    colours[mask & ~ndimage.binary_erosion(mask)] = OUTLINE
    return colours


def _grey(image: NDArray) -> NDArray[np.uint8]:
    low, high = np.percentile(image, [1, 99.5])
    return (np.clip((image - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)
