"""The conventions of the data sets, for commands that run without a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tumour.errors import one_of

COMMON = Path(__file__).parents[1] / "bundles" / "common"


def task() -> dict[str, Any]:
    """What cohorts.yaml and brats.yaml of bundles/common say, as it is written."""
    cohorts, brats = (yaml.safe_load((COMMON / f"{name}.yaml").read_text("utf-8")) for name in ("cohorts", "brats"))
    return {**cohorts, **brats}


def convention(name: str, setting: str = "cohort") -> Mapping[str, Any]:
    """The convention of this name with its `classes` and `regions`, which are the usual ones unless it has others."""
    brats = task()
    return {**brats["usual"], **one_of(brats["cohorts"], name, setting)}
