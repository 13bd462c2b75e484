"""Pack a bundle in the model zoo format: `python -m tools.release.pack [BUNDLE]` writes `dist/<name>_v<version>.zip`.

A release is flat JSON with its own copy of the modules that its configs name; it needs nothing of this repository.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser
from monai.bundle.properties import InferProperties, TrainProperties
from monai.bundle.reference_resolver import ReferenceResolver
from monai.bundle.utils import merge_kv
from monai.utils import BundlePropertyConfig

from tools.release.card import card, scored
from tools.show import merged
from tumour.errors import InputError, command_line
from tumour.files import whole
from tumour.runs.checkpoints import SETTINGS, fill, read_checkpoint, settings_of

ROOT = Path(__file__).parents[2]
COMMON = ROOT / "bundles" / "common"
PACKAGES = ("custom_components", "tumour")  # the Python that travels
WORKFLOWS = {"train": "training", "evaluate": "evaluating", "inference": "inferring"}  # file: run id
LOOKED_UP = {
    "train": TrainProperties,
    "evaluate": {},
    "inference": InferProperties,
}  # evaluate.json lies over train.json
NAMED = {"necrotic": "necrotic core", "enhancing": "enhancing tumour", "cavity": "resection cavity"}  # in metadata.json
LARGE = 25 * 2**20  # bytes; the zoo wants larger files behind a URL


def bundles() -> list[str]:
    """The names of all bundles."""
    return sorted(path.parent.name for path in ROOT.glob("bundles/*/args.yaml"))


def reached(config: Mapping[str, Any], roots: Iterable[str]) -> dict[str, Any]:
    """The part of a config that the roots refer to, however far; in the config's order."""
    kept: set[str] = set()
    queue = [root for root in roots if root in config]
    while queue:
        key = queue.pop()
        if key not in kept:
            kept.add(key)
            named = (name.split("::")[0] for name in ReferenceResolver.find_refs_in_config(config[key], key))
            queue += [name for name in named if name in config]
    return {key: value for key, value in config.items() if key in kept}


