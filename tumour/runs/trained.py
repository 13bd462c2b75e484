"""What gives trained weights their meaning: recorded next to them, and taken from there by the runs that use them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from tumour.checks.strangers import widest
from tumour.cohort import Cohort
from tumour.errors import InputError, OptionError
from tumour.records import read_json
from tumour.runs.options import fits, wanted
from tumour.runs.reading import READING, require_same_reading

SETTINGS = "settings.json"
RULES: dict[str, dict[str, Any]] = {  # settings that a run takes from the record, with the ranges of settings.yaml
    "cohort": {"type": "name"},
    "modalities": {"type": "list of names"},
    "size": {"type": "name"},
    "norm": {"type": "name", "choices": ["batch", "instance"]},
    "activation": {"type": "name", "choices": ["sigmoid", "softmax"]},
    "spacing": {"type": "list of numbers", "length": 3, "min": 0.1, "max": 10},
    "resize": {"type": "list of integers", "min": 16},
    "patch_size": {"type": "list of integers", "length": 3, "min": 16},
    "window": {"type": "list of integers", "length": 3, "min": 16},
    "modality_dropout": {"type": "number", "min": 0, "max": 1},
}
NAMES = dict.fromkeys(("layers", "trained_on"), {"type": "list of names"})  # not taken over by a run
COMPARED = ("size", "modalities", "spacing", "resize", "normalisation", "patch_size", "window", "norm")
VERSION_0_1 = {"size": "fast", "patch_size": [96, 96, 96], "norm": "instance"}  # of weights that did not record it
NO_MEANING = ("Dropout", "Identity", "Sequential", "ModuleList", "ModuleDict")  # in a trained network


def settings_of(folder: str) -> dict[str, Any]:
    """The settings recorded next to the weights in a folder; empty if there is no record.

    Other names are not checked: only resuming compares them, or a later version wrote them.

    Raises:
        InputError: the file is no JSON object, or a setting is not of its type or out of its range.
    """
    path = Path(folder, SETTINGS)
    if not path.is_file():
        return {}
    settings = read_json(
        path, {"channels?": {str: [str]}, "normalisation?": {str: bool}, "members?": [str], "reading?": (None, READING)}
    )
    for name, rule in (RULES | NAMES).items():
        if name in settings and not fits(settings[name], rule):
            raise InputError(f"{name} in '{path}' must be {wanted(rule)}; it is {settings[name]!r}.")
    seen, pair = settings.get("seen", {}), {"type": "list of numbers", "length": 2}
    if not isinstance(seen, dict) or not all(fits(limits, pair) for limits in seen.values()):
        raise InputError(f"seen in '{path}' must be two numbers by name; it is {seen!r}.")
    return settings


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A record with what version 0.1.0 used and did not record; empty if there is no record."""
    return {**VERSION_0_1, **settings} if settings else {}


def settings_to_use(defaults: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """The settings that a run starts from: those of the weights in a folder, else the defaults.

    Args:
        defaults: the settings of a new training.
        folder: folder of the weights; empty for a training, which does not depend on what its folder contains.

    Raises:
        InputError: the record next to the weights is damaged.
    """
    if not folder:
        return dict(defaults)
    return {**VERSION_0_1, **defaults, **completed(settings_of(folder))}


def history_of(*records: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of all patients that weights were trained on, from the records of each training.

    Returns:
        `seen`, the range of each measure, and `trained_on`, the names of the data sets; empty if not recorded.
    """
    names = [name for each in records for name in each.get("trained_on", [each.get("cohort")]) if name]
    return {"seen": widest(each.get("seen", {}) for each in records), "trained_on": list(dict.fromkeys(names))}


def history_next_to(checkpoint: str | Path) -> dict[str, Any]:
    """The history of the weights in a file, by `history_of`; that of random weights without a file."""
    return history_of(settings_of(str(Path(checkpoint).parent)) if checkpoint else {})


def layer_types(network: nn.Module) -> list[str]:
    """The types of a network's layers: its own, and norms and activations, which may have no weights."""
    names = {type(module).__name__ for module in network.modules()}
    return sorted(name for name in names if not name.startswith(NO_MEANING))


def require_same(
    settings: Mapping[str, Any],
    cohorts: Mapping[str, Cohort],
    network: nn.Module,
    path: Path,
    given_by: str = "ckpt_dir",
) -> None:
    """Refuse settings that contradict those that weights were trained with; what is not recorded may have any value.

    Args:
        settings: `recorded` of the config of this run.
        cohorts: all cohorts by name.
        network: the network that the weights will be loaded into.
        path: the file of the weights.
        given_by: the setting that names their folder.

    Raises:
        InputError: a setting differs; the message names it, both values and how to fix it.
    """
    trained, now = settings_of(str(path.parent)), json.loads(json.dumps(settings))
    for name in COMPARED:
        if name in trained and trained[name] != now[name]:
            raise OptionError(
                f"{name} is {now[name]}, but '{path}' was trained with {name} {trained[name]}; leave --{name} out and "
                f"give --{given_by} '{path.parent}'."
            )
    require_same_channels(trained, now, cohorts, path)
    require_same_reading(trained.get("reading"), now.get("reading"), path)
    types = layer_types(network)
    if trained.get("layers", types) != types:
        sides = {"only now": {*types} - {*trained["layers"]}, "only in training": {*trained["layers"]} - {*types}}
        differ = ", ".join(f"{', '.join(sorted(names))} {when}" for when, names in sides.items() if names)
        raise OptionError(
            f"network_def differs from that of '{path}', {differ}; give the bundle, the recipe and the options "
            "--network_def that it was trained with."
        )


def require_same_channels(
    trained: Mapping[str, Any], now: Mapping[str, Any], cohorts: Mapping[str, Cohort], path: Path
) -> None:
    """Refuse a cohort or a head with other outputs, also in another order, than the weights were trained for."""
    activation = trained.get("activation", now["activation"])
    before = trained.get("channels")
    if before is None and trained.get("cohort") in cohorts:  # of version 0.1.0
        before = channels_of(cohorts[trained["cohort"]], activation)
        now = {**now, "channels": channels_of(cohorts[now["cohort"]], now["activation"])}
    if before is None or (activation == now["activation"] and [*before.items()] == [*now["channels"].items()]):
        return
    outputs = {name: channels_of(cohort, activation) for name, cohort in cohorts.items()}
    fitting = [name for name, each in outputs.items() if [*each.items()] == [*before.items()]]
    setting, fix = "head", "leave --head out, or give the recipe or head that it was trained with"
    if fitting and now["cohort"] not in fitting:
        setting, fix = f"cohort {now['cohort']}", f"give one of the cohorts that fit: {', '.join(fitting)}"
    raise OptionError(
        f"{setting} means the outputs {', '.join(now['channels'])} ({now['activation']}), but '{path}' was trained for "
        f"{', '.join(before)} ({activation}); {fix}."
    )


def channels_of(cohort: Cohort, activation: str) -> dict[str, list[str]]:
    """The outputs of a network for a cohort: its regions by sigmoid, or its classes by softmax."""
    if activation == "sigmoid":
        return {name: list(members) for name, members in cohort.regions.items()}
    return {name: [name] for name in cohort.classes}
