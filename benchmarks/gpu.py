"""Check these bundles on the GPU of this machine in under ten minutes; prints a table that can be sent to us.

python -m benchmarks.gpu [--data DIR --cohort brats2021]

Without DIR the patients are synthetic. Each stage has a process and a time limit of its own, so that one that fails
or hangs does not end the others. `--device cpu` tries the same on tiny patients without a GPU.
"""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import fire
import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from tumour.patches.datasets import workers_for
from tumour.processes import cores

from benchmarks import ours
from benchmarks.inference import segmenting
from benchmarks.patients import cases_of, folder_with
from benchmarks.waiting import wait_and_step
from tools.command import flags
from tools.command_line import command_line
from tools.patients.synthetic import make_patients
from tools.tables import markdown

Rows = Iterator[tuple[str, str]]  # what is checked, and the result
BATCH, PATCH, PATCH_CPU = 2, 128, 32
GRACE = 3  # seconds for a stage to end


def synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def environment(data: str, cohort: str, device: str, folder: Path) -> Rows:
    """The machine and its versions."""
    if device != "cpu":
        card = torch.cuda.get_device_properties(device)
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True).stdout.strip()
        yield "GPU", f"{card.name}, {card.total_memory / 1e9:.0f} GB, driver {driver}"
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "monai", "numpy"))
    yield "versions", f"{versions}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    shared = os.statvfs("/dev/shm")
    yield "CPU", f"{cores()} cores, {shared.f_frsize * shared.f_bavail / 1e9:.1f} GB free in /dev/shm"


def pace(parser: ConfigParser, device: str, times: int = 10) -> str:
    """The time until the first step is done, the median of the following ones, and the peak memory."""
    patch = PATCH if device != "cpu" else PATCH_CPU
    image = torch.rand(BATCH, 4, *(patch,) * 3, device=device)
    step = ours.step_of(parser, image, (torch.rand(BATCH, 3, *(patch,) * 3, device=device) > 0.9).float())
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(times + 3):
        began = time.perf_counter()
        step()
        synchronise(device)
        seconds.append(time.perf_counter() - began)
    memory = f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if device != "cpu" else ""
    return f"{1000 * np.median(seconds[3:]):.0f} ms{memory}; the first took {seconds[0]:.1f} s"


def steps(data: str, cohort: str, device: str, folder: Path) -> Rows:
    """A training step by size and precision."""
    for size, precision in product(("fast", "full"), ("bfloat16", "float16", "float32")):
        if not (device == "cpu" and (precision == "float16" or size == "full")):
            parser = ours.config("unet3d", size=size, precision=precision, device=device)
            yield f"step, {size}, {precision}", pace(parser, device, 10 if device != "cpu" else 1)


def compiled(data: str, cohort: str, device: str, folder: Path) -> Rows:
    """The same with torch.compile."""
    for size in ("fast", "full"):
        yield f"step, {size}, compiled", pace(ours.config("unet3d", size=size, compile=True, device=device), device)


def waiting(data: str, cohort: str, device: str, folder: Path) -> Rows:
    """The fraction of a training in which the GPU waits for patches."""
    settings: dict[str, Any] = {} if device != "cpu" else {"patch_size": [PATCH_CPU] * 3, "overlap": 0}
    usual = workers_for(device)
    for workers, layer in ((usual, ""), (2 * usual or 1, ""), (usual, "bundles/common/augment_on_device.yaml")):
        count = 60 if device != "cpu" else 8
        settings |= {"device": device, "workers": workers}
        share, seconds = wait_and_step(data, cohort, "neuroseg3d", count, layer, **settings)
        where = ", augmentation on the GPU" if layer else ""
        yield f"waiting for data, {workers} workers{where}", f"{share:.1%} of {1000 * seconds:.0f} ms per step"


def inference(data: str, cohort: str, device: str, folder: Path) -> Rows:
    """A scan from file to file, and whether the same weights give the same label map on the CPU."""
    scans = folder_with(folder / "scan", cases_of(cohort, data)[:1])
    maps: list[np.ndarray] = []
    for name in (device, "cpu"):
        target = folder / f"map-{len(maps)}"
        segment = segmenting(scans, target, cohort, device=name).get_parsed_content("evaluator")
        for _ in range(3 if name != "cpu" else 1):
            began = time.perf_counter()
            segment.run()
            seconds = time.perf_counter() - began
        maps.append(np.asanyarray(nib.load(next(target.glob("*.nii.gz"))).dataobj))  # type: ignore[attr-defined]
        yield f"scan, from file to file, {name}", f"{seconds:.2f} s"
    tumour = (maps[0] > 0) | (maps[1] > 0)
    equal = maps[0] == maps[1]
    of_tumour = f"{equal[tumour].mean():.2%} of tumour" if tumour.any() else "none of them tumour"
    yield f"same label on {device} and cpu", f"{equal.mean():.4%} of all voxels, {of_tumour}"


