"""Print the parameters and multiply-adds of the networks.

python -m tools networks --size fast
"""

from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from tools.bundles import bundles
from tools.show import merged


def cost(args_file: str | Path, patch: int = 96, **settings: Any) -> tuple[float, float]:
    """Millions of parameters, and billions of multiply-adds of one forward pass over a cube of `patch` voxels.

    Nothing is computed, so a large network takes no time. The settings are those of a command line.
    """
    parser = merged(str(args_file))
    for name, value in settings.items():
        parser[name] = value
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network = parser.get_parsed_content("network_def").eval()
        network(torch.zeros(1, len(parser.get_parsed_content("modalities")), *(patch,) * 3))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters / 1e6, counter.get_total_flops() / 2e9


def networks(size: str = "") -> None:
    """Print one row per bundle and size.

    Args:
        size: fast or full; default: both.
    """
    print("| bundle | size | parameters, M | multiply-adds of a 96³ patch, G |\n| --- | --- | --- | --- |")
    for name in [size] if size else ["fast", "full"]:
        for bundle in bundles():
            parameters, operations = cost(f"bundles/{bundle}/args.yaml", size=name)
            print(f"| {bundle} | {name} | {parameters:.2f} | {operations:.1f} |")
