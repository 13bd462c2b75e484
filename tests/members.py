"""Checkpoints of networks with random weights, as members of an ensemble."""

import torch
from tumour.files import save_json
from tumour.runs.checkpoints import save_checkpoint, to_float16

from tests.conftest import ROOT
from tools.ensemble import ensemble
from tools.show import merged

SETTINGS = {"cohort": "brats2021", "modalities": ["T1", "T1ce", "T2", "FLAIR"], "size": "fast", "norm": "batch"}


def member(folder, bundle, seed=0, train=(), validate=(), test=(), **settings):
    """The folder of a checkpoint whose label maps contain every class."""
    torch.manual_seed(seed)
    network = merged(str(ROOT / "bundles" / bundle / "args.yaml")).get_parsed_content("network_def")
    torch.nn.init.normal_(network.network.output_block.conv.conv.weight, std=2.0)
    save_checkpoint(to_float16(network.state_dict()), folder / "model.pt")
    save_json(SETTINGS | {"fold": seed, "seed": 0, "test_share": 0.2} | settings, folder / "settings.json")
    save_json({"train": list(train), "validate": list(validate), "test": list(test)}, folder / "patients.json")
    return folder


def ensemble_of(folder, *bundles):
    """The model.pt of an ensemble of networks with random weights, one of each bundle."""
    members = [member(folder / f"member{n}", bundle, seed=n) for n, bundle in enumerate(bundles)]
    ensemble(" ".join(f"'{each}'" for each in members), str(folder / "ensemble"))
    return folder / "ensemble" / "model.pt"