def short_training(data: str, cohort: str, device: str, folder: Path, *launch: str, layer: str = "") -> str:
    """Train for a few steps as a user does; the devices of the tensors in both checkpoints."""
    settings = {"cohort": cohort, "dataset_dir": data, "ckpt_dir": folder / "models", "output_dir": folder / "results"}
    settings |= {"epochs": 1, "iterations_per_epoch": 4, "workers": 0}
    settings |= {} if device != "cpu" else {"device": device, "patch_size": [PATCH_CPU] * 3, "overlap": 0}
    options = ["--args_file", "bundles/unet3d/args.yaml", *(["--+config_file", f"['{layer}']"] if layer else [])]
    command = [sys.executable, *launch, "-m", "monai.bundle", "run", "training", *options, *flags(settings)]
    subprocess.run(command, check=True)
    return "; ".join(f"{name} on {devices_in(folder / 'models' / name)}" for name in ("model.pt", "last.ckpt"))


def devices_in(path: Path) -> str:
    """The devices of the tensors in a checkpoint, loaded without moving them."""

    def leaves(value: object) -> Iterator[str]:
        if isinstance(value, torch.Tensor):
            yield str(value.device)
        elif isinstance(value, dict | list | tuple):
            for each in value.values() if isinstance(value, dict) else value:
                yield from leaves(each)

    return ", ".join(sorted(set(leaves(torch.load(path, weights_only=True)))))


def checkpoints(data: str, cohort: str, device: str, folder: Path) -> Rows:
    """Where the tensors of checkpoints are: a machine without a GPU can only read those on the CPU."""
    yield "training; its checkpoints", short_training(data, cohort, device, folder)


def torchrun(data: str, cohort: str, device: str, folder: Path) -> Rows:
    """A training by torchrun with one process."""
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1")
    layer = "bundles/common/multi_gpu_train.yaml"
    yield "torchrun, 1 process; its checkpoints", short_training(data, cohort, device, folder, *launch, layer=layer)


LIMITS = {environment: 30, steps: 120, compiled: 120, waiting: 130, inference: 80, checkpoints: 50, torchrun: 50}
STAGES = {work.__name__: work for work in LIMITS}


def stage(name: str, data: str, cohort: str, device: str, folder: str) -> None:
    """Print the rows of a stage, one line of JSON each."""
    for check, result in STAGES[name](str(data), cohort, device, Path(folder)):
        print(json.dumps({"check": check, "result": result}), flush=True)


def run_stage(name: str, limit: float, *arguments: str) -> list[dict[str, str]]:
    """The rows of a stage in a process of its own; the last one says if it failed or took too long."""
    with tempfile.TemporaryFile("w+") as printed:
        command = [sys.executable, "-m", "benchmarks.gpu", "stage", name, *arguments]
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            failure = f"failed with exit status {process.returncode}" if process.wait(limit) else ""
        except subprocess.TimeoutExpired:
            for order in (signal.SIGTERM, signal.SIGKILL):  # torchrun ends its own processes only at the first
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, order)
                time.sleep(GRACE)
            process.wait()
            failure = f"stopped after {limit:.0f} s"
        printed.seek(0)
        lines = [line.strip() for line in printed if line.strip()]
    rows = [json.loads(line) for line in lines if line.startswith('{"check"')]
    if failure:
        print("\n".join(lines[-20:]), file=sys.stderr)
        rows.append({"check": name, "result": f"{failure}: {lines[-1] if lines else ''}"[:200].replace("|", " ")})
    return rows


def main(data: str = "", cohort: str = "brats2021", device: str = "cuda") -> str | int:
    """Run all stages; the table.

    Args:
        data: folder of a data set; by default four synthetic patients.
        cohort: name of the data set.
        device: cuda, or cpu for a trial without a GPU.
    """
    if device != "cpu" and not torch.cuda.is_available():
        print("PyTorch finds no GPU on this machine; see the first line of the log of any run.", file=sys.stderr)
        return 1
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        if not data:
            data, cohort = f"{scratch}/patients", "brats2021"
            make_patients(data, cases=4, size=[240, 240, 155] if device != "cpu" else 40)
        for work, limit in LIMITS.items():
            print(f"{work.__name__}, at most {limit} s ...", file=sys.stderr, flush=True)
            rows += run_stage(work.__name__, limit, data, cohort, device, f"{scratch}/{work.__name__}")
    return markdown(rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["stage"]:
        fire.Fire({"stage": stage})
    else:
        command_line(main, "python -m benchmarks.gpu")
