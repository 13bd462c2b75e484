"""The file of one case, which the report loads when the case is opened: all slices, and the data of the viewer.

A mosaic holds every axial slice of a volume as a tile, from foot to head, row by row: a slider only moves a window
over it, and the viewer builds its volume from the same bytes.
"""

import base64
import gzip
import io
import json
import math
from collections.abc import Iterable
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.util import montage
from tumour.pictures.drawing import colours_of, cut, doubts, errors, grid_of, outlines, planes
from tumour.pictures.volumes import Volumes

from tools.report.surfaces import surfaces

QUALITY = 25  # of WebP: smooths noise, keeps tumour borders; 20 patients of BraTS take less than 30 MB
METHOD = 2  # of WebP: 6 takes four times as long for files that are 11% smaller, at the same error
ENLARGED = 2  # pixels of an outline per voxel


def uri(content: bytes, kind: str = "application/octet-stream") -> str:
    """Bytes as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def webp(image: Image.Image, **options: Any) -> str:
    """A picture as a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", method=METHOD, **options)
    return uri(buffer.getvalue(), "image/webp")


def mosaic(tiles: Iterable[NDArray[np.uint8]]) -> Image.Image:
    """Tiles (rows, columns[, 4]) of one size as one picture, row by row."""
    stack = np.stack(list(tiles))
    across = columns(len(stack))
    grid, colour = (-(-len(stack) // across), across), stack.ndim == 4
    fill = [0] * stack.shape[3] if colour else 0
    return Image.fromarray(montage(stack, fill=fill, grid_shape=grid, channel_axis=3 if colour else None))


def columns(slices: int) -> int:
    """Number of tiles in a row of a mosaic."""
    return math.ceil(math.sqrt(slices))


def layers(volumes: Volumes) -> dict[str, Image.Image]:
    """Mosaics to draw on the scans: outlines of each label map, errors by region if there are two, the uncertainty."""
    slices = range(volumes.shape[2])
    fine = grid_of(volumes, "axial", float(min(volumes.spacing)) / ENLARGED)
    coarse = grid_of(volumes, "axial", float(min(volumes.spacing)))
    drawn = {
        kind: mosaic(outlines(masks, "axial", k, fine, dotted=kind == "reference") for k in slices)
        for kind, masks in volumes.masks.items()
    }
    if len(volumes.masks) == 2:
        for region, reference in volumes.masks["reference"].items():
            prediction = volumes.masks["prediction"][region]
            drawn[f"errors in {region}"] = mosaic(errors(reference, prediction, "axial", k, coarse) for k in slices)
    if volumes.uncertainty is not None:
        drawn["uncertainty"] = mosaic(doubts(volumes, k) for k in slices)
    return drawn


def painted(volumes: Volumes, kind: str) -> NDArray[np.uint8]:
    """A label map for the viewer: the largest region is 1, the next is 2 and drawn on top of it, and so on."""
    label = np.zeros(volumes.shape, np.uint8)
    for value, mask in enumerate(volumes.masks[kind].values(), 1):
        label[mask] = value
    return label


def nifti(array: NDArray[np.uint8], affine: NDArray) -> bytes:
    """The bytes of a NIfTI file."""
    return nib.Nifti1Image(array, affine).to_bytes()  # type: ignore[attr-defined]


def volume(array: NDArray[np.uint8], affine: NDArray) -> str:
    """A compressed NIfTI file as a data URI."""
    return uri(gzip.compress(nifti(array, affine), mtime=0))


def slides(volumes: Volumes) -> str:
    """The script that passes a case to the page."""
    slices = volumes.shape[2]
    header = nifti(np.zeros(volumes.shape, np.uint8), volumes.affine)[:352]
    content = {
        "shape": volumes.shape,
        "spacing": volumes.spacing.tolist(),
        "columns": columns(slices),
        "centre": volumes.centre(),
        "images": {
            name: webp(mosaic(cut(array, "axial", k) for k in range(slices)), quality=QUALITY)
            for name, array in volumes.images.items()
        },
        "layers": {name: webp(image, lossless=True) for name, image in layers(volumes).items()},
        "planes": {
            name: webp(image, quality=80) for name, image in planes(volumes, float(min(volumes.spacing)) / 3).items()
        },
        "header": uri(header),
        "labels": {kind: volume(painted(volumes, kind), volumes.affine) for kind in volumes.masks},
        "uncertainty": None if volumes.uncertainty is None else volume(volumes.uncertainty, volumes.affine),
        "surfaces": {
            kind: {name: uri(file) for name, file in files.items()} for kind, files in surfaces(volumes).items()
        },
        "colours": colours_of(next(iter(volumes.masks.values()), {})),
    }
    return f"hand({json.dumps(volumes.case)}, {json.dumps(content)});\n"