def workflow(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The config of one workflow, complete alone, with the run id `run` that zoo tools call."""
    looked_up = [prop[BundlePropertyConfig.ID].split("::")[0] for prop in LOOKED_UP[name].values()]
    run_id = WORKFLOWS[name]
    always = ["imports", "bundle_root", "dataset_dir", "device", "network_def", "initialize"]
    return reached(config, [*always, *looked_up, run_id]) | {"run": config[run_id]}


def configs(bundle: str, settings: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """All config files of a release, by name: the workflows, the overlays of common/ and the recipes.

    Args:
        bundle: a folder of bundles/.
        settings: those that the weights were trained with; its network and data set become the default.
    """
    with contextlib.chdir(ROOT):
        config = merged(f"bundles/{bundle}/args.yaml", without=["report"]).get()  # it needs libraries of its own
    shape = {name: value for name, value in (settings or {}).items() if name in ("size", "modalities", "cohort")}
    config = {**config, **shape, "bundle_root": "."}
    # `run` puts the folder on the path only after `initialize`, and only as it is spelt
    config["imports"] = [*config["imports"], "$import os", "$import sys"]
    config["initialize"] = ["$sys.path.insert(0, os.path.abspath(@bundle_root))", *config["initialize"]]
    files = {name: workflow(config, name) for name in WORKFLOWS}
    for name in ("multi_gpu_train", "multi_gpu_evaluate", "inference_trt"):
        files[name] = yaml.safe_load((COMMON / f"{name}.yaml").read_text(encoding="utf-8"))
    return files | {path.stem: recipe(config, path) for path in sorted(COMMON.glob("recipes/*.yaml"))}


def recipe(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A recipe with every value that it touches whole, so that it lies over each workflow, whatever that has of it."""
    parser = ConfigParser(copy.deepcopy(dict(config)))
    overlay = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in overlay.items():
        merge_kv(parser, key, value)
    return {key: parser[key] for key in dict.fromkeys(re.split("::|#", key.lstrip("+"))[0] for key in overlay)}


def metadata(bundle: str) -> dict[str, Any]:
    """What the four have in common and what this one says of itself, which goes first."""
    own, common = (json.loads(p.read_text(encoding="utf-8")) for p in (own_metadata(bundle), COMMON / "metadata.json"))
    return {"schema": common["schema"]} | own | {key: value for key, value in common.items() if key not in own}


def with_channels(formats: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The `network_data_format` of the metadata, with the channels and label values of a config."""
    parser = ConfigParser(copy.deepcopy(dict(config)))
    names = ("modalities", "head", "label_values", "classes")
    modalities, head, values, classes = (parser.get_parsed_content(name) for name in names)
    labels = {str(value): NAMED.get(name, name) for value, name in sorted(zip(values, classes, strict=True))}
    inputs = {"num_channels": len(modalities), "channel_def": {str(n): name for n, name in enumerate(modalities)}}
    of: dict[str, dict[str, dict[str, Any]]] = {
        "inputs": {"image": inputs},
        "outputs": {"pred": {"num_channels": len(head["channels"]), "channel_def": labels}},
        "post_processed_outputs": {"pred": {"value_range": [0, max(values)], "channel_def": labels}},
    }
    return {part: {name: told | of[part][name] for name, told in its.items()} for part, its in formats.items()}


def own_metadata(bundle: str) -> Path:
    """The file with a variant's name, version and results."""
    path = ROOT / "bundles" / bundle / "configs" / "metadata.json"
    if not path.is_file():
        raise InputError(f"BUNDLE must be all or one of {', '.join(bundles())}; it is '{bundle}'.")
    return path


def trained(path: Path, url: str) -> dict[str, bytes]:
    """The files that bring the weights: `model.pt`, or its URL and hash; and what is recorded beside it."""
    content = path.read_bytes()
    if not url and len(content) > LARGE:
        size = len(content) / 2**20
        raise InputError(f"'{path}' has {size:.0f} MB, over 25: upload it and give its address by URL=.")
    entry = {"path": "models/model.pt", "url": url}
    entry |= {"hash_val": hashlib.sha256(content).hexdigest(), "hash_type": "sha256"}
    large_files = yaml.safe_dump({"large_files": [entry]}, sort_keys=False).encode()
    files = {"large_files.yml": large_files} if url else {"models/model.pt": content}
    # whom not to test on, how it was made, how it scored
    beside = ("patients.json", "settings.json", "scores.json", "after_treatment.json")
    records = {f"models/{name}": path.with_name(name) for name in beside}
    return files | {name: record.read_bytes() for name, record in records.items() if record.is_file()}


def checkpoint_of(bundle: str) -> Path:
    """Where a bundle's weights lie: those of the user's own training, else those that this repository brings."""
    own, brought = (ROOT / "bundles" / bundle / folder / "model.pt" for folder in ("models", "weights"))
    return brought if brought.is_file() and not own.is_file() else own


def require_fit(bundle: str, checkpoint: Path) -> None:
    """Refuse weights of another network than a release of the bundle would make.

    Raises:
        InputError: they are, as where `network_def` was set on the command line; or they are not whole.
    """
    config = configs(bundle, settings_of(str(checkpoint.parent)))["inference"]
    weights = read_checkpoint(checkpoint)
    try:
        fill(ConfigParser(config).get_parsed_content("network_def"), weights, checkpoint)
    except InputError as error:
        rest = f"what else you set must stand in bundles/{bundle}/configs/train.yaml"
        raise InputError(f"{error} A release takes size and modalities from {SETTINGS} beside it; {rest}.") from error


def content(bundle: str, checkpoint: Path | None = None, url: str = "") -> dict[str, bytes]:
    """All files of a release, by their path below the bundle's folder; without a checkpoint it has no weights."""
    network = trained(checkpoint, url) if checkpoint else {}
    settings = json.loads(network.get("models/settings.json", b"{}"))  # else its network would not fit its weights
    measured = {"eval_metrics": scored(checkpoint)} if checkpoint else {}
    told, texts = metadata(bundle) | measured, configs(bundle, settings)
    told["network_data_format"] = with_channels(told["network_data_format"], texts["inference"])
    texts = {"metadata": told} | texts
    files = {f"configs/{name}.json": json.dumps(text, indent=4).encode() + b"\n" for name, text in texts.items()}
    copied = {"LICENSE": ROOT / "LICENSE", "configs/logging.conf": COMMON / "logging.conf"}
    copied["docs/data_license.txt"] = COMMON / "data_license.txt"
    sources = [path for package in PACKAGES for path in sorted(ROOT.glob(f"{package}/**/*.py"))]
    copied |= {path.relative_to(ROOT).as_posix(): path for path in sources}
    files |= {name: path.read_bytes() for name, path in copied.items()} | network
    state = "linked" if url else "shipped" if network else "none"
    return files | {"docs/README.md": card(bundle, state, texts["inference"], checkpoint).encode()}


def pack(bundle: str, output: str | Path = "dist", checkpoint: Path | None = None, url: str = "") -> Path:
    """Write the zip of one bundle: the same files give the same bytes, on any day."""
    files = content(bundle, checkpoint, url)
    target = Path(output) / f"{bundle}_v{metadata(bundle)['version']}.zip"
    with whole(target) as part, zipfile.ZipFile(part, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"{bundle}/{name}")  # dated 1980
            entry.create_system, entry.external_attr, entry.compress_type = 3, 0o644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name], compresslevel=9)
    return target


def release(bundle: str = "all", output: str = "dist", weights: str = "", url: str = "") -> None:
    """Pack one bundle, or all.

    Args:
        bundle: a folder of bundles/, or all.
        output: folder for the zips.
        weights: the checkpoint to ship; default: that of `checkpoint_of`, if it is there.
        url: where the weights will be uploaded, if they are not to lie in the zip.
    """
    if bundle == "all" and (weights or url):
        raise InputError("Weights belong to one bundle; name it by BUNDLE=.")
    for name in bundles() if bundle == "all" else [bundle]:
        checkpoint = Path(weights) if weights else checkpoint_of(name)
        there = checkpoint.is_file()
        if (weights or url) and not there:
            raise InputError(f"'{checkpoint}' is not there; train first or name the checkpoint by WEIGHTS=.")
        if there:
            require_fit(name, checkpoint)
        path = pack(name, output, checkpoint if there else None, url)
        size, sha256 = path.stat().st_size / 1e6, hashlib.sha256(path.read_bytes()).hexdigest()
        print(f"{path}  {size:.1f} MB  sha256 {sha256}  weights {checkpoint if there else 'none'}")


def main() -> None:
    command_line(release, "tools.release.pack")


if __name__ == "__main__":
    main()
