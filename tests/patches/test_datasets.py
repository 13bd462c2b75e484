"""Where the cases of a training are cached."""

import logging

import pytest
import torch
from monai.data import CacheDataset, PersistentDataset
from tumour import processes as parallel
from tumour.patches import datasets

CASES = [{"case": f"case{number}", "image": number} for number in range(50)]


def read(case):
    return {"image": torch.full((1000,), case["image"], dtype=torch.float16)}  # 2,000 bytes


@pytest.mark.parametrize(("memory", "kind"), [(301_000, CacheDataset), (299_000, PersistentDataset)])
def test_cases_that_need_over_a_third_of_the_memory_are_cached_on_the_disk(memory, kind, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(datasets, "memory", lambda: memory)
    with caplog.at_level(logging.INFO, "bundle"):
        dataset = datasets.cached(CASES, [read], [], "auto", str(tmp_path))
    assert type(dataset) is kind
    assert [int(dataset[number]["image"][0]) for number in (0, 49)] == [0, 49]
    told = [record.message for record in caplog.records]
    assert (kind is PersistentDataset) == any("--cache memory" in line and str(tmp_path) in line for line in told)


def test_the_processes_of_torchrun_share_the_memory(monkeypatch):
    whole = parallel.memory()
    assert 1e9 < whole < 1e14
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert parallel.memory() == whole / 4


@pytest.mark.parametrize(
    ("device", "cores", "workers"), [("cpu", 1, 0), ("cpu", 2, 0), ("cpu", 8, 4), ("cuda", 1, 1), ("cuda", 16, 12)]
)
def test_a_training_on_two_cores_of_a_cpu_augments_in_its_own_process(device, cores, workers, monkeypatch):
    monkeypatch.setattr(datasets, "cores", lambda: cores)
    assert datasets.workers_for(device) == workers
