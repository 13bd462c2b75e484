"""Label maps: the values of a file as positions in a list of classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from tumour.errors import InputError
from tumour.scans.nifti import file_fault


def to_classes(values: NDArray, label_values: Sequence[int], source: str) -> NDArray[np.uint8]:
    """A label map in a data set's own values as positions in `classes`; an InputError names other values."""
    classes = np.full(values.shape, 255, np.uint8)
    for position, value in enumerate(label_values):
        classes[values == value] = position
    if 255 in classes:
        others = np.unique(values[classes == 255])[:5].tolist()
        raise InputError(f"{source} holds {others}, not only {list(label_values)}; check --cohort or the file.")
    return classes


def read_classes(case: str, path: Path, label_values: Sequence[int]) -> tuple[NDArray[np.uint8], Any]:
    """The label map of a file as positions in `classes`, and its image."""
    try:
        image: Any = nib.squeeze_image(nib.load(path))  # type: ignore[attr-defined]
        values = np.asanyarray(image.dataobj).round(3)
    except Exception:
        values = np.array(np.nan)
    if not np.isfinite(values).all():
        raise InputError(f"{case}: {file_fault(str(path))}.")
    if values.ndim != 3:
        raise InputError(f"{case}: '{path}' has the shape {values.shape}, not three axes; write a label map.")
    return to_classes(values, label_values, f"{case}: '{path}'"), image
