"""The cohorts of bundles/common, for commands that run without a bundle."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml
from tumour.cohort import Cohort, read_cohorts
from tumour.errors import one_of

COMMON = Path(__file__).parents[1] / "bundles" / "common"


@cache
def known_cohorts() -> dict[str, Cohort]:
    """All cohorts by name."""
    config = yaml.safe_load((COMMON / "cohorts.yaml").read_text(encoding="utf-8"))
    return read_cohorts(config["cohorts"], config["usual"])


def cohort_named(name: str, setting: str = "cohort") -> Cohort:
    """The cohort of this name."""
    return one_of(known_cohorts(), name, setting)


@cache
def modalities() -> list[str]:
    """The modalities of the networks, in order."""
    return yaml.safe_load((COMMON / "brats.yaml").read_text(encoding="utf-8"))["modalities"]
