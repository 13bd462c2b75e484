"""`configs/metadata.json` of a release: the common part, the variant's part, and facts of the configs and scores."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from tumour.scores.evaluation import crossvalidation_of, scores_of

from tools.bundles import COMMON, folder_of
from tools.results import scans

CLASS_NAMES = {
    "necrotic": "necrotic core",
    "enhancing": "enhancing tumour",
    "cavity": "resection cavity",
    "cyst": "cystic component",
}


@dataclass(frozen=True)
class Interface:
    """The input and output of the network of a config."""

    modalities: list[str]
    channels: list[str]  # of the network's output
    overlapping: bool  # the channels overlap (sigmoid), or exclude each other (softmax)
    labels: dict[int, str]  # name of each value in a label map
    spacing: list[float]  # mm, of the network's input
    resize: list[int]  # voxels, of the network's input; empty if it has the size of the scan


def interface(config: Mapping[str, Any]) -> Interface:
    """The input and output of the network of a workflow's config."""
    parser = ConfigParser(copy.deepcopy({**config, "uses_weights": False}))  # its defaults are those of the weights
    cohort = parser.get_parsed_content("cohort_def")
    pairs = sorted(zip(cohort.label_values, cohort.classes, strict=True))
    labels = {value: CLASS_NAMES.get(name, name) for value, name in pairs}
    head = parser.get_parsed_content("head")
    modalities, spacing, resize = map(parser.get_parsed_content, ("modalities", "spacing", "resize"))
    return Interface(modalities, list(head["channels"]), head["activation"] == "sigmoid", labels, spacing, resize)


def metadata(bundle: str) -> dict[str, Any]:
    """The metadata files of the repository: the variant's own first, then the part common to all bundles."""
    own, common = (
        json.loads(path.read_text(encoding="utf-8"))
        for path in (folder_of(bundle) / "configs" / "metadata.json", COMMON / "metadata.json")
    )
    return {"schema": common["schema"]} | own | {key: value for key, value in common.items() if key not in own}


def release_metadata(bundle: str, config: Mapping[str, Any], checkpoint: Path | None = None) -> dict[str, Any]:
    """The complete metadata of a release: the files, the channels of the network, the scores of the weights."""
    written, network = metadata(bundle), interface(config)
    labels = {str(value): name for value, name in network.labels.items()}
    modalities = {str(number): name for number, name in enumerate(network.modalities)}
    formats = copy.deepcopy(written["network_data_format"])
    formats["inputs"]["image"] |= {"num_channels": len(modalities), "channel_def": modalities}
    formats["outputs"]["pred"] |= {"num_channels": len(network.channels), "channel_def": labels}
    formats["post_processed_outputs"]["pred"] |= {"value_range": [0, max(network.labels)], "channel_def": labels}
    kind = "overlapping regions" if network.overlapping else "classes"
    channels = ", ".join(f"channel {number} {name}" for number, name in enumerate(network.channels))
    written |= {"pred_classes": f"logits of {kind}, {channels}, merged to one label map"}
    return written | {"eval_metrics": eval_metrics(checkpoint) if checkpoint else {}, "network_data_format": formats}


def eval_metrics(checkpoint: Path) -> dict[str, dict[str, float]]:
    """The mean scores recorded for a checkpoint and their number of scans, by data set."""
    metrics: dict[str, dict[str, float]] = {}
    crossvalidation = {f"{name}, cross-validation": each for name, each in crossvalidation_of(checkpoint).items()}
    for cohort, record in (scores_of(checkpoint) | crossvalidation).items():
        metrics[cohort] = {"scans": scans(record)}
        for region, scores in record["scores"].items():
            metrics[cohort] |= {f"{metric}_{region}": round(float(of["mean"]), 4) for metric, of in scores.items()}
    return metrics
