"""Two grids are the same if no corner of one is more than a tenth of a voxel from that of the other."""

import re

import nibabel as nib
import numpy as np
import pytest
from tumour.scans.grid import Scan, difference


def moved(mm=0.0, degrees=0.0, spacing=(1.0, 2.0, 4.0), shape=(40, 20, 10)):
    """A grid moved along x, and turned about z through the centre of its first voxel."""
    turn = nib.eulerangles.euler2mat(z=np.radians(degrees)) @ np.diag(spacing)
    return Scan("x.nii", np.zeros(shape, np.uint8), nib.affines.from_matvec(turn, (50 + mm, -20, 3)))


@pytest.mark.parametrize(("mm", "degrees"), [(0.09, 0), (-0.09, 0), (0, 0.1)])  # 0.1 degrees are 0.095 mm at 54.4 mm
def test_less_than_a_tenth_of_the_shortest_edge_of_a_voxel_is_no_difference(mm, degrees):
    assert difference(moved(), moved(mm, degrees)) is None


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (moved(mm=0.11), "is shifted or rotated by up to 0.1 mm"),
        (moved(degrees=0.2), "is shifted or rotated by up to 0.2 mm"),  # 54.4 mm from the first to the farthest voxel
        (moved(shape=(40, 20, 11)), r"has the shape \(40, 20, 11\), but"),
        (moved(spacing=(1.0, 2.0, 4.01)), r"has the spacing \[1.0, 2.0, 4.01\], but"),
        (moved(spacing=(-1.0, 2.0, 4.0)), "has the orientation LAS, but"),
    ],
)
def test_more_than_that_is_a_difference_that_is_named(other, message):
    assert re.search(message, difference(moved(), other))
