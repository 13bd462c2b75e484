"""Table of the networks' parameters and FLOPs: `python -m tools.networks [--size fast]`."""

from __future__ import annotations

from pathlib import Path

import fire
import torch
from torch.utils.flop_counter import FlopCounterMode

from tools.show import merged


def cost(args_file: str | Path, size: str, patch: int = 96) -> tuple[float, float]:
    """Millions of parameters, and billions of multiply-adds of one forward pass over a cube of `patch` voxels."""
    parser = merged(str(args_file))
    parser["size"] = size
    network = parser.get_parsed_content("network_def").eval()
    channels = len(parser["modalities"])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, channels, *(patch,) * 3))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters / 1e6, counter.get_total_flops() / 2e9


def main(size: str = "") -> None:
    """Print one row a bundle and size."""
    print("| bundle | size | parameters, M | multiply-adds of a 96³ patch, G |\n| --- | --- | --- | --- |")
    for name in [size] if size else ["fast", "full"]:
        for path in sorted(Path("bundles").glob("*/args.yaml")):
            parameters, operations = cost(path, name)
            print(f"| {path.parent.name} | {name} | {parameters:.2f} | {operations:.1f} |")


if __name__ == "__main__":
    fire.Fire(main)
