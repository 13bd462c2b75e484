"""PyTorch data sets of cases: cached for training; for inference, cases with errors are skipped."""

import logging
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.utils import manual_seed
from monai.data import CacheDataset, Dataset, PersistentDataset, pickle_hashing
from monai.transforms import Compose, Transform
from monai.utils import convert_to_tensor, ensure_tuple
from torch.utils.data import IterableDataset, RandomSampler
from torch.utils.data.distributed import DistributedSampler
from tumour.cases.case import Case, LeftOut, item_of
from tumour.checks.case import CaseCheck
from tumour.checks.strangers import Ranges, strange
from tumour.checks.usable import examine, refuse
from tumour.errors import CaseError, InputError, OptionError, first_cause, reason, require_finite
from tumour.files import atomic_write, hash_of_code, size_and_times
from tumour.processes import cores, gather, memory, rank, share
from tumour.records import read_tensors

logger = logging.getLogger("bundle")


class NameFailures(Transform):
    """Run the transforms that read a case; any error becomes an InputError with the case id."""

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.transforms = Compose(list(transforms))

    def __call__(self, item: Mapping[str, Any]) -> Any:
        try:
            return self.transforms(item)
        except Exception as error:  # a client's item has no case id
            raise InputError(str(LeftOut(str(item.get("case", item["image"])), reason(error)))) from error


class DiskCache(PersistentDataset):
    """MONAI's cache on a disk. A case is read again if one of its files has changed or its cache file is damaged."""

    def _cachecheck(self, item: Mapping[str, Any]) -> Any:
        assert self.cache_dir is not None
        files = [*ensure_tuple(item["image"]), *ensure_tuple(item.get("label", ()))]
        key = self.hash_func({**item, "stamp": [size_and_times(str(file)) for file in files]}).decode()
        path = self.cache_dir / f"{key}{self.transform_hash}.pt"
        if path.is_file():
            try:
                found = read_tensors(path)
                if found.get("case", item.get("case")) != item.get("case"):
                    raise ValueError("another case")
                return found
            except Exception as error:  # torch raises many kinds
                logger.warning(f"'{path}' is damaged ({type(error).__name__}); its case is read again.")
        result = convert_to_tensor(self._pre_transform(dict(item)), convert_numeric=False, track_meta=False)
        try:
            with atomic_write(path) as part, open(part, "wb") as file:  # torch itself would not say what is wrong
                torch.save(result, file)
        except InputError as error:
            raise InputError(f"{str(error).rpartition(', or ')[0]}, or name another folder by --cache_dir.") from error
        return result


def cached(
    data: Sequence[Case | Mapping[str, Any]], read: Sequence[Any], augment: Sequence[Any], cache: str, cache_dir: str
) -> Dataset:
    """A data set that reads each case once and augments it again each time that it is used.

    Args:
        data: the cases, of which this process uses its share. MONAI Label passes its own items here.
        read: deterministic transforms; their result is cached.
        augment: the transforms after them, which must not change their input in place.
        cache: `memory`; `disk`, in files whose names are hashes of the case, of the size and times of its files and of
            `read` with its code, so that results of other files, settings or versions are never used; `auto`, which is
            `disk` if there is too little memory; or `none`.
        cache_dir: folder for `disk`.

    Raises:
        InputError: `cache` is none of these, or there are no cases.
    """
    if not data:
        raise InputError(
            "No patient is left for training or validation; use at least 3 patients or a lower test_share."
        )
    items, transforms = [item_of(case) for case in share(data)], [NameFailures(read), *augment]
    if cache == "auto":
        cache = "memory" if _fit(items, transforms[0], cache_dir) else "disk"
    if cache == "memory":
        return CacheDataset(items, transforms, num_workers=min(cores(), 8), copy_cache=False)
    if cache == "disk":
        try:
            # of `read` itself: Compose, which holds it, has a random state that differs from run to run
            read_by = pickle_hashing([hash_of_code(), *read])
            return DiskCache(items, transforms, cache_dir, hash_transform=lambda _: read_by)
        except (OSError, ValueError) as error:
            raise OptionError(f"cache_dir '{cache_dir}' cannot be a folder ({error}); name another.") from error
    if cache == "none":
        return Dataset(items, transforms)
    raise OptionError(f"cache must be auto, memory, disk or none; it is '{cache}'.")


