"""What a user waits for: commands from start to end, with this version and with an earlier commit, in turns.

python -m benchmarks.commands --data DIR [--cohort brats2018] [--commit a9a2751] [--cases 16] [--rounds 3]
"""

import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fire
from tumour.processes import cores

from benchmarks import machine, results
from benchmarks.patients import cases_of, folder_with
from benchmarks.sides import ratio_of
from tools.bundles import ROOT

VERSION_0_1 = "a9a2751"
BUNDLE = "neuroseg3d"
COMMANDS = {  # in the order in which each finds the results of the one before
    "check {cases} patients": "check",
    "train for 30 steps on them, and validate": "train --epochs 1 --iterations_per_epoch 30 --resume False",
    "segment one scan": "infer",
    "segment and score {cases} patients": "evaluate --test_share 1.0",
    "report of them": "report",
}


@contextmanager
def checkout(commit: str, folder: Path) -> Iterator[Path]:
    """A commit in a folder of its own, with the environment of this checkout."""
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", folder, commit], cwd=ROOT, check=True)
    try:
        (folder / ".venv").symlink_to(ROOT / ".venv")
        yield folder
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=ROOT, check=True)


def copy_weights(tree: Path, folder: Path) -> None:
    """The weights without the list of their patients: most of those that we have are on it, and would be left out."""
    folder.mkdir(parents=True)
    for name in ("model.pt", "settings.json"):
        shutil.copy(tree / "bundles" / BUNDLE / "weights" / name, folder)


def seconds_of(given: str, tree: Path, data: Path, cohort: str, work: Path) -> float:
    """Seconds of a `make` target with its options, in a checkout; `infer` has the first patient only."""
    target, *options = given.split()
    results_of = work / ("one" if target == "infer" else "results")
    if target == "check":
        options += ["--output", str(results_of)]
    else:
        weights = work / ("trained" if target == "train" else "weights")
        options += ["--ckpt_dir", str(weights), "--output_dir", str(results_of)]
    scans = data.with_name("one") if target == "infer" else data
    variables = [f"BUNDLE={BUNDLE}", f"COHORT={cohort}", f"DATA={scans}", f"ARGS={' '.join(options)}"]
    errors = ["-i"] if target == "check" else []  # in 0.1.0 a note on a patient is an error of the check
    seconds, _ = machine.measured(["make", "-C", str(tree), "-o", ".venv/ready", *errors, target, *variables])
    if target == "check" and not (results_of / "check.json").is_file():
        raise SystemExit(f"`make check` in '{tree}' wrote no '{results_of / 'check.json'}'; run it there to see why.")
    return seconds


def measure(data: str, cohort: str = "brats2018", commit: str = VERSION_0_1, cases: int = 16, rounds: int = 3) -> None:
    """Measure all commands with both versions, and write the table."""
    measured: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch, checkout(commit, Path(scratch, "before")) as before:
        chosen = cases_of(cohort, data)[:cases]
        patients = folder_with(Path(scratch, "patients"), chosen)
        folder_with(Path(scratch, "one"), chosen[:1])
        versions = {"before": before, "now": ROOT}
        for version, tree in versions.items():
            copy_weights(tree, Path(scratch, "work", version, "weights"))
        for turn in range(rounds):
            for version, tree in versions.items():
                work = Path(scratch, "work", version)
                for what, given in COMMANDS.items():
                    if given.startswith(("infer", "evaluate")):  # else it goes on with what is there
                        shutil.rmtree(work / "one", ignore_errors=True)
                        shutil.rmtree(work / "results/segmentations", ignore_errors=True)
                    seconds = seconds_of(given, tree, patients, cohort, work)
                    measured[what, version].append(seconds)
                    done = f"round {turn + 1} of {rounds}, {version}, {what}"
                    print(f"{done}: {seconds:.1f} s", file=sys.stderr, flush=True)
    rows = [
        {
            "what": what.format(cases=len(chosen)),
            f"{commit}, s": machine.seconds_text(measured[what, "before"]),
            "now, s": machine.seconds_text(measured[what, "now"]),
            "ratio to now": ratio_of(measured[what, "before"], measured[what, "now"]),
        }
        for what in COMMANDS
    ]
    about = (
        f"Commands of `make` from start to end, `{BUNDLE}` with the weights of each version, {cores()} cores, {rounds} "
        f"rounds; {VERSION_0_1} is version 0.1.0."
    )
    results.keep("commands", "What a user waits for", about, rows, ["torch", "monai"])


if __name__ == "__main__":
    fire.Fire(measure)
