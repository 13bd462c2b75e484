"""The options of a trial, read from a YAML file."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from tumour.errors import InputError, nearest


@dataclass(frozen=True)
class Trial:
    """How a network is built and trained; the defaults are those of the bundles on a GPU with small patches.

    Args:
        bundle: the folder in bundles/.
        norm: batch or instance.
        size: fast or full.
        head: regions or classes.
        patch: side length of a patch in voxels.
        batch: patches per step.
        lr, decay: learning rate and weight decay.
        rate: steps per step of a trial with rate 1, for trials with equal time or voxels.
        seed: of the weights.
        data: z for z-scores, robust for median and interquartile range.
        diff: whether T1ce - T1 is one more channel.
        deep: whether two coarser levels of the decoder are trained too (deep supervision).
        affine, transplant, cutmix, lowres, drop: the probability of each augmentation; drop is that of a channel.
        wide: factor for the probabilities of the intensity augmentation and for the range of the brightness.
    """

    bundle: str = "resunet"
    norm: str = "batch"
    size: str = "fast"
    head: str = "regions"
    patch: int = 96
    batch: int = 2
    lr: float = 0.003
    decay: float = 0.01
    rate: float = 1.0
    seed: int = 0
    data: str = "z"
    diff: bool = False
    deep: bool = False
    affine: float = 0.3
    transplant: float = 0.0
    cutmix: float = 0.0
    lowres: float = 0.0
    drop: float = 0.0
    wide: float = 1.0


CHOICES = {"norm": ("batch", "instance"), "head": ("regions", "classes"), "data": ("z", "robust")}


def read_trials(path: str) -> dict[str, Trial]:
    """The trials of a file: `trials` has the options of each by its name, `all` those that they have in common.

    Raises:
        InputError: there is no such file, or an option is unknown or has a value of another type.
    """
    if not Path(path).is_file():
        raise InputError(f"trials '{path}' does not exist; give a YAML file like benchmarks/many_networks/trials.yaml.")
    content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    return {name: trial_of(name, {**content.get("all", {}), **own}) for name, own in content["trials"].items()}


def trial_of(name: str, options: Mapping[str, Any]) -> Trial:
    """One trial from its options; the name is for the error message."""
    types: dict[str, Any] = {field.name: field.type for field in fields(Trial)}
    for option, value in options.items():
        if option not in types:
            raise InputError(f"Trial '{name}' has an unknown option '{option}'{nearest(option, types)}.")
        kind = types[option]
        if not (type(value) is kind or (kind is float and type(value) is int)):
            raise InputError(f"{option} of trial '{name}' must be of type {kind.__name__}; it is {value!r}.")
        if value not in CHOICES.get(option, (value,)):
            raise InputError(f"{option} of trial '{name}' must be {' or '.join(CHOICES[option])}; it is {value!r}.")
    return Trial(**options)