def _fit(cases: Sequence[Mapping[str, Any]], read: NameFailures, cache_dir: str) -> bool:
    """Whether the cases fit into a third of the memory, estimated from the first; training caches two data sets."""
    limit = memory() / 3
    if len(cases) * 200e6 < limit:  # BraTS cases are smaller than 200 MB
        return True
    size = len(cases) * sum(value.nbytes for value in read(cases[0]).values() if isinstance(value, torch.Tensor))
    if size > limit:
        logger.info(
            f"{len(cases)} cases would need {size / 1e9:.0f} GB of this machine's {memory() / 1e9:.0f} GB of memory; "
            f"they are cached on disk in '{cache_dir}'. To keep them in memory, give --cache memory."
        )
    return size <= limit


class Draws(DistributedSampler):
    """Draw cases in random order for epochs of `iterations` batches; each case is drawn again after all others.

    Each draw is a pair of the index of a case and a seed, which depend only on `seed`, the process, the number of the
    epoch (MONAI's trainers set it) and the number of the draw; `Drawn` makes the patch. So an epoch has the same
    patches with any number of workers, and if it is repeated.
    """

    def __init__(self, dataset: Dataset, iterations: int, batch_size: int, seed: int) -> None:
        super().__init__(dataset, num_replicas=1, rank=0, seed=seed)  # each process has its own cases
        self.num_samples = iterations * batch_size

    def __iter__(self) -> Iterator[Any]:
        numbers = np.random.SeedSequence([self.seed, rank(), self.epoch])
        first, *seeds = numbers.generate_state(1 + self.num_samples).tolist()
        generator = torch.Generator().manual_seed(first)
        order = RandomSampler(self.dataset, num_samples=self.num_samples, generator=generator)  # type: ignore[arg-type]
        return zip(order, seeds, strict=True)


