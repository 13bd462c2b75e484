"""Run in several processes with one device each, as torchrun starts them. All functions also work in one process."""

import logging
import multiprocessing
import os
import re
import sys
import threading
from collections.abc import Sequence
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from tumour.errors import OptionError


def cores() -> int:
    """The number of processor cores for this process; torchrun's processes on one machine share the cores equally."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(allowed // int(os.environ.get("LOCAL_WORLD_SIZE", 1)), 1)


def memory() -> float:
    """The memory for this process in bytes, of the machine or container; inf if unknown.

    torchrun's processes on one machine share it equally.
    """
    limits = [float("inf")]
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    container = Path("/sys/fs/cgroup/memory.max")
    if container.is_file() and (limit := container.read_text().strip()).isdigit():
        limits.append(int(limit))
    return min(limits) / int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def peak_memory(process: int | str = "self") -> float | None:
    """The peak memory of a running process in GB; None if unknown.

    On Linux `ru_maxrss` would contain the peak of the process that started it, however large that was.

    Args:
        process: its number; on other systems than Linux only this process is known.
    """
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    except OSError:  # another system, or the process has ended
        found = None
    if found:
        return int(found[1]) * 1024 / 1e9
    if sys.platform == "darwin" and process == "self":
        import resource  # Windows has none

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9
    return None


def end_with_parent() -> None:
    """Let this process of a pool end when the process that started it is killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def rank() -> int:
    """The number of this process, from 0; only process 0 writes files and logs."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def processes() -> int:
    """The number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def own_device() -> torch.device:
    """The GPU of this process, or the CPU if there is no GPU. More processes than GPUs share them equally.

    Raises:
        OptionError: this process was not started by torchrun.
    """
    _require_torchrun()
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


def _require_torchrun() -> None:
    if "LOCAL_RANK" not in os.environ:
        raise OptionError("The multi_gpu configs need torchrun --nproc_per_node=N -m monai.bundle run ...")


def join(device: torch.device | str, backend: str) -> None:
    """Connect to the other processes.

    Args:
        device: of this process.
        backend: `nccl`, which sends tensors between processes that have one GPU each (on a CPU, Gloo does that), or
            `gloo`, which sends Python objects between any processes, also those that share a GPU.

    Raises:
        OptionError: this process was not started by torchrun, or NCCL would need more GPUs than there are.
    """
    _require_torchrun()
    device = torch.device(device)
    on_gpu = device.type == "cuda"
    nccl = on_gpu and backend == "nccl"
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    if nccl and local > (there := torch.cuda.device_count()):
        raise OptionError(f"torchrun started {local} processes, but this machine has {there} GPU(s); start {there}.")
    if on_gpu:
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        # DistributedDataParallel imports this module, which would keep the process group that it finds
        import_module("torch.distributed.nn.functional")
        patience = timedelta(hours=6)  # one process may take much longer than the others to read or score its cases
        used, own = ("nccl", device) if nccl else ("gloo", None)
        distributed.init_process_group(used, timeout=patience, device_id=own)
    if rank():
        logging.getLogger("bundle").setLevel(logging.CRITICAL)


def leave(network: nn.Module | None = None) -> None:
    """Wait for all processes, then disconnect: one that exits early would stop the others while they still work.

    Gloo's threads end with the last reference to the process group. It must be that of `torch.distributed`, which
    lets them work while it waits for them; at the exit of Python they might abort the process or block it.

    Args:
        network: the network, if it holds such references (DistributedDataParallel).
    """
    if isinstance(network, nn.parallel.DistributedDataParallel):
        network.process_group = network.reducer = network.logger = None  # type: ignore[assignment]
    distributed.barrier()
    distributed.destroy_process_group()


def share(cases: Sequence[Any]) -> list[Any]:
    """The cases for this process; each case goes to exactly one process.

    Raises:
        OptionError: there are more processes than cases.
    """
    if len(cases) < processes():
        few = f"one part of the data has only {len(cases)} case(s) for {processes()} processes"
        raise OptionError(f"{few}; start at most {len(cases)}.")
    return list(cases[rank() :: processes()])


def gather(items: Sequence[Any]) -> list[Any]:
    """The items of all processes, in the order of their ranks. All processes must call this; it waits for them."""
    shares: list[Any] = [list(items)] * processes()
    if processes() > 1:
        distributed.all_gather_object(shares, list(items))
    return [item for part in shares for item in part]
