"""Seconds for a patch of a real case, read and augmented on one core, when it comes first and later.

python -m benchmarks.loading --data DIR [--cohort brats2018] [--work DIR] [--patch 128]
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from ignite.engine import Events
from tumour.cases.case import Case

from benchmarks import nnunet, ours, results, zoo
from benchmarks.machine import seconds_text
from benchmarks.patients import cases_of, folder_with
from benchmarks.sides import ratio_of, serve, take_turns
from tools.cohorts import cohort_named

SIDES = {
    "ours": "ours",
    "nnunet-same": "nnU-Net's loader and transforms, our list and rates",
    "nnunet": "nnU-Net, its own list",
    "torchio": "TorchIO's queue, our list and rates",
    "zoo": "model zoo's transforms (flips, intensity)",
}
CASES, PATCHES = 2, 12  # in a turn, of each side


def rates() -> dict[str, float]:
    """The probability of each random transform of our config."""
    augment = ours.config("unet3d")["augment"]
    return {step["_target_"]: step["prob"] for step in augment if step["_target_"].startswith("Rand")}


def side(name: str, work: str, cohort: str, data: str, patch: int) -> None:
    """Answer with seconds a patch, later ones and the first of each case."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    folder, cases = nnunet.home(work, workers=0), cases_of(cohort, data)[:CASES]
    make = {"ours": _ours, "nnunet": _nnunet, "nnunet-same": _nnunet, "torchio": _torchio, "zoo": _zoo}[name]

    def work_once() -> dict[str, Any]:
        began = time.perf_counter()
        draw = make(name, folder, cohort, cases, patch)
        for number in range(CASES):
            assert draw(number).shape[-3:] == (patch,) * 3
        first = time.perf_counter() - began
        began = time.perf_counter()
        for number in range(PATCHES):
            draw(number % CASES)
        return {"first": first / CASES, "later": (time.perf_counter() - began) / PATCHES}

    serve(work_once)


def _ours(name: str, folder: Path, cohort: str, cases: list[Case], patch: int) -> Any:
    """The training set of a bundle, kept in memory."""
    parser = ours.config("unet3d", cohort=cohort, patch_size=[patch] * 3, workers=1, dataset_dir="-")
    parser["train::dataset::data"] = cases
    dataset = parser.get_parsed_content("train::dataset")
    return lambda number: dataset[number][0]["image"]


def _nnunet(name: str, folder: Path, cohort: str, cases: list[Case], patch: int) -> Any:
    """Its preprocessed store, made anew from the files, and its loader without workers."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

    few = nnunet.home(str(folder / "few"), workers=0)
    if not (few / "ready").is_file():
        nnunet.lay_out(few, cases, cohort_named(cohort).label_values)
        shutil.copytree(folder / "preprocessed" / nnunet.DATASET, few / "preprocessed" / nnunet.DATASET)
        (few / "ready").touch()
    preprocess_dataset(1, nnunet.PLANS["plain"], ["3d_fullres"], num_processes=[1], show_progress_bar=False)
    made = nnunet.trainer(few, patch=patch)
    rotation, flat, larger, mirror = made.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    if name == "nnunet":
        transforms = made.get_training_transforms(
            made.configuration_manager.patch_size, rotation, made._get_deep_supervision_scales(), mirror, flat,
            use_mask_for_norm=made.configuration_manager.use_mask_for_norm,
            foreground_labels=made.label_manager.foreground_labels, regions=made.label_manager.foreground_regions,
        )  # fmt: skip
    else:
        transforms = _our_list(patch, rotation, made.label_manager.foreground_regions)
    dataset, _ = made.get_tr_and_val_datasets()
    loader = nnUNetDataLoader(
        dataset, 1, larger, made.configuration_manager.patch_size, made.label_manager,
        oversample_foreground_percent=0.75, transforms=transforms,
    )  # fmt: skip
    return lambda number: next(loader)["data"]


def _our_list(patch: int, rotation: Any, regions: Any) -> Any:
    """The transforms of our config by nnU-Net's classes, at our rates."""
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.intensity.contrast import BGContrast
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.random import RandomTransform
    from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
    from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform

    rate = rates()
    alike: Any = {"synchronize_channels": False, "p_per_channel": 1}
    turn = {"p_rotation": rate["RandAffined"], "rotation": rotation}
    turn |= {"p_scaling": rate["RandAffined"], "scaling": (0.7, 1.4)}
    scale, shift = (MultiplicativeBrightnessTransform(BGContrast((1 - by, 1 + by)), **alike) for by in (0.3, 0.1))
    gamma = GammaTransform(BGContrast((0.7, 1.5)), p_invert_image=0, p_retain_stats=1, **alike)
    return ComposeTransforms([
        SpatialTransform((patch,) * 3, 0, False, **turn),
        RandomTransform(GaussianNoiseTransform((0, 0.09), 1, True), rate["RandGaussianNoised"]),
        RandomTransform(GaussianBlurTransform((0.5, 1.0), benchmark=True, **alike), rate["RandGaussianSmoothd"]),
        RandomTransform(scale, rate["RandScaleIntensityd"]),
        RandomTransform(shift, rate["RandShiftIntensityd"]),
        RandomTransform(gamma, rate["RandAdjustContrastd"]),
        MirrorTransform(allowed_axes=(0, 1, 2)),
        RemoveLabelTansform(-1, 0),
        ConvertSegmentationToRegionsTransform(regions=list(regions), channel_in_seg=0),
    ])  # fmt: skip


