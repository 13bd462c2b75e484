"""Time and peak memory of a training step with batch size 2, in the trainer of each side.

python -m benchmarks.training_step --data DIR [--cohort brats2018] [--work DIR] [--patches "(96, 128)"]
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from tumour.processes import cores
from tumour.runs.inferers import best_precision

from benchmarks import nnunet, ours, results, zoo
from benchmarks.machine import seconds_text
from benchmarks.patients import cases_of
from benchmarks.sides import command_line, ratio_of, serve, take_turns
from tools.cohorts import cohort_named

SIDES = {
    "ours-equal": "ours (`unet3d`), nnU-Net's size",
    "nnunet-plain": "nnU-Net, PlainConvUNet",
    "nnunet-resenc": "nnU-Net, ResEncUNet M",
    "zoo": "model zoo, SegResNet",
    "ours-full": "ours (`unet3d`), size full",
    "ours-fast": "ours (`unet3d`), size fast",
    "ours-equal-bfloat16": "ours (`unet3d`), nnU-Net's size",
    "nnunet-plain-bfloat16": "nnU-Net, PlainConvUNet, with autocast, which its trainer uses only on a GPU",
    "zoo-bfloat16": "model zoo, SegResNet, with autocast",
    "ours-full-bfloat16": "ours (`unet3d`), size full",
    "ours-fast-bfloat16": "ours (`unet3d`), size fast",
}
BASE = "nnunet-plain"


def sides_here() -> list[str]:
    """All sides, or only those in float32 if the processor does not support bfloat16."""
    return [name for name in SIDES if best_precision("cpu") == "bfloat16" or not name.endswith("bfloat16")]


def precision_of(name: str) -> str:
    return "bfloat16" if name.endswith("bfloat16") else "float32"


def side(name: str, work: str, patch: int) -> None:
    """One step per turn; returns parameters and multiply-adds of the network."""
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
        adam = zoo.optimiser(network)

        def step() -> None:
            adam.zero_grad()
            with autocast:
                value = loss(network(image).float(), target)
            value.backward()
            adam.step()

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(image[:1])
    network.train()
    measured = {"parameters": ours.parameters_of(network), "operations": counter.get_total_flops() / 2e9}
    serve(lambda: step() or measured)


def measure(
    data: str,
    cohort: str = "brats2018",
    work: str = nnunet.WORK,
    patches: Sequence[int] = (96, 128),
    rounds: int = 5,
    sides: Sequence[str] = (),
) -> None:
    """Measure all or the given sides, and write one table per patch size."""
    folder = nnunet.home(work)
    nnunet.ready(folder, cases_of(cohort, data), cohort_named(cohort).label_values)
    for patch in patches:
        chosen = list(dict.fromkeys([BASE, *(sides or sides_here())]))  # the base of the ratios
        write_table(patch, rounds, take_turns("benchmarks.training_step", chosen, rounds, work, patch))


def write_table(patch: int, rounds: int, measured: Mapping[str, Mapping[str, list]]) -> None:
    """Write the table of a patch size."""
    base = measured[BASE]
    for name in (name for name in measured if name.startswith("ours-equal")):
        for what, tolerance in (("parameters", 0.05), ("operations", 0.10)):
            difference = abs(measured[name][what][0] / base[what][0] - 1)
            assert difference <= tolerance, f"the {what} of {SIDES[name]} differ from nnU-Net's by {difference:.0%}"
    rows = [
        {
            "side": title,
            "precision": precision_of(name),
            "parameters, M": f"{measured[name]['parameters'][0]:.1f}",
            "multiply-adds, G": f"{measured[name]['operations'][0]:.0f}",
            "seconds per step": seconds_text(measured[name]["seconds"]),
            "ratio to nnU-Net": ratio_of(measured[name]["seconds"], base["seconds"]),
            "peak GB": f"{measured[name]['peak_gb'][-1]:.1f}",
        }
        for name, title in SIDES.items()
        if name in measured
    ]
    about = (
        f"Patch {patch}³, batch 2, {cores()} threads, {rounds} rounds. Networks of nnU-Net's size have its "
        "parameters (within 5%) and multiply-adds (within 10%). nnU-Net's trainer computes in float32 on a CPU, which "
        "is the base of the ratio. Forward pass, loss, backward pass and clipped step, without augmentation."
    )
    title = f"A training step, {patch}³"
    results.keep(f"training_step-{patch}", title, about, rows, ["torch", "monai", "nnunetv2"])


if __name__ == "__main__":
    command_line(measure, side)
