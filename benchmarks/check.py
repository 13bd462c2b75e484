"""Time and peak memory to check a data set, compared with reading each file once with nibabel in one process.

python -m benchmarks.check COHORT DIR      default: eight synthetic patients of 160³, named as in brats2021
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import results
from benchmarks.machine import seconds_text
from benchmarks.patients import cases_of

SIDES = {"nibabel": "nibabel, each file once", "one": "check, one case at a time", "all": "check, one case per core"}


def side(name: str, cohort: str, folder: str) -> None:
    """One measurement, in its own process: prints seconds, and memory before and at the peak in MB."""
    import nibabel as nib
    from tumour.cases.find import find_cases
    from tumour.checks.case import CaseCheck
    from tumour.checks.usable import examine

    from tools.cohorts import cohort_named, known_cohorts, modalities

    data_set = cohort_named(cohort)
    cases = find_cases(folder, data_set, modalities()).complete
    before, began = peak(), time.perf_counter()
    if name == "nibabel":
        for case in cases:
            for path in case.files.values():
                np.asanyarray(nib.load(path).dataobj)  # type: ignore[attr-defined]
    else:
        check = CaseCheck(data_set, known_cohorts(), modalities())
        examine(cases, check, 1 if name == "one" else None)
    print(time.perf_counter() - began, before, peak())


def peak() -> float:
    """Peak memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(cohort: str, folder: str, rounds: int = 5) -> None:
    measured: dict[str, list[list[float]]] = {name: [] for name in SIDES}
    for _ in range(rounds):
        for name in SIDES:
            command = [sys.executable, "-m", "benchmarks.check", "--side", name, cohort, folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
            measured[name].append([float(value) for value in done.stdout.split()])
    base, rows = np.median([row[0] for row in measured["nibabel"]]), []
    for name, what in SIDES.items():
        seconds, before, most = zip(*measured[name], strict=True)
        rows.append({
            "what": what,
            "seconds": seconds_text(list(seconds)),
            "ratio to nibabel": f"{np.median(seconds) / base:.1f}",
            "peak MB": f"{np.median(most):.0f}",
            "above the libraries, MB": f"{np.median(np.subtract(most, before)):.0f}",
        })  # fmt: skip
    number = len(cases_of(cohort, folder))
    about = f"{number} cases of {cohort}, {rounds} rounds; decompression takes about half of a check."
    results.keep("check", "Checking a data set", about, rows, ["numpy", "nibabel", "scipy"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        side(*sys.argv[2:5])
    elif sys.argv[1:]:
        main(sys.argv[1], sys.argv[2])
    else:
        from tools.patients.synthetic import make_patients

        with tempfile.TemporaryDirectory() as folder:
            make_patients(Path(folder), cases=8, size=160)
            main("brats2021", folder)
