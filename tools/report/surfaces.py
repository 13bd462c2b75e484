"""Surfaces of regions and of the head for the viewer, as MZ3 files (the format of Surf Ice and NiiVue)."""

import gzip
import struct

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, gaussian_filter
from skimage.measure import block_reduce, marching_cubes
from tumour.pictures.volumes import Mask, Volumes

Corners = NDArray[np.float32]
Triangles = NDArray[np.int32]
FINE, COARSE = 2.0, 6.0  # side length in mm of the cubes for a region and for the head


def surface(mask: Mask, spacing: NDArray, affine: NDArray, edge: float) -> tuple[Corners, Triangles]:
    """The smoothed surface of a mask (x, y, z), from cubes of about `edge` mm (Lorensen and Cline, 1987).

    Returns:
        Corners (n, 3) in mm, and triangles (m, 3) as indices of corners; both empty for an empty mask.
    """
    steps = np.maximum(np.round(edge / spacing).astype(int), 1)
    filled = np.pad(block_reduce(mask.astype(np.float32), tuple(steps), np.mean), 1)
    field = np.maximum(gaussian_filter(filled, 0.7), 0.51 * (filled >= 0.5))  # smoothing must not remove small lesions
    if field.max() <= 0.5:
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)
    corners, triangles, _, _ = marching_cubes(field, 0.5)
    voxels = (corners - 1) * steps + (steps - 1) / 2
    return (voxels @ affine[:3, :3].T + affine[:3, 3]).astype(np.float32), triangles.astype(np.int32)


def mz3(corners: Corners, triangles: Triangles) -> bytes:
    """A surface as a compressed MZ3 file: magic number, content (1: triangles, 2: corners), their numbers, 0 skipped.

    No pinned library writes MZ3; GIfTI, which nibabel writes and NiiVue reads too, is larger.
    """
    header = struct.pack("<HHIII", 0x5A4D, 1 | 2, len(triangles), len(corners), 0)
    return gzip.compress(header + triangles.astype("<i4").tobytes() + corners.astype("<f4").tobytes(), mtime=0)


def surfaces(volumes: Volumes) -> dict[str, dict[str, bytes]]:
    """MZ3 files by label map and region, and that of the head as `head`; an empty region has no file."""
    head = binary_fill_holes(np.logical_or.reduce([image > 0 for image in volumes.images.values()]))
    wanted = {"head": {"head": (head, COARSE)}}
    wanted |= {kind: {r: (mask, FINE) for r, mask in masks.items()} for kind, masks in volumes.masks.items()}
    files: dict[str, dict[str, bytes]] = {}
    for kind, masks in wanted.items():
        files[kind] = {}
        for name, (mask, edge) in masks.items():
            corners, triangles = surface(mask, volumes.spacing, volumes.affine, edge)
            if len(triangles):
                files[kind][name] = mz3(corners, triangles)
    return files
