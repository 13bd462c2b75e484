"""Seconds and peak memory of a training step, batch 2, each side by its own trainer's step.

python -m benchmarks.training_step --data DIR [--cohort brats2018] [--work DIR] [--patches "(96, 128)"]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import fire
import torch
from torch.utils.flop_counter import FlopCounterMode
from tumour.processes import cores
from tumour.runs.precision import best_precision

from benchmarks import nnunet, ours, results, zoo
from benchmarks.machine import seconds_text
from benchmarks.patients import cases_of
from benchmarks.sides import ratio_of, serve, take_turns
from tools.cohorts import cohort_named

SIDES = {
    "ours-equal": "ours (`unet3d`), nnU-Net's size",
    "nnunet-plain": "nnU-Net, PlainConvUNet",
    "nnunet-resenc": "nnU-Net, ResEncUNet M",
    "zoo": "model zoo, SegResNet",
    "ours-full": "ours (`unet3d`), size full",
    "ours-fast": "ours (`unet3d`), size fast",
    "ours-equal-bfloat16": "ours (`unet3d`), nnU-Net's size",
    "nnunet-plain-bfloat16": "nnU-Net, PlainConvUNet, under an autocast that its trainer has on a GPU alone",
    "zoo-bfloat16": "model zoo, SegResNet, likewise",
    "ours-full-bfloat16": "ours (`unet3d`), size full",
    "ours-fast-bfloat16": "ours (`unet3d`), size fast",
}
BASE = "nnunet-plain"


def sides_here() -> list[str]:
    """All sides, or those in float32 where the processor has no bfloat16."""
    return [name for name in SIDES if best_precision("cpu") == "bfloat16" or not name.endswith("bfloat16")]


def precision_of(name: str) -> str:
    return "bfloat16" if name.endswith("bfloat16") else "float32"


def side(name: str, work: str, patch: int) -> None:
    """Answer with a step a turn; parameters and multiply-adds of the network come along."""
    folder, precision = nnunet.home(work, workers=0), precision_of(name)
    image, target = torch.rand(2, 4, *(patch,) * 3), (torch.rand(2, 3, *(patch,) * 3) > 0.9).float()
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16")
    if name.startswith("ours"):
        equal = name.startswith("ours-equal")
        parser = ours.config("unet3d", size="full" if equal else name.split("-")[1])
        if equal:
            parser["sizes::full"] = ours.NNUNET_SIZE
        parser["precision"] = precision
        network, step = parser.get_parsed_content("network"), ours.step_of(parser, image, target)
    elif name.startswith("nnunet"):
        made = nnunet.trainer(folder, name.split("-")[1], patch)
        network = made.network
        batch: dict[str, Any] = {"data": image}
        scales = made._get_deep_supervision_scales()
        batch["target"] = [target[..., :: round(1 / s[0]), :: round(1 / s[1]), :: round(1 / s[2])] for s in scales]

        def step() -> None:
            with autocast:
                made.train_step(batch)
    else:
        network, loss = zoo.network(), zoo.loss()
        adam, _ = zoo.optimiser(network, 1)

        def step() -> None:
            adam.zero_grad()
            with autocast:
                value = loss(network(image).float(), target)
            value.backward()
            adam.step()

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(image[:1])
    network.train()
    told = {"parameters": ours.parameters_of(network), "operations": counter.get_total_flops() / 2e9}
    serve(lambda: step() or told)


def measure(
    data: str,
    cohort: str = "brats2018",
    work: str = nnunet.WORK,
    patches: Sequence[int] = (96, 128),
    rounds: int = 5,
    sides: Sequence[str] = (),
) -> None:
    """Measure all sides, or those named, and keep a table a patch size."""
    folder = nnunet.home(work)
    nnunet.ready(folder, cases_of(cohort, data), cohort_named(cohort).label_values)
    for patch in patches:
        chosen = list(dict.fromkeys([BASE, *(sides or sides_here())]))  # the others are told beside it
        tell(patch, rounds, take_turns("benchmarks.training_step", chosen, rounds, work, patch))


def tell(patch: int, rounds: int, told: Mapping[str, Mapping[str, list]]) -> None:
    """Keep the table of a patch size."""
    peer = told[BASE]
    for name in (name for name in told if name.startswith("ours-equal")):
        for what, tolerance in (("parameters", 0.05), ("operations", 0.10)):
            apart = abs(told[name][what][0] / peer[what][0] - 1)
            assert apart <= tolerance, f"the {what} of {SIDES[name]} are {apart:.0%} from nnU-Net's: not the same work"
    rows = [
        {
            "side": title,
            "precision": precision_of(name),
            "parameters, M": f"{told[name]['parameters'][0]:.1f}",
            "multiply-adds, G": f"{told[name]['operations'][0]:.0f}",
            "seconds a step": seconds_text(told[name]["seconds"]),
            "of nnU-Net's": ratio_of(told[name]["seconds"], peer["seconds"]),
            "peak GB": f"{told[name]['peak_gb'][0]:.1f}",
        }
        for name, title in SIDES.items()
        if name in told
    ]
    about = (
        f"Patch {patch}³, batch 2, {cores()} threads, {rounds} rounds. Those of nnU-Net's size are held to its "
        "parameters (5%) and multiply-adds (10%). The peers' trainers compute in float32 on a CPU: `of nnU-Net's` is "
        "against that. Forward, loss, backward, clipped step; no augmentation."
    )
    title = f"A training step, {patch}³"
    results.keep(f"training_step-{patch}", title, about, rows, ["torch", "monai", "nnunetv2"])


if __name__ == "__main__":
    fire.Fire({"side": side} if sys.argv[1:2] == ["side"] else measure)
