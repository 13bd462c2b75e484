"""Our side: parts of the config of a bundle, built as by `monai.bundle run`."""

from typing import Any

import torch
from monai.bundle import ConfigParser

from tools.show import merged

# nnU-Net's BraTS plan
NNUNET_SIZE = {"stem": 1, "filters": [32, 64, 128, 256, 320, 320], "strides": [1, 2, 2, 2, 2, 2]}


def config(bundle: str, layer: str = "", **settings: Any) -> ConfigParser:
    """The merged config of a bundle and a file on top, with settings as on a command line; `a::b` sets a nested value.

    It runs on the CPU, as the other tools do here, unless `device` is one of the settings.
    """
    parser = merged(f"bundles/{bundle}/args.yaml", layer)
    for name, value in {"device": "cpu", **settings}.items():
        parser[name] = value
    parser.get_parsed_content("initialize")
    return parser


def step_of(parser: ConfigParser, image: torch.Tensor, target: torch.Tensor) -> Any:
    """A training step as in the trainer of the bundle, without its metrics."""
    network, loss = parser.get_parsed_content("network").train(), parser.get_parsed_content("loss")
    optimizer = parser.get_parsed_content("optimizer")
    inferer, most = parser.get_parsed_content("train::inferer"), parser["max_gradient_norm"]

    def step() -> None:
        optimizer.zero_grad()
        loss(inferer(image, network), target).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), most)
        optimizer.step()

    return step


def parameters_of(network: torch.nn.Module) -> float:
    """Millions of parameters."""
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6
