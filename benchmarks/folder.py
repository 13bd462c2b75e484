"""Time to segment a folder of real scans, and how well its parts overlap.

python -m benchmarks.folder --data DIR [--cohort brats2018] [--scans 36] [--work DIR] [--checkpoint model.pt of unet3d]
"""

import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from tumour.processes import cores
from tumour.runs.inferers import best_precision
from tumour.runs.record import MAIN

from benchmarks import nnunet, results
from benchmarks.inference import CHECKPOINT, PATCH, segmenting
from benchmarks.machine import seconds_text
from benchmarks.patients import cases_of, folder_with
from benchmarks.sides import command_line, ratio_of, serve, take_turns
from tools.cohorts import cohort_named
from tools.command import run_command
from tools.ensemble import OVERLAY, ensemble

SIDES = {
    "ours": "ours (`make infer`, `unet3d`, size fast)",
    "ours-two": "ours, two processes with one thread each (`make infer DEVICES=2`)",
    "ours-ensemble": "ours, an ensemble of the four shipped networks",
    "parts": "ours, reading, network and writing one after the other",
    "nnunet-ours": "nnU-Net's predictor, with this network; it reads and writes in two more processes",
}


def command(name: str, folder: Path, scans: Path, target: Path, cohort: str, weights: Path) -> list[str]:
    """What `make infer` runs."""
    launch, layers = [], []
    if name == "ours-two":
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        layers = ["bundles/common/multi_gpu_infer.yaml"]
    if name == "ours-ensemble":
        weights = folder / "ensemble"
        ensemble("bundles/*/weights", str(weights))
        layers = [str(weights / OVERLAY)]
    given = {"args_file": "bundles/unet3d/args.yaml", "cohort": cohort, "dataset_dir": scans, "output_dir": target}
    python, *run = run_command("inferring", **given, ckpt_dir=weights)
    return [python, *launch, *run, *(["--+config_file", str(layers)] if layers else [])]


def segment(given: list[str], target: Path) -> dict[str, Any]:
    """Run the command from its start to its end; the peak memory is that of its first process."""
    shutil.rmtree(target, ignore_errors=True)
    done = subprocess.run(given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(done.stdout[-4000:])
    record = json.loads((target / "runs/inferring.json").read_text(encoding="utf-8"))
    return {"peak_gb": record["peak_memory_gb"][MAIN]}


def parts_of(config: ConfigParser, target: Path) -> dict[str, Any]:
    """Seconds of each part of our run, one after the other: `reading` (and checking), `network`, `writing`."""
    shutil.rmtree(target, ignore_errors=True)
    names = ("dataset", "network", "inferer", "postprocessing")
    dataset, network, inferer, postprocessing = map(config.get_parsed_content, names)
    seconds = dict.fromkeys(("reading", "network", "writing"), 0.0)
    items, network = iter(dataset), network.eval()
    with torch.inference_mode():
        while True:
            times = [time.perf_counter()]
            item = next(items, None)
            times.append(time.perf_counter())
            if item is None:
                return seconds
            item["pred"] = inferer(item["image"][None], network)[0]
            times.append(time.perf_counter())
            postprocessing(item)
            times.append(time.perf_counter())
            for part, took in zip(seconds, np.diff(times), strict=True):
                seconds[part] += took


def side(name: str, work: str, cohort: str, data: str, checkpoint: str, scans: int) -> None:
    """Segment all scans per turn."""
    folder = nnunet.home(work, workers=0)
    chosen = cases_of(cohort, data)[:scans]
    links, target = folder / f"scans{len(chosen)}", folder / "folder" / name
    if name == "parts":
        serve(lambda: parts_of(segmenting(links, target, cohort, checkpoint), target))
    elif name.startswith("ours"):
        given = command(name, folder, links, target, cohort, Path(checkpoint).parent)
        serve(lambda: segment(given, target))
    else:
        target.mkdir(parents=True, exist_ok=True)
        predictor = nnunet.predictor(nnunet.trainer(folder, patch=PATCH, network=f"unet3d fast {checkpoint}"))
        images, outputs = [list(case.images) for case in chosen], [str(target / case.name) for case in chosen]
        more = {"num_processes_preprocessing": 1, "num_processes_segmentation_export": 1}
        serve(lambda: predictor.predict_from_files(images, outputs, **more) and None)


def measure(
    data: str,
    cohort: str = "brats2018",
    scans: int = 36,
    work: str = nnunet.WORK,
    checkpoint: str = CHECKPOINT,
    rounds: int = 1,
    sides: Sequence[str] = tuple(SIDES),
) -> None:
    """Measure the sides and write the table."""
    folder, cases = nnunet.home(work), cases_of(cohort, data)
    sides = list(dict.fromkeys(["ours", *sides]))  # the base of the ratios
    if "nnunet-ours" in sides:
        nnunet.ready(folder, cases, cohort_named(cohort).label_values)
    number = len(cases[:scans])
    folder_with(folder / f"scans{number}", cases[:scans])
    measured = take_turns("benchmarks.folder", sides, rounds, work, cohort, data, checkpoint, number)
    rows = []
    for name, title in SIDES.items():
        if name not in sides:
            continue
        seconds = measured[name]["seconds"]
        each = {"seconds": seconds_text(seconds), "seconds per scan": f"{min(seconds) / number:.2f}"}
        rows.append({"side": title, **each, "ratio to ours": ratio_of(seconds, measured["ours"]["seconds"])})
        rows[-1]["peak GB"] = f"{measured[name]['peak_gb'][-1]:.1f}"
    about = (
        f"{number} real scans, {cores()} cores, {rounds} round(s) after one to warm up. Ours computes in "
        f"{best_precision('cpu')} and includes the start of Python, nnU-Net in float32 without its start. Peak memory "
        "is that of the main process. "
    )
    if "parts" in sides:
        alone = ", ".join(f"{part} {min(measured['parts'][part]):.0f} s" for part in ("reading", "network", "writing"))
        about += f"The parts alone, in one process: {alone}."
    results.keep("folder", "Segmenting a folder of scans", about, rows, ["torch", "monai", "nnunetv2"])


if __name__ == "__main__":
    command_line(measure, side)
