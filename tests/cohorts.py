"""Cohorts and cases for tests."""

from tumour.cases.case import Case
from tumour.cohort import Cohort

from tools.cohorts import known_cohorts

COHORTS = known_cohorts()
FOUR = ["T1", "T1ce", "T2", "FLAIR"]
CLASSES = ("background", "necrotic", "oedema", "enhancing")
REGIONS = {"TC": ("necrotic", "enhancing"), "WT": ("necrotic", "oedema", "enhancing"), "ET": ("enhancing",)}


def glioma(*values, classes=CLASSES, regions=REGIONS):
    """A cohort with the usual classes and regions, stored as `values`."""
    return Cohort("glioma", tuple(classes), regions, values or (0, 1, 2, 4))


def people(count, scans=1, label="x"):
    """Cases of the given number of patients."""
    return [Case(f"p{i:03}-{j}", f"p{i:03}", ("a",), label=label) for i in range(count) for j in range(scans)]
