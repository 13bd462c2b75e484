"""Small masks for tests of scores."""

import numpy as np

MM = (1.0, 1.0, 1.0)


def mask(*boxes, shape=(30, 24, 18)):
    """True within boxes, each (start, stop) by axis."""
    out = np.zeros(shape, bool)
    for box in boxes:
        out[tuple(slice(*axis) for axis in box)] = True
    return out


def cube(*start, size=3):
    return [(s, s + size) for s in start]


def blobs(seed):
    random = np.random.default_rng(seed)
    return mask(*(cube(*random.integers(3, (20, 16, 10)), size=random.integers(1, 6)) for _ in range(4)))
