"""nnU-Net v2: its data set layout, planning and preprocessing, its trainer and its predictor."""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from tumour.cases.case import Case

from benchmarks import ours

WORK = str(Path(tempfile.gettempdir(), "benchmarks"))  # for the files that it prepares
DATASET = "Dataset001_BraTS"
PLANS = {"plain": "nnUNetPlans", "resenc": "nnUNetResEncUNetMPlans"}
LABELS = {"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}  # regions that overlap, as it trains BraTS


def home(work: str, workers: int = 2) -> Path:
    """Set its folders below `work` and its number of workers; call it before nnU-Net is imported."""
    folder = Path(work)
    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(folder / name)
    os.environ |= {"nnUNet_compile": "false", "nnUNet_n_proc_DA": str(workers), "nnUNet_def_n_proc": "2"}
    return folder


def lay_out(folder: Path, cases: Sequence[Case], label_values: Sequence[int]) -> None:
    """Write the raw data set: links to the scans, label maps with consecutive values."""
    raw = folder / "raw" / DATASET
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True, exist_ok=True)
    for case in cases:
        for channel, path in enumerate(case.images):
            link = raw / "imagesTr" / f"{case.name}_{channel:04d}.nii.gz"
            link.unlink(missing_ok=True)
            link.symlink_to(Path(path).resolve())
        label: Any = nib.load(str(case.label))  # type: ignore[attr-defined]
        values = np.searchsorted(label_values, np.asanyarray(label.dataobj)).astype(np.uint8)
        nib.save(nib.Nifti1Image(values, label.affine), raw / "labelsTr" / f"{case.name}.nii.gz")  # type: ignore[attr-defined]
    about = {"channel_names": {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"}, "labels": LABELS}
    about |= {"regions_class_order": [2, 1, 3], "numTraining": len(cases), "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(about), encoding="utf-8")


def prepare(folder: Path, plans: Sequence[str] = ("plain", "resenc")) -> None:
    """Fingerprint, plan and preprocess the raw data set."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    api.extract_fingerprint_dataset(1, num_processes=2, verbose=False, show_progress_bar=False)
    planners = {"plain": "ExperimentPlanner", "resenc": "nnUNetPlannerResEncM"}
    for name in plans:
        api.plan_experiments([1], experiment_planner_class_name=planners[name])
    api.preprocess_dataset(1, PLANS[plans[0]], ["3d_fullres"], num_processes=[2], show_progress_bar=False)


def ready(folder: Path, cases: Sequence[Case], label_values: Sequence[int]) -> None:
    """Write and prepare the data set, unless the folder has it already."""
    done = folder / "ready"
    if not done.is_file():
        lay_out(folder, cases, label_values)
        prepare(folder)
        done.touch()


def trainer(folder: Path, plan: str = "plain", patch: int = 0, train: Sequence[str] = (), network: str = "") -> Any:
    """Its initialised trainer, on a CPU.

    Args:
        folder: prepared by `ready`.
        plan: `plain` or `resenc`.
        patch: side length of the patch; 0 for the planned size.
        train: cases for training; none for all.
        network: one of our networks instead of its own, as `BUNDLE SIZE CHECKPOINT`.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    base = folder / "preprocessed" / DATASET
    plans = json.loads((base / f"{PLANS[plan]}.json").read_text(encoding="utf-8"))
    settings = plans["configurations"]["3d_fullres"]
    settings["data_identifier"] = "nnUNetPlans_3d_fullres"  # both plans share the preprocessed data
    settings["patch_size"] = [patch] * 3 if patch else settings["patch_size"]
    settings["batch_size"] = 2
    if network:
        bundle, size, checkpoint = network.split()
        settings["architecture"] = {
            "network_class_name": "benchmarks.nnunet.our_network",
            "arch_kwargs": {"bundle": bundle, "size": size, "checkpoint": checkpoint},
            "_kw_requires_import": [],
        }
    cases = sorted(path.name[:-7] for path in (folder / "raw" / DATASET / "labelsTr").glob("*.nii.gz"))
    train = list(train or cases)
    (base / "splits_final.json").write_text(json.dumps([{"train": train, "val": train}]), encoding="utf-8")
    plans["continue_training"] = False
    about = json.loads((base / "dataset.json").read_text(encoding="utf-8"))
    made = nnUNetTrainer(plans, "3d_fullres", 0, about, device=torch.device("cpu"))
    if network:
        made.enable_deep_supervision = False
    made.initialize()
    return made


class Turned(torch.nn.Module):
    """Our network for its arrays: (z, y, x) in LPS where ours are (x, y, z) in RAS, with regions WT, TC, ET."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned = self.network(x.permute(0, 1, 4, 3, 2).flip(2, 3).contiguous())
        return turned[:, [1, 0, 2]].flip(2, 3).permute(0, 1, 4, 3, 2)


def our_network(
    input_channels: int, num_classes: int, bundle: str, size: str, checkpoint: str, deep_supervision: bool = False
) -> torch.nn.Module:
    """One of our networks, in the form that its plans refer to."""
    trained: dict[str, Any] = (
        {} if checkpoint == "-" else {"uses_weights": True, "ckpt_dir": str(Path(checkpoint).parent)}
    )
    network = ours.config(bundle, size=size, **trained).get_parsed_content("network_def")
    if checkpoint != "-":
        network.load_state_dict(torch.load(checkpoint, weights_only=True))
    return Turned(network)


def predictor(made: Any) -> Any:
    """Its predictor with the network of a trainer, without mirroring."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    if hasattr(made.network, "decoder"):
        made.set_deep_supervision_enabled(False)
    network = made.network.eval()
    predictor.manual_initialization(
        network,
        made.plans_manager,
        made.configuration_manager,
        [network.state_dict()],
        made.dataset_json,
        "",
        (0, 1, 2),
    )
    return predictor
