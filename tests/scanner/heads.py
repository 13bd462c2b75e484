"""Synthetic heads for tests: a skull, a brain with ventricles, and no symmetry."""

from importlib.metadata import PackageNotFoundError, version

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from tumour.scans.grid import Scan

AFFINE = np.array([[-2.0, 0, 0, 118], [0, -2, 0, 118], [0, 0, 2, -60], [0, 0, 0, 1]])
SHAPE = (119, 119, 72)


def needs(*packages):
    """Skip a test where packages of the extra `scanner` are missing."""
    missing = []
    for package in packages:
        try:
            version(package)
        except PackageNotFoundError:
            missing.append(package)
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}: make setup EXTRA=scanner")


def points(affine=AFFINE, shape=SHAPE):
    """The mm of every voxel, (3, x, y, z)."""
    return np.einsum("ij,jxyz->ixyz", affine[:3, :3], np.indices(shape)) + affine[:3, 3][:, None, None, None]


def ellipsoid(mm, centre, radii):
    return sum(((mm[axis] - centre[axis]) / radii[axis]) ** 2 for axis in range(3)) <= 1


def values(mm, skull=400, brain=200, fluid=60, spot=330):
    """The values of a head at places (3, ...) in mm."""
    head, inner = ellipsoid(mm, (0, 0, 5), (78, 98, 76)), ellipsoid(mm, (0, 0, 5), (68, 88, 66))
    out = np.where(head, skull, 0.0)
    waves = np.sin(mm[0] / 7 + 1) * np.sin(mm[1] / 8) * np.sin(mm[2] / 6 + 2)  # instead of gyri
    out[inner] = brain * (1 + 0.25 * waves[inner])
    out[ellipsoid(mm, (-14, 10, 10), (9, 30, 12)) | ellipsoid(mm, (14, 4, 12), (8, 26, 10))] = fluid
    out[ellipsoid(mm, (30, -40, 30), (14, 10, 12)) | ellipsoid(mm, (-35, 45, -10), (10, 14, 9))] = spot
    out[ellipsoid(mm, (0, 100, -20), (12, 22, 20)) & ~inner] = skull  # the nose
    return out


def head(affine=AFFINE, shape=SHAPE, motion=None, noise=4, warp=0, **tissue):
    """A head after a motion (mm to mm), on a grid; `warp` mm make it that of another person."""
    affine = np.asarray(affine, float)
    where = points(np.linalg.inv(np.eye(4) if motion is None else motion) @ affine, shape)
    where = where + warp * np.sin(np.roll(where, 1, axis=0) / 40 + 1)
    blurred = ndimage.gaussian_filter(values(where, **tissue), 0.6)
    data = np.maximum(blurred + np.random.default_rng(0).normal(0, noise, shape), 0)
    return Scan("head", data.astype(np.int16), affine)


def brain(scan):
    """The brain of a head that has not been moved."""
    return ellipsoid(points(scan.affine, scan.shape), (0, 0, 5), (68, 88, 66))


def motion(degrees=(0, 0, 0), shift=(0, 0, 0)):
    return nib.affines.from_matvec(nib.eulerangles.euler2mat(*np.radians(degrees)), shift)


def distance(one, other):
    """The largest distance in mm between where two motions bring places of the brain."""
    places = np.array([[x, y, z] for x in (-60, 60) for y in (-80, 80) for z in (-50, 60)])
    return float(
        np.linalg.norm(nib.affines.apply_affine(one, places) - nib.affines.apply_affine(other, places), axis=1).max()
    )
