"""What is taken for the background of a scan."""

import numpy as np
import pytest
from tumour.scans.readers import background_of


@pytest.mark.parametrize(("columns", "expected"), [(3, -0.5), (1, 0), (0, 0)])  # of 10 x 10 x 10 voxels 8%, 4% or none
def test_the_background_is_a_value_of_all_corners_and_of_over_5_percent_of_the_voxels(columns, expected):
    data = np.random.default_rng(0).normal(size=(10, 10, 10))
    if columns:
        data[[0, -1], :columns] = data[[0, -1], -1] = -0.5
    assert background_of(data) == expected
    data[0, 0, -1] = 2  # a corner in the head
    assert background_of(data) == 0
