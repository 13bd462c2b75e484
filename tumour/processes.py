"""Several processes, one device each, as torchrun starts them. In a single process all of this does nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from tumour.errors import InputError


def cores() -> int:
    """How many processor cores this process may use: its share where torchrun started several on this machine."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(own // int(os.environ.get("LOCAL_WORLD_SIZE", 1)), 1)


def memory() -> float:
    """Bytes of memory that this process may use: its share of the machine's or of the container's; inf if unknown."""
    limits = [float("inf")]
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    container = Path("/sys/fs/cgroup/memory.max")
    if container.is_file() and (told := container.read_text().strip()).isdigit():
        limits.append(int(told))
    return min(limits) / int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def rank() -> int:
    """The number of this process, from 0; only 0 writes and logs."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def processes() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def own_device() -> torch.device:
    """The GPU of this process, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


def join(device: torch.device) -> None:
    """Meet the other processes: NCCL on GPUs, Gloo on CPUs.

    Raises:
        InputError: torchrun did not start this process.
    """
    if "RANK" not in os.environ:
        raise InputError("The multi_gpu configs are for torchrun --nproc_per_node=N -m monai.bundle run ...")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        patience = timedelta(hours=6)  # one process may read or score its share for long while the others wait
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
    if rank():
        logging.getLogger("bundle").setLevel(logging.CRITICAL)


def part() -> None:
    """Leave the other processes once all have come here: one that exits before tears down threads that still work."""
    distributed.barrier()
    distributed.destroy_process_group()


def share(cases: Sequence[Any]) -> list[Any]:
    """This process's share of the cases: every case is in exactly one.

    Raises:
        InputError: there are more processes than cases.
    """
    if len(cases) < processes():
        raise InputError(f"{processes()} processes share {len(cases)} case(s) of one part of the data; start fewer.")
    return list(cases[rank() :: processes()])


def gather(items: Sequence[Any]) -> list[Any]:
    """The items of all processes, in the order of their numbers. All must call it, and all wait here for the last."""
    shares: list[Any] = [list(items)] * processes()
    if processes() > 1:
        distributed.all_gather_object(shares, list(items))
    return [item for part in shares for item in part]
