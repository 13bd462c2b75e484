"""Where the cases of a training are cached."""

import logging
import os
import random
import re
import resource
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedEvaluator
from monai.transforms import RandomizableTransform
from tumour import processes as parallel
from tumour.cases.case import Case
from tumour.checks.case import Finding
from tumour.errors import InputError
from tumour.patches import datasets
from tumour.runs.handlers import Progress

from tests.conftest import parser_of

CASES = [{"case": f"case{number}", "image": number} for number in range(50)]


def read(case):
    return {"image": torch.full((1000,), case["image"], dtype=torch.float16)}  # 2,000 bytes


@pytest.mark.parametrize(("memory", "kind"), [(301_000, CacheDataset), (299_000, datasets.DiskCache)])
def test_cases_that_need_over_a_third_of_the_memory_are_cached_on_the_disk(memory, kind, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(datasets, "memory", lambda: memory)
    with caplog.at_level(logging.INFO, "bundle"):
        dataset = datasets.cached(CASES, [read], [], "auto", str(tmp_path))
    assert type(dataset) is kind
    assert [int(dataset[number]["image"][0]) for number in (0, 49)] == [0, 49]
    told = [record.message for record in caplog.records]
    assert (kind is datasets.DiskCache) == any("--cache memory" in line and str(tmp_path) in line for line in told)


def test_the_processes_of_torchrun_share_the_memory_and_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(6), raising=False)
    whole = parallel.memory()
    assert 1e9 < whole < 1e14 and parallel.cores() == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert parallel.memory() == whole / 4 and parallel.cores() == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert parallel.cores() == 1


@pytest.mark.parametrize(
    ("device", "cores", "workers"),
    [("cpu", 1, 0), ("cpu", 2, 0), ("cpu", 8, 4), ("cuda", 1, 1), ("cuda", 16, 14), ("cuda", 64, 24)],
)
def test_a_training_on_two_cores_of_a_cpu_augments_in_its_own_process(device, cores, workers, monkeypatch):
    monkeypatch.setattr(datasets, "cores", lambda: cores)
    assert datasets.workers_for(device) == workers


def numbers(case):
    return {name: torch.tensor(float(open(case[name]).read())) for name in ("image", "label")}


@pytest.fixture
def on_disk(tmp_path):
    """A case of two files that hold a number each, and how a training reads it from a cache on the disk."""
    paths = {name: tmp_path / name for name in ("image", "label")}
    for path in paths.values():
        path.write_text("1")

    def cached():
        case = {"case": "one"} | {name: str(path) for name, path in paths.items()}
        return datasets.cached([case], [numbers], [], "disk", str(tmp_path / "cache"))

    return SimpleNamespace(**paths, cached=cached, folder=tmp_path / "cache")


@pytest.mark.parametrize("name", ["image", "label"])
def test_a_file_that_changed_is_read_anew(name, on_disk):
    assert on_disk.cached()[0][name] == 1
    path = getattr(on_disk, name)
    path.write_text("2")  # of the same size
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert on_disk.cached()[0][name] == 2