def _torchio(name: str, folder: Path, cohort: str, cases: list[Case], patch: int) -> Any:
    """Its queue of patches, four of a volume, which is read and augmented whole."""
    import torchio as tio

    rate = rates()
    spread, images = torch.distributions.Uniform, {"types_to_apply": [tio.INTENSITY]}
    transform = tio.Compose([
        tio.CropOrPad(mask_name="brain"),
        tio.ZNormalization(masking_method=lambda x: x > 0),
        tio.RandomAffine(scales=(0.7, 1.4), degrees=30, p=rate["RandAffined"]),
        *[tio.RandomFlip(axes=axis, flip_probability=rate["RandFlipd"]) for axis in range(3)],
        tio.RandomNoise(std=(0, 0.3), p=rate["RandGaussianNoised"]),
        tio.RandomBlur(std=(0.5, 1.0), p=rate["RandGaussianSmoothd"]),
        tio.Lambda(lambda x: x * spread(0.7, 1.3).sample(), **images, p=rate["RandScaleIntensityd"]),
        tio.Lambda(lambda x: x + spread(-0.1, 0.1).sample(), **images, p=rate["RandShiftIntensityd"]),
        tio.RandomGamma(log_gamma=(np.log(0.7), np.log(1.5)), p=rate["RandAdjustContrastd"]),
        tio.CropOrPad(tuple(max(patch, size) for size in (160, 192, 160))),
    ])  # fmt: skip
    subjects = [
        tio.Subject(
            image=tio.ScalarImage(list(case.images)), label=tio.LabelMap(case.label), brain=_brain(folder, case)
        )
        for case in cases
    ]
    queue = tio.Queue(
        tio.SubjectsDataset(subjects, transform=transform), max_length=4 * CASES, samples_per_volume=4,
        sampler=tio.LabelSampler(patch, "label", {0: 0.25, 1: 0.25, 2: 0.25, 4: 0.25}), num_workers=0,
    )  # fmt: skip
    return lambda number: queue[number]["image"][tio.DATA]


def _brain(folder: Path, case: Case) -> Any:
    """Where any modality is not nought; made from the files, as a user of TorchIO would before."""
    import torchio as tio

    image = tio.ScalarImage(case.images[0])
    return tio.LabelMap(tensor=(image.data > 0).to(torch.uint8), affine=image.affine)


def _zoo(name: str, folder: Path, cohort: str, cases: list[Case], patch: int) -> Any:
    """Each case read anew at every visit."""
    dataset = zoo.training_set(cases, patch)
    return lambda number: dataset[number]["image"]


def waiting(data: str, cohort: str, steps: int = 60) -> tuple[float, float]:
    """Of a training at its defaults: the share of the time in which the network waits for data, and seconds a step."""
    with tempfile.TemporaryDirectory() as scratch:
        where = {"ckpt_dir": f"{scratch}/models", "output_dir": f"{scratch}/eval"}
        chosen = folder_with(Path(scratch, "cases"), cases_of(cohort, data)[:8])
        parser = ours.config("neuroseg3d", cohort=cohort, dataset_dir=str(chosen), epochs=1, val_interval=2, **where)
        parser["iterations_per_epoch"] = steps
        trainer = parser.get_parsed_content("train::trainer")
        clock = {"waited": 0.0, "asked": 0.0, "began": 0.0}

        @trainer.on(Events.GET_BATCH_STARTED)
        def ask() -> None:
            clock["asked"] = time.perf_counter()

        @trainer.on(Events.GET_BATCH_COMPLETED)
        def come() -> None:
            if trainer.state.iteration >= 5:  # what the first steps set up is there
                clock["began"] = clock["began"] or clock["asked"]
                clock["waited"] += time.perf_counter() - clock["asked"]

        trainer.run()
        seconds = time.perf_counter() - clock["began"]
        return clock["waited"] / seconds, seconds / (steps - 5)


def measure(data: str, cohort: str = "brats2018", work: str = nnunet.WORK, patch: int = 128, rounds: int = 5) -> None:
    """Measure all sides and keep the table."""
    folder = nnunet.home(work)
    nnunet.ready(folder, cases_of(cohort, data), cohort_named(cohort).label_values)
    told = take_turns("benchmarks.loading", list(SIDES), rounds, work, cohort, data, patch)
    rows = [
        {
            "side": title,
            "first, s": seconds_text(told[name]["first"]),
            "of ours": ratio_of(told[name]["first"], told["ours"]["first"]),
            "later, s": seconds_text(told[name]["later"]),
            "of ours, later": ratio_of(told[name]["later"], told["ours"]["later"]),
            "peak GB": f"{told[name]['peak_gb'][0]:.1f}",
        }
        for name, title in SIDES.items()
    ]
    share, step = waiting(data, cohort)
    about = (
        f"Patch {patch}³ of {CASES} real cases, one core, no workers, {rounds} rounds. *First*: the case is read "
        "from its NIfTI files (by nnU-Net: preprocessed into its store by a worker process, whose start counts), then "
        f"a patch is cut and augmented. *Later*: {PATCHES} more patches, from our cache in memory, nnU-Net's store, "
        "TorchIO's queue of four patches a volume (whose volumes are read and augmented whole again), the zoo's "
        "files. In a training at our defaults (`neuroseg3d`, 60 steps) the network waits for patches for "
        f"{share:.1%} of the time; a step takes {step:.2f} s, data and all. The zoo checks nothing and keeps nothing."
    )
    results.keep(
        "loading",
        "Reading and augmenting a patch",
        about,
        rows,
        ["torch", "monai", "nnunetv2", "batchgeneratorsv2", "torchio"],
    )


if __name__ == "__main__":
    fire.Fire({"side": side} if sys.argv[1:2] == ["side"] else measure)
