"""Growth with the number of cases: segmenting, evaluating and scoring a folder with many of them.

python -m benchmarks.many_cases [--small 500] [--large 2000] [--size 64]
"""

import shutil
import sys
import tempfile
from pathlib import Path

import fire
from tumour.processes import cores

from benchmarks import results
from benchmarks.machine import measured
from tools.command import flags, run_command
from tools.patients.synthetic import make_patients

DIFFERENT = 16  # patients; the others are links to them
COHORT = "brats2021"
ARGS_FILE = "bundles/resunet/args.yaml"
WEIGHTS = "bundles/resunet/weights"


def linked_patients(output: Path, cases: int, size: int) -> None:
    """Write synthetic patients, most of which are links to the files of the first ones."""
    make_patients(output, min(cases, DIFFERENT), size, cohort=COHORT)
    first = sorted(output.iterdir())
    for index in range(len(first), cases):
        model = first[index % len(first)]
        case = output / f"BraTS2021_{index:05d}"
        case.mkdir()
        for path in model.iterdir():
            (case / path.name.replace(model.name, case.name)).symlink_to(path)


def commands(data: Path, work: Path) -> dict[str, list[str]]:
    """What is measured, in the order in which each finds the results of the one before."""
    weights = shutil.copytree(WEIGHTS, work / "weights")  # `evaluating` writes scores next to them
    given = {"args_file": ARGS_FILE, "ckpt_dir": weights, "cohort": COHORT, "dataset_dir": data, "output_dir": work}
    labels = {"reference": data, "prediction": work / "segmentations", "cohort": COHORT, "output": work / "scored"}
    return {
        "segmenting": run_command("inferring", **given),
        "segmenting and scoring (`evaluating`)": run_command("evaluating", **given, test_share=1.0),
        "scoring (`score`)": [sys.executable, "-m", "tools", "score", *flags(labels)],
    }


def measure(small: int = 500, large: int = 2000, size: int = 64) -> None:
    """Measure each command on both numbers of cases, and write the table."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for cases in (small, large):
            data = Path(scratch, f"data{cases}")
            linked_patients(data, cases, size)
            for what, command in commands(data, Path(scratch, f"work{cases}")).items():
                seconds, memory = measured(command)
                each = 1000 * seconds / cases
                rows.append(
                    {"what": what, "cases": f"{cases:,}", "seconds": f"{seconds:.0f}", "ms per case": f"{each:.0f}"}
                    | {"peak GB": f"{memory:.2f}"}
                )
                print(rows[-1], file=sys.stderr, flush=True)
    about = (
        f"Synthetic cases of {size}³, of which {DIFFERENT} differ and the others are links to them; `resunet`, "
        f"{cores()} cores, one run each, the start included; memory of the main process."
    )
    results.keep("many_cases", "Growth with the number of cases", about, rows, ["torch", "monai", "nibabel"])


if __name__ == "__main__":
    fire.Fire(measure)
