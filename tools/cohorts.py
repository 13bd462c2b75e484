"""The cohorts of bundles/common, for commands that run without a bundle."""

from functools import cache
from typing import Any

import yaml
from tumour.cohort import Cohort, read_cohorts
from tumour.errors import one_of

from tools.bundles import COMMON


@cache
def _config() -> dict[str, Any]:
    return yaml.safe_load((COMMON / "cohorts.yaml").read_text(encoding="utf-8"))


@cache
def known_cohorts() -> dict[str, Cohort]:
    """All cohorts by name."""
    return read_cohorts(_config()["cohorts"], _config()["usual"])


def cohort_named(name: str) -> Cohort:
    """The cohort of this name."""
    return one_of(known_cohorts(), name, "cohort", _config()["named_as"])


@cache
def _usual_modalities() -> list[str]:
    return yaml.safe_load((COMMON / "brats.yaml").read_text(encoding="utf-8"))["defaults"]["modalities"]


def modalities_of(cohort: Cohort) -> list[str]:
    """The modalities of the bundles' networks, in order, or those of a cohort that does not have them all."""
    usual = _usual_modalities()
    return usual if {*usual} <= {*cohort.modalities} else [*cohort.modalities]