def test_a_file_that_changed_with_its_size_and_time_kept_is_read_anew(on_disk):
    assert on_disk.cached()[0]["label"] == 1
    stat = on_disk.label.stat()
    on_disk.label.write_text("2")
    os.utime(on_disk.label, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as rsync and cp -p do
    assert on_disk.label.stat().st_mtime_ns == stat.st_mtime_ns and on_disk.cached()[0]["label"] == 2


def test_what_another_version_has_read_is_read_anew(on_disk, monkeypatch):
    on_disk.cached()[0]
    monkeypatch.setattr(datasets, "hash_of_code", lambda: "another")
    on_disk.cached()[0]
    assert len(list(on_disk.folder.iterdir())) == 2


def test_the_cache_file_of_another_case_is_not_used(tmp_path):
    items = [{"case": name, "image": name} for name in "ab"]
    for name in "ab":
        (tmp_path / name).write_text("same")

    def cached():
        return datasets.cached(items, [dict], [], "disk", str(tmp_path / "cache"))

    assert [item["case"] for item in cached()] == ["a", "b"]
    one, other = (tmp_path / "cache").iterdir()
    one.write_bytes(other.read_bytes())
    assert [item["case"] for item in cached()] == ["a", "b"]


READING = [  # settings of the reading of a case, each with another value
    {},
    {"cohort": "brats2023_gli"},
    {"cohort": "brats2024_gli"},
    {"cohorts::brats2020::label_values": [0, 1, 3, 4]},
    {"modalities": ["FLAIR", "T1", "T1ce", "T2"]},
    {"modalities": ["T1", "T1ce", "T2"]},
    {"spacing": [2.0, 1.0, 1.0]},
    {"resize": [16, 16, 16]},
    {"normalisation::channel_wise": False},
    {"normalisation::nonzero": False},
]


def test_each_setting_of_the_reading_has_cache_files_of_its_own(tmp_path):
    def key(settings):
        parser = parser_of("brats2020", tmp_path, "brats", "train")
        parser.update(settings)
        read = parser.get_parsed_content("train::dataset::read")
        return datasets.cached([{"case": "a", "image": "x"}], read, [], "disk", str(tmp_path)).transform_hash

    keys = [key(settings) for settings in READING]
    assert len({*keys}) == len(READING) and key({}) == keys[0]


@pytest.mark.parametrize("content", [b"", b"PK", b"none", None], ids=["empty", "start", "other", "half"])
def test_a_damaged_cache_file_is_named_and_its_case_read_again(content, on_disk, caplog):
    on_disk.cached()[0]
    (path,) = on_disk.folder.iterdir()
    complete = path.read_bytes()
    path.write_bytes(complete[: len(complete) // 2] if content is None else content)
    with caplog.at_level(logging.WARNING, "bundle"):
        assert on_disk.cached()[0]["label"] == 1
    assert f"'{path}' is damaged" in caplog.text
    assert torch.load(path)["label"] == 1 and list(on_disk.folder.iterdir()) == [path]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_cache_that_cannot_be_written_gives_one_sentence_and_leaves_nothing(workers, on_disk):
    dataset = on_disk.cached()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # as a full disk: a write comes back short
    try:
        with pytest.raises(InputError, match="raise the limit, or name another folder by --cache_dir") as error:
            next(iter(DataLoader(dataset, num_workers=workers)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    sentence = str(error.value).rpartition("InputError: ")[2].strip()
    assert str(on_disk.folder) in sentence and "\n" not in sentence
    assert not list(on_disk.folder.iterdir())


def test_a_file_where_the_cache_should_be_gives_one_sentence(on_disk):
    on_disk.folder.write_text("")
    with pytest.raises(InputError, match=f"cache_dir '{on_disk.folder}' cannot be a folder"):
        on_disk.cached()


def evaluated(failure):
    """The cases and the names of those scored when the inferer does something else with the second of three cases."""
    cases = [Case(name, name, (name,), ("T1",)) for name in "abc"]

    def read(item):
        return {"case": item["case"], "image": torch.ones(1, 8, 8, 8)}

    data = datasets.ReadableCases(cases, read, lambda case: Finding(case.name, case.name))
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(data, batch_size=1),
        iteration_update=datasets.OneCase(data),
        network=torch.nn.Identity(),
        inferer=lambda image, network: failure(image) if data.done[-1].name == "b" else image,
        val_handlers=[Progress(unit="case", total=3)],
    )
    scored = []

    def score(engine):
        scored.extend(item["case"] for item, _ in zip(engine.state.batch, engine.state.output, strict=True))

    evaluator.add_event_handler(Events.ITERATION_COMPLETED, score)
    evaluator.run()
    return data, scored


def raising(error):
    def fail(image):
        raise error

    return fail


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (raising(torch.OutOfMemoryError("CUDA out of memory.")), "does not fit into the memory of the GPU; .*--device"),
        (raising(RuntimeError("32-bit index math")), "could not be used .*32-bit index math"),
        (raising(MemoryError()), "does not fit into the memory of this machine; end other programs"),
        (lambda image: image * torch.nan, "the network's output is not finite; check the intensities"),
        (lambda image: image / 0, "the network's output is not finite; check the intensities"),
    ],
)
def test_a_case_that_fails_in_the_network_is_named_and_the_others_are_done(failure, why, caplog, tmp_path):
    data, scored = evaluated(failure)
    assert scored == ["a", "c"] == [case.name for case in data.done]
    (left_out,) = data.left_out
    assert left_out.case == "b" and re.match(why, left_out.why)
    assert f"left out, {left_out}" in caplog.text
    for case in "abc":
        (tmp_path / f"{case}.nii.gz").touch()
    with pytest.raises(SystemExit):
        data.finish("segmented", str(tmp_path))
    assert f"'{tmp_path}' still has the label map of an earlier run for b; delete it." in caplog.text


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), InputError("name another output_dir")])
def test_what_no_other_case_would_survive_ends_the_run(error):
    with pytest.raises(type(error)):
        evaluated(raising(error))


def test_a_label_map_without_tumour_is_noted(caplog):
    data, scored = evaluated(lambda image: image * 0)
    assert scored == ["a", "b", "c"] and not data.left_out
    assert [str(note) for note in data.notes] == ["b: the predicted label map contains no tumour; look at its scans."]
    assert str(data.notes[0]) in caplog.text


class Noise(RandomizableTransform):
    """A patch of random numbers of MONAI, NumPy, PyTorch and Python."""

    def __call__(self, item):
        numbers = [self.R.rand(), np.random.rand(), float(torch.rand(1)), random.random()]
        return {"case": item["case"], "numbers": torch.tensor(numbers)}


def patches_of(epoch, workers=0, seed=0, cases=5):
    items = [{"case": number, "image": number} for number in range(cases)]
    dataset = datasets.cached(items, [], [Noise()], "memory", "")
    sampler = datasets.Draws(dataset, iterations=4, batch_size=2, seed=seed)
    sampler.set_epoch(epoch)
    loader = DataLoader(
        datasets.Drawn(dataset), batch_size=2, sampler=sampler, num_workers=workers, worker_init_fn=datasets.init_worker
    )
    batches = list(loader)
    assert len(batches) == 4
    return torch.cat([batch["case"] for batch in batches]).tolist(), torch.cat([batch["numbers"] for batch in batches])


@pytest.mark.parametrize("workers", [1, 3])
def test_an_epoch_has_the_same_patches_with_any_number_of_workers(workers):
    one, other = patches_of(7), patches_of(7, workers)
    assert one[0] == other[0] and torch.equal(one[1], other[1])


def test_every_patch_epoch_seed_and_process_has_numbers_of_its_own(monkeypatch):
    drawn = [patches_of(1), patches_of(2), patches_of(1, seed=1)]
    monkeypatch.setattr(datasets, "rank", lambda: 1)
    drawn.append(patches_of(1))
    numbers = torch.cat([part[1].flatten() for part in drawn])
    assert len(numbers.unique()) == len(numbers) == 4 * 8 * 4
    assert len({tuple(part[0]) for part in drawn}) == 4


def test_a_case_is_drawn_again_after_all_others():
    cases, _ = patches_of(3)
    assert sorted(cases[:5]) == list(range(5)) and len({*cases[5:]}) == 3
