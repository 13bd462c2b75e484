"""The conventions of the data sets, for commands that run without a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tumour.errors import one_of

BRATS = Path(__file__).parents[1] / "bundles" / "common" / "brats.yaml"


def task() -> dict[str, Any]:
    """What bundles/common/brats.yaml says, as it is written."""
    return yaml.safe_load(BRATS.read_text(encoding="utf-8"))


def convention(name: str, setting: str = "cohort") -> Mapping[str, Any]:
    """The convention of this name with its `classes` and `regions`, which are the usual ones unless it has others."""
    brats = task()
    return {**brats["usual"], **one_of(brats["cohorts"], name, setting)}
