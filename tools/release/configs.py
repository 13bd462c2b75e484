"""The configs of a release: a bundle's layers as flat JSON, one file per workflow."""

import contextlib
import copy
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser
from monai.bundle.properties import InferProperties, TrainProperties
from monai.bundle.reference_resolver import ReferenceResolver
from monai.bundle.utils import merge_kv
from monai.utils import BundlePropertyConfig
from tumour.errors import InputError, one_of
from tumour.runs.trained import RULES, SETTINGS, completed

from tools.bundles import COMMON, ROOT, folder_of
from tools.show import merged

WORKFLOWS = {  # run ids by file; the first one is also its `run`
    "train": ["training"],
    "evaluate": ["evaluating"],
    "inference": ["inferring"],
    "prepare": ["segmenting", "preparing", "returning"],
}
# what zoo tools look up in each file; they merge evaluate.json on top of train.json, so it needs nothing more
PROPERTIES = {"train": TrainProperties, "evaluate": {}, "inference": InferProperties, "prepare": {}}
OVERLAYS = ("augment_on_device", "multi_gpu_train", "multi_gpu_evaluate", "multi_gpu_infer", "inference_trt")


def configs(bundle: str, settings: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """All config files of a release, by name: the workflows, the overlays of common/ and the recipes.

    Args:
        bundle: a folder of bundles/.
        settings: those of the training of the weights, which become the defaults. Those of train.json lack the
            patch size, which a training takes from its device.
    """
    with contextlib.chdir(ROOT):
        config = merged(str(folder_of(bundle) / "args.yaml"), without=["report"]).get()  # it needs tools/
    own = config["defaults"]
    trained = trained_settings(completed(settings or {}), config)
    config = {**config, "bundle_root": ".", "uses_weights": True, "defaults": {**config["defaults"], **trained}}
    # `run` adds the folder to the path only after `initialize`, and only as it was written on the command line
    config["imports"] = [*config["imports"], "$import os", "$import sys"]
    config["initialize"] = ["$sys.path.insert(0, os.path.abspath(str(@bundle_root)))", *config["initialize"]]
    recipes = {path.stem: recipe(config, path) for path in sorted(COMMON.glob("recipes/*.yaml"))}  # train one network
    if members := (settings or {}).get("members"):
        config["network_def"] = ensemble_def(members)
    files = {name: workflow(config, name) for name in WORKFLOWS}
    files["train"]["uses_weights"] = False
    files["train"]["defaults"] = {name: config["defaults"][name] for name in own}
    files |= {name: yaml.safe_load((COMMON / f"{name}.yaml").read_text(encoding="utf-8")) for name in OVERLAYS}
    return files | recipes


def trained_settings(settings: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a training that a run takes from their record, checked against the names that the config knows.

    MONAI evaluates strings of a config that start with `$`, so no other value of `settings.json` may be copied into it.
    """
    found = {name: settings[name] for name in RULES if name in settings}
    named = {**config["defaults"], **found}
    cohort = one_of(config["cohorts"], named["cohort"], f"cohort in {SETTINGS}")
    if "size" in found:
        one_of(config["sizes"], found["size"], f"size in {SETTINGS}")
    known = cohort["channels"] if "channels" in cohort else [name for name in cohort["files"] if name != "label"]
    modalities = found.get("modalities", known)
    if any(name not in known for name in modalities):
        raise InputError(f"modalities in {SETTINGS} must be a list of {', '.join(known)}; it is {modalities!r}.")
    return found


def ensemble_def(members: Any) -> dict[str, Any]:
    """The config of a network that averages those of bundles, given by name; a name that is no bundle is refused."""
    if not isinstance(members, list) or not members:
        raise InputError(f"members in {SETTINGS} must be a list of bundles; it is {members!r}.")
    with contextlib.chdir(ROOT):
        networks = [merged(str(folder_of(str(name)) / "args.yaml"))["network_def"] for name in members]
    average = {"_target_": "custom_components.ensemble.Ensemble", "activation": "$@head['activation']"}
    return {**average, "members": networks}


def workflow(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The config of one workflow, complete on its own, with the run id `run` that zoo tools call."""
    looked_up = [prop[BundlePropertyConfig.ID].split("::")[0] for prop in PROPERTIES[name].values()]
    always = ["settings", "imports", "bundle_root", "dataset_dir", "device", "network_def", "initialize"]
    run_ids = WORKFLOWS[name]
    return reached(config, [*always, *looked_up, *run_ids]) | {"run": config[run_ids[0]]}


def reached(config: Mapping[str, Any], roots: Iterable[str]) -> dict[str, Any]:
    """The part of a config that the roots refer to, directly or through others; in the config's order."""
    kept: set[str] = set()
    queue = [root for root in roots if root in config]
    while queue:
        key = queue.pop()
        if key not in kept:
            kept.add(key)
            references = ReferenceResolver.find_refs_in_config(config[key], key)
            queue += [name for name in (reference.split("::")[0] for reference in references) if name in config]
    return {key: value for key, value in config.items() if key in kept}


def recipe(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A recipe with the complete value of every id that it changes, so that it can be merged on top of any workflow."""
    parser = ConfigParser(copy.deepcopy(dict(config)))
    overlay = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in overlay.items():
        merge_kv(parser, key, value)
    return {key: parser[key] for key in dict.fromkeys(re.split("::|#", key.lstrip("+"))[0] for key in overlay)}
