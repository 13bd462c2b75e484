"""Say in one sentence what is wrong with a case that could not be read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from tools.errors import input_error_in


def file_fault(path: str) -> str | None:
    """What is wrong with a NIfTI file and how to mend it, or None; the file is read whole."""
    if not Path(path).is_file():
        return f"'{path}' is not there; restore it"
    with open(path, "rb") as file:
        start = file.read(64)
    if not start:
        return f"'{path}' is empty; download it again"
    if start.startswith(b"version https://git-lfs"):
        return f"'{path}' is a Git LFS pointer, not the scan; fetch it with 'git lfs pull'"
    if start.lstrip()[:1] == b"<":
        return f"'{path}' is a web page, not a scan; download it again, logged in"
    try:
        data = np.asanyarray(nib.load(path).dataobj)  # type: ignore[attr-defined]
    except Exception as error:
        return f"'{path}' is cut short, damaged or no NIfTI file ({type(error).__name__}); download it again"
    if not np.isfinite(data).all():
        return f"'{path}' holds values that are not finite; export it again"
    return None


def fault(case: Mapping[str, Any], error: BaseException) -> str:
    """Why a case failed, in one sentence that names the case, the file and the mend."""
    told = input_error_in(error)
    if told is not None:
        return f"{case['case']}: {told}"
    image = case["image"]
    paths = [image] if isinstance(image, str) else list(image)
    paths += [case[key] for key in ("label", "reference") if key in case]
    for path in paths:
        found = file_fault(path)
        if found:
            return f"{case['case']}: {found}."
    grids = {str(nib.load(path).shape) for path in paths}  # type: ignore[attr-defined]
    if len(grids) > 1 and not isinstance(image, str):
        return f"{case['case']}: its files differ in shape ({', '.join(sorted(grids))}); register them to one grid."
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{case['case']}: '{paths[0]}' could not be used ({type(error).__name__}: {error}); check its files."
