"""The file of one case that the report loads when the case is opened: all slices as mosaics, and what the viewer needs.

A mosaic holds every axial slice of a volume as a tile, from foot to head, row by row, so that a slider only moves a
window over it, and the viewer has its volume from the same bytes.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import math
from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tumour.pictures.drawing import colours_of, cut, errors, grid_of, outlines, planes
from tumour.pictures.volumes import Volumes

from tools.report.surfaces import surfaces

QUALITY = 25  # of WebP: noise is smoothed, tumour borders stay, and 20 patients of BraTS take less than 30 MB
ENLARGED = 2  # pixels of an outline a voxel edge


def uri(content: bytes, kind: str = "application/octet-stream") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def webp(image: Image.Image, **options: Any) -> str:
    """A picture as the address that a page can show without another file."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **options)
    return uri(buffer.getvalue(), "image/webp")


def mosaic(tile: Callable[[int], NDArray], slices: int) -> Image.Image:
    """The slices (rows, columns[, 4]) of all indices as tiles of one picture."""
    across = columns(slices)
    first = tile(0)
    rows, width = first.shape[:2]
    whole = np.zeros((-(-slices // across) * rows, across * width, *first.shape[2:]), np.uint8)
    for index in range(slices):
        row, column = divmod(index, across)
        whole[row * rows : (row + 1) * rows, column * width : (column + 1) * width] = tile(index)
    return Image.fromarray(whole)


def columns(slices: int) -> int:
    """Tiles in a row of a mosaic."""
    return math.ceil(math.sqrt(slices))


def layers(volumes: Volumes) -> dict[str, Image.Image]:
    """Mosaics that lie over the scans: the outlines of each label map, and where there are two, the errors a region."""
    slices = volumes.shape[2]
    fine = grid_of(volumes, "axial", float(min(volumes.spacing)) / ENLARGED)
    coarse = grid_of(volumes, "axial", float(min(volumes.spacing)))
    drawn = {
        kind: mosaic(lambda k, m=masks, d=kind == "reference": outlines(m, "axial", k, fine, d), slices)  # type: ignore[misc]
        for kind, masks in volumes.masks.items()
    }
    if len(volumes.masks) == 2:
        for region in volumes.masks["reference"]:
            tile = lambda k, r=region: errors(volumes, r, "axial", k, coarse)  # noqa: E731
            drawn[f"errors in {region}"] = mosaic(tile, slices)
    return drawn


def painted(volumes: Volumes, kind: str) -> NDArray[np.uint8]:
    """A label map for the viewer: 1 is the largest region, over it 2 the next, ..."""
    label = np.zeros(volumes.shape, np.uint8)
    for value, mask in enumerate(volumes.masks[kind].values(), 1):
        label[mask] = value
    return label


def nifti(array: NDArray[np.uint8], affine: NDArray) -> bytes:
    return nib.Nifti1Image(array, affine).to_bytes()  # type: ignore[attr-defined]


def slides(volumes: Volumes) -> str:
    """The script that hands a case to the page."""
    slices = volumes.shape[2]
    header = nifti(np.zeros(volumes.shape, np.uint8), volumes.affine)[:352]
    content = {
        "shape": volumes.shape,
        "spacing": volumes.spacing.tolist(),
        "columns": columns(slices),
        "centre": volumes.centre(),
        "images": {
            name: webp(mosaic(lambda k, a=array: cut(a, "axial", k), slices), quality=QUALITY, method=6)  # type: ignore[misc]
            for name, array in volumes.images.items()
        },
        "layers": {name: webp(image, lossless=True, method=2) for name, image in layers(volumes).items()},
        "planes": {
            name: webp(image, quality=80) for name, image in planes(volumes, float(min(volumes.spacing)) / 3).items()
        },
        "header": uri(header),
        "labels": {
            kind: uri(gzip.compress(nifti(painted(volumes, kind), volumes.affine), mtime=0)) for kind in volumes.masks
        },
        "surfaces": {
            kind: {name: uri(file) for name, file in files.items()} for kind, files in surfaces(volumes).items()
        },
        "colours": colours_of(next(iter(volumes.masks.values()), {})),
    }
    return f"hand({json.dumps(volumes.case)}, {json.dumps(content)});\n"
