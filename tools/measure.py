"""Measure label maps: volumes, lesions, diameters, and the change between two time points.

python -m tools measure cases  --labels DIR --cohort brats2021 --output DIR
python -m tools measure change --before FILE --after FILE --cohort brats2021
"""

import pandas as pd
from tumour.cases.case import Case
from tumour.errors import InputError
from tumour.scans.readers import read_classes
from tumour.scores.measurements import CHANGES, TABLE, write_measurements
from tumour.scores.measurements import change as measure_change

from tools.cohorts import cohort_named
from tools.score import label_files

RESEARCH = "For research, not for clinical use."


def cases(labels: str, cohort: str, output: str) -> str:
    """Measure each label map of a folder, and the change between the time points of a patient.

    Args:
        labels: folder with `<case>.nii.gz` or files named as the labels of the cohort.
        cohort: name of the data set whose file names and label values are used.
        output: folder for measurements.csv and, for patients with several time points, changes.csv.

    Raises:
        InputError: there is no label map, or one cannot be read.
    """
    data_set = cohort_named(cohort)
    found = label_files(labels, data_set, bare=True)
    if not found:
        raise InputError(f"No label map of {cohort} below '{labels}'; check --labels and --cohort.")
    named = [Case(case, data_set.patient_of(case), (str(path),)) for case, path in found.items()]
    write_measurements(named, output, data_set, {case: str(path) for case, path in found.items()})
    return f"{len(found)} cases measured; see '{output}/{TABLE}' and, for several time points, {CHANGES}. {RESEARCH}"


def change(before: str, after: str, cohort: str) -> str:
    """Print the change between two label maps of a patient, which must be on one grid.

    Args:
        before, after: the label maps.
        cohort: name of the data set whose label values are used.
    """
    data_set = cohort_named(cohort)
    rows = measure_change(read_classes(before, data_set), read_classes(after, data_set), data_set)
    return f"{pd.DataFrame(rows).round(2).to_string(index=False)}\n{RESEARCH}"


COMMANDS = {"cases": cases, "change": change}
