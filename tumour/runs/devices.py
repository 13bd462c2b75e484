"""The device that a run uses, and what the log says about it."""

import logging
import shutil
from pathlib import Path

import torch
from torch import nn

logger = logging.getLogger("bundle")


def on_device(network: nn.Module, device: torch.device | str, compile: bool) -> nn.Module:
    """The network on its device, compiled if asked for. Checkpoints hold the weights of `network` itself."""
    network = network.to(device)
    return torch.compile(network) if compile else network  # type: ignore[return-value]


def log_device(device: torch.device | str, precision: str) -> None:
    """Log the device, its memory and the precision; warn if there is an NVIDIA GPU that PyTorch cannot use."""
    device = torch.device(device)
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        logger.info(f"running on {card.name} with {card.total_memory / 1e9:.0f} GB, in {precision}.")
        return
    threads = torch.get_num_threads()
    logger.info(f"running on {device.type} with {threads} thread{'s' * (threads != 1)}, in {precision}.")
    if not torch.cuda.is_available() and has_nvidia_gpu():
        build = f"was built for CUDA {torch.version.cuda}" if torch.version.cuda else "is a build without CUDA"
        logger.warning(
            f"this machine has an NVIDIA GPU that PyTorch cannot use: torch {torch.__version__} {build}. Update the "
            "NVIDIA driver (CUDA 13 needs 580 or later), or install a build of torch that fits it."
        )


def has_nvidia_gpu() -> bool:
    """Whether the NVIDIA driver is loaded on this machine."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