class Drawn(torch.utils.data.Dataset):
    """A data set of which each draw (index, seed) gives a patch whose random numbers depend only on the seed."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: tuple[int, int]) -> Any:
        index, seed = draw
        manual_seed(seed)  # for transforms of other libraries
        self.dataset.transform.set_random_state(seed)
        return self.dataset[index]


def init_worker(number: int) -> None:
    """Initialise a data loader's worker: one thread, lower priority, and Ctrl-C only for the main process.

    The lower priority matters on a CPU: if a worker takes a core from training, all training threads wait for it.
    """
    if hasattr(os, "nice"):
        os.nice(10)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not what the training does on it


def workers_for(device: torch.device | str) -> int:
    """The number of data loader workers: with a GPU all cores but two, at most 24; without half of them, at most 12.

    With one or two cores and no GPU it is 0, because workers would slow down the network more than they help.
    """
    available = cores()
    if torch.device(device).type == "cuda":
        return min(available - 2 if available > 2 else 1, 24)
    return min(available // 2, 12) if available > 2 else 0


class ReadableCases(IterableDataset):
    """Read cases one after the other; cases that cannot be used are logged, left out and listed by `finish`.

    Args:
        cases: the cases.
        transform: the transforms that read a case.
        check: checks a case just before it is read.
        left_out: cases that were left out before.
        strict: check all cases first and raise an error if any cannot be used.
        label_as: the key of a case's label in the items.
        finished: what was kept for cases that need not be read, because they are finished; they count as done.
        seen: the range of each measure of the training cases; a case outside of it gets a note.

    Attributes:
        done: the cases that were read.
        left_out: the cases that were left out.
        notes: what is doubtful about a case that was read.

    Raises:
        InputError: `strict` is set and a case cannot be used.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        transform: Any,
        check: CaseCheck,
        left_out: Sequence[LeftOut] = (),
        strict: bool = False,
        label_as: str = "label",
        finished: Mapping[str, Mapping[str, Any]] | None = None,
        seen: Ranges | None = None,
    ) -> None:
        self.cases, self.transform, self.check, self.label_as = list(cases), transform, check, label_as
        self.finished: Any = {} if finished is None else finished
        self.seen = seen or {}
        self.done = [case for case in self.cases if case.name in self.finished]
        self.left_out = list(left_out)
        self.notes = [LeftOut(**note) for case in self.done for note in self.finished[case.name]["notes"]]
        for note in self.notes:
            logger.warning(str(note))
        if strict:
            refuse([*left_out, *(finding.left_out for finding in examine(cases, check) if finding.faults)])

    def __iter__(self) -> Iterator[Any]:
        for case in self.cases:
            if case.name in self.finished:
                continue
            try:
                finding = self.check(case)
                item = None if finding.faults else self.transform(case.item(self.label_as))
                left_out = finding.left_out
            except Exception as error:
                item, left_out = None, LeftOut(case.name, reason(error))
            if item is None:
                self.leave_out(left_out)
            else:
                notes = [*finding.notes, *strange(finding.facts, self.seen)]
                if notes:
                    self.note(LeftOut(case.name, "; ".join(notes)))
                self.done.append(case)
                yield item

    def leave_out(self, left_out: LeftOut) -> None:
        """List and log a case as left out, though it may have been read."""
        for case in [case for case in self.done if case.name == left_out.case]:
            self.done.remove(case)  # in place: the loader's thread appends
        self.left_out.append(left_out)
        logger.error(f"left out, {left_out}")

    def note(self, note: LeftOut) -> None:
        """List and log what is doubtful with a case."""
        self.notes.append(note)
        logger.warning(str(note))

    def finish(self, what: str, where: str) -> None:
        """End the run: log the number of processed cases and the reasons for the others; if there are any, exit with 1.

        Args:
            what: past participle for the message, such as `segmented`.
            where: folder of the results.
        """
        done, left_out = gather(self.done), list(dict.fromkeys(gather(self.left_out)))
        if not rank():
            self.finished.clear()  # nothing is left to do
        logger.info(f"{len(done):,} of {len(done) + len(left_out):,} cases {what}; see '{where}'.")
        if left_out:
            logger.error("left out:\n  " + "\n  ".join(map(str, left_out)))
            if old := [each.case for each in left_out if Path(where, f"{each.case}.nii.gz").is_file()]:
                logger.warning(f"'{where}' still has the label map of an earlier run for {', '.join(old)}; delete it.")
            raise SystemExit(1)


class OneCase:
    """What an evaluator does with each case (its `iteration_update`): one that fails is left out and named.

    A case fails by itself if the GPU's memory is too small for it, or the network's output is not finite. A full disk
    or a wrong setting ends the run. A label map without any tumour is noted.

    Args:
        cases: where the evaluator's cases come from, one a batch.
    """

    def __init__(self, cases: ReadableCases) -> None:
        self.cases = cases

    def __call__(self, engine: Any, batch: Mapping[str, Any]) -> Any:
        case = str(batch["case"][0])
        try:
            output = engine._iteration(engine, batch)  # MONAI's own
            require_finite(output[0]["pred"], case)
        except Exception as error:
            cause = first_cause(error)
            lasting = isinstance(cause, torch.AcceleratorError)  # the GPU answers nothing after it
            if lasting or not isinstance(cause, CaseError | RuntimeError | MemoryError):
                raise
            self.cases.leave_out(LeftOut(case, reason(error).removeprefix(f"{case}: ")))
            engine.state.batch = []
            return []
        if not output[0]["pred"].any():
            self.cases.note(LeftOut(case, "the predicted label map contains no tumour; look at its scans"))
        return output
