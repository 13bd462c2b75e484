"""Time and peak memory to segment a real scan, from NIfTI files to a NIfTI label map.

python -m benchmarks.inference --data DIR [--cohort brats2018] [--work DIR] [--checkpoint model.pt of unet3d]
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.bundle import ConfigParser
from tumour.processes import cores
from tumour.runs.inferers import best_precision

from benchmarks import nnunet, ours, results, zoo
from benchmarks.machine import seconds_text
from benchmarks.patients import cases_of, folder_with
from benchmarks.sides import command_line, ratio_of, serve, take_turns
from tools.cohorts import cohort_named

SIDES = {
    "ours": "ours (`unet3d`, size fast)",
    "ours-float32": "ours in float32",
    "nnunet-ours": "nnU-Net's predictor, the same network, weights, 96³ windows",
    "nnunet-own": "nnU-Net's predictor, its PlainConvUNet, its 128³ windows",
    "zoo": "model zoo, SegResNet, one 240 x 240 x 160 window",
}
PATCH = 96
CHECKPOINT = "bundles/unet3d/weights/model.pt"


def segmenting(scans: Path, target: Path, cohort: str, checkpoint: str = CHECKPOINT, **settings: Any) -> ConfigParser:
    """Our config to segment all scans of a folder; the label maps are written to `target`."""
    where = {"dataset_dir": str(scans), "segmentations": str(target), "output_dir": str(target.parent / "eval")}
    trained: dict[str, Any] = {"uses_weights": True, "ckpt_dir": str(Path(checkpoint).parent)}
    return ours.config("unet3d", cohort=cohort, patch_size=[PATCH] * 3, **where, **trained, **settings)


def side(name: str, work: str, cohort: str, data: str, checkpoint: str, case: str) -> None:
    """Segment one scan per turn."""
    folder = nnunet.home(work, workers=0)
    (chosen,) = [each for each in cases_of(cohort, data) if each.name == case]
    target = folder / "segmented" / name
    target.mkdir(parents=True, exist_ok=True)
    if name.startswith("ours"):
        scans = folder / "scan" / case
        settings = {"precision": "float32"} if name == "ours-float32" else {}
        ours_evaluator = segmenting(scans, target, cohort, checkpoint, **settings).get_parsed_content("evaluator")
        serve(lambda: ours_evaluator.run())
    elif name == "zoo":
        network = zoo.network().eval()
        serve(lambda: zoo.segment(network, chosen, zoo.WINDOW, target / f"{case}.nii.gz"))
    else:
        same = f"unet3d fast {checkpoint}" if name == "nnunet-ours" else ""
        made = nnunet.trainer(folder, patch=PATCH if same else 0, network=same)
        predictor = nnunet.predictor(made)
        output = [str(target / case)]
        serve(lambda: predictor.predict_from_files_sequential([list(chosen.images)], output))


def agreement(work: str, case: str, cohort: str) -> float:
    """The fraction of voxels with the same label in our map and in that of nnU-Net's predictor with our network."""
    values = cohort_named(cohort).label_values
    own, other = (
        np.asanyarray(nib.load(Path(work, "segmented", name, f"{case}.nii.gz")).dataobj)  # type: ignore[attr-defined]
        for name in ("ours", "nnunet-ours")
    )
    return float((np.searchsorted(values, own) == other).mean())


def measure(
    data: str,
    cohort: str = "brats2018",
    work: str = nnunet.WORK,
    checkpoint: str = CHECKPOINT,
    rounds: int = 5,
    sides: Sequence[str] = tuple(SIDES),
) -> None:
    """Measure the sides on the first patient and write the table."""
    folder, cases = nnunet.home(work), cases_of(cohort, data)
    sides = list(dict.fromkeys(["ours", *sides]))  # the base of the ratios
    nnunet.ready(folder, cases, cohort_named(cohort).label_values)
    case = cases[0].name
    folder_with(folder / "scan" / case, cases[:1])
    measured = take_turns("benchmarks.inference", sides, rounds, work, cohort, data, checkpoint, case)
    rows = [
        {
            "side": title,
            "seconds per scan": seconds_text(measured[name]["seconds"]),
            "ratio to ours": ratio_of(measured[name]["seconds"], measured["ours"]["seconds"]),
            "peak GB": f"{measured[name]['peak_gb'][-1]:.1f}",
        }
        for name, title in SIDES.items()
        if name in sides
    ]
    about = (
        f"One real scan (240 x 240 x 155), overlap 0.5, no mirroring, {cores()} threads, {rounds} rounds, without "
        f"starting Python and building the network. Ours computes in {best_precision('cpu')} here; the other tools "
        "support only float32 on a CPU. The networks of the other tools are untrained, which does not change the time."
    )
    if "nnunet-ours" in sides:
        about += (
            " nnU-Net's predictor with the same network, weights and windows predicts the same label as ours in "
            f"{agreement(work, case, cohort):.4%} of the voxels."
        )
    results.keep("inference", "Segmenting a scan, from file to file", about, rows, ["torch", "monai", "nnunetv2"])


if __name__ == "__main__":
    command_line(measure, side)
