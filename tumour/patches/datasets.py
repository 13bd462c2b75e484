"""PyTorch data sets of cases: cached for training; for inference, cases with errors are skipped."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from monai.data import CacheDataset, Dataset, PersistentDataset, pickle_hashing
from monai.data.utils import worker_init_fn
from monai.transforms import Compose, Transform
from torch.utils.data import IterableDataset, RandomSampler
from tumour.cases.case import Case, LeftOut, item_of
from tumour.checks.case import CaseCheck
from tumour.checks.usable import examine, refuse
from tumour.errors import InputError, input_error_in
from tumour.processes import cores, gather, memory, share

logger = logging.getLogger("bundle")


def reason(error: BaseException) -> str:
    """The reason for an error in a case that passed its check, without a full stop."""
    known = input_error_in(error)
    while known is None and error.__cause__ is not None:
        error = error.__cause__
    return str(known).rstrip(".") if known else f"could not be used ({type(error).__name__}: {error}); check its files"


class NameFailures(Transform):
    """Run the transforms that read a case; any error becomes an InputError with the case id."""

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.transforms = Compose(list(transforms))

    def __call__(self, item: Mapping[str, Any]) -> Any:
        try:
            return self.transforms(item)
        except Exception as error:  # a client's item has no case id
            raise InputError(str(LeftOut(str(item.get("case", item["image"])), reason(error)))) from error


def cached(
    data: Sequence[Case | Mapping[str, Any]], read: Sequence[Any], augment: Sequence[Any], cache: str, cache_dir: str
) -> Dataset:
    """A data set that reads each case once and augments it again each time that it is used.

    Args:
        data: the cases, of which this process uses its share. MONAI Label passes its own items here.
        read: deterministic transforms; their result is cached.
        augment: the transforms after them, which must not change their input in place.
        cache: `memory`; `disk`, in files whose names are hashes of the case and of `read`, so that results of other
            settings are never used; `auto`, which is `disk` if there is too little memory; or `none`.
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
        return PersistentDataset(items, transforms, cache_dir, hash_transform=pickle_hashing)
    if cache == "none":
        return Dataset(items, transforms)
    raise InputError(f"cache must be auto, memory, disk or none; it is '{cache}'.")


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


def epoch_sampler(dataset: Dataset, iterations: int, batch_size: int) -> RandomSampler:
    """Draw cases in random order for epochs of `iterations` batches; each case is drawn again after all others."""
    return RandomSampler(dataset, num_samples=iterations * batch_size)  # type: ignore[arg-type]


def init_worker(number: int) -> None:
    """Initialise a data loader's worker: seed, one thread, lower priority, and Ctrl-C only for the main process.

    The lower priority matters on a CPU: if a worker takes a core from training, all training threads wait for it.
    """
    worker_init_fn(number)
    if hasattr(os, "nice"):
        os.nice(10)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def workers_for(device: torch.device | str) -> int:
    """The number of data loader workers, at most 12: all cores but two with a GPU, half of the cores without.

    With one or two cores and no GPU it is 0, because workers would slow down the network more than they help.
    """
    available = cores()
    if torch.device(device).type == "cuda":
        return min(available - 2 if available > 2 else 1, 12)
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

    Attributes:
        done: the cases that were read.
        left_out: the cases that were left out.

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
    ) -> None:
        self.cases, self.transform, self.check, self.label_as = list(cases), transform, check, label_as
        self.done: list[Case] = []
        self.left_out = list(left_out)
        if strict:
            refuse([*left_out, *(finding.left_out for finding in examine(cases, check) if finding.faults)])

    def __iter__(self) -> Iterator[Any]:
        for case in self.cases:
            try:
                finding = self.check(case)
                item = None if finding.faults else self.transform(case.item(self.label_as))
                left_out = finding.left_out
            except Exception as error:
                item, left_out = None, LeftOut(case.name, reason(error))
            if item is None:
                self.left_out.append(left_out)
                logger.error(f"left out, {left_out}")
            else:
                if finding.notes:
                    logger.warning(str(finding.left_out))
                self.done.append(case)
                yield item

    def finish(self, what: str, where: str) -> None:
        """Log the number of processed cases and the reasons for the others; if there are any, exit with status 1.

        Args:
            what: past participle for the message, such as `segmented`.
            where: folder of the results.
        """
        done, left_out = gather(self.done), list(dict.fromkeys(gather(self.left_out)))
        logger.info(f"{len(done):,} of {len(done) + len(left_out):,} cases {what}; see '{where}'.")
        if left_out:
            logger.error("left out:\n  " + "\n  ".join(map(str, left_out)))
            raise SystemExit(1)
