"""The results of finished cases, kept until their run ends, so that an interrupted run continues with the others."""

import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tumour.cases.case import LEFT_OUT, Case
from tumour.errors import InputError
from tumour.files import hash_of_code, save_json, sha256_of, size_and_times
from tumour.maps.aftertreatment import FILE as TREATMENT
from tumour.processes import gather, rank
from tumour.records import read_json
from tumour.runs.layers import FOLDERS, layers, merge, parse_options, started_by_monai
from tumour.runs.trained import SETTINGS
from tumour.scores.quality import CASE_EVIDENCE
from tumour.scores.quality import FILE as QUALITY

OF_THE_MACHINE = ("device", "resume", "traceback", "report_at_end")  # do not change a result
KEPT = {"run": str, "state": [[int]], "notes": [LEFT_OUT], "rows?": [{"case": str}], "lesions?": [{"case": str}]}
KEPT |= {"quality?": {"case": str, "light": str}, "evidence?": CASE_EVIDENCE}
SEVERAL = "multi_gpu_"  # the name of a layer for several processes begins so
logger = logging.getLogger("bundle")


class FinishedCases(Mapping[str, Mapping[str, Any]]):
    """What a run with the same inputs and settings kept for each case that it finished before it was interrupted.

    A case counts if its files and its label map have not changed since. Another number of processes continues too. Only
    runs that were started by `python -m monai.bundle` are continued: the settings of others are not known.

    Args:
        folder: folder for one file per finished case, which is deleted when the run has ended.
        cases: the cases of the run.
        segmentations: folder of the label maps.
        weights: the weights of the network.
        dataset_dir: the place of the data.
        device, precision: those of the network.
        resume: whether to continue.
    """

    def __init__(
        self,
        folder: str,
        cases: Sequence[Case],
        segmentations: str,
        weights: str,
        dataset_dir: str,
        device: torch.device | str,
        precision: str,
        resume: bool = True,
    ) -> None:
        self.folder, self.segmentations = Path(folder), Path(segmentations)
        self.cases = {case.name: case for case in cases}
        self.added: dict[str, Any] = {}
        self.run = _run(weights, dataset_dir, torch.device(device).type, precision) if started_by_monai() else ""
        kept = {case.name: self._read(case) for case in cases} if self.run and resume else {}
        self.kept = {name: content for name, content in kept.items() if content is not None}
        if self.kept and not rank():
            logger.info(f"{len(self.kept):,} of {len(cases):,} cases were finished before this run was interrupted.")
        gather([])  # before the first process adds a file

    def __getitem__(self, case: str) -> Mapping[str, Any]:
        return self.kept[case]

    def __iter__(self) -> Iterator[str]:
        return iter(self.kept)

    def __len__(self) -> int:
        return len(self.kept)

    def add(self, **results: Any) -> None:
        """Add results of the current case, which `keep` writes."""
        self.added |= results

    def keep(self, name: str) -> None:
        """Write what was added for a case: it is finished."""
        if self.run and name in self.cases:
            content = {"run": self.run, "state": self._state(self.cases[name]), **self.added}
            save_json(json.loads(json.dumps(content, default=lambda value: value.item())), self._path(name))
        self.added = {}

    def clear(self) -> None:
        """Delete the files at the end of the run."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _state(self, case: Case) -> list[list[int]]:
        """What changes with the files of a case and with its label map, which may be copied with its time."""
        label_map = size_and_times(str(self.segmentations / f"{case.name}.nii.gz"))[:2]
        return [*map(list, map(size_and_times, case.files.values())), list(label_map)]

    def _read(self, case: Case) -> dict[str, Any] | None:
        """What was kept for a case, or None if it is not finished."""
        try:
            content = read_json(self._path(case.name), KEPT)
        except InputError:
            return None
        same = content["run"] == self.run and content["state"] == self._state(case)
        return content if same and all(map(any, content["state"])) else None


def _run(weights: str, dataset_dir: str, device: str, precision: str) -> str:
    """A hash of what determines the results of this command line."""
    files, settings = layers(parse_options(sys.argv[1:]))
    settings = {name: value for name, value in settings.items() if name not in FOLDERS}
    parser = merge([file for file in files if not Path(file).name.startswith(SEVERAL)], settings)
    parser.resolve_macro_and_relative_ids()  # the content of a file, as of an after-treatment, not only its name
    config = {name: value for name, value in parser.get().items() if name not in OF_THE_MACHINE}
    places = [Path(weights), *(Path(weights).with_name(name) for name in (SETTINGS, QUALITY, TREATMENT))]
    paths = [path for path in places if path.is_file()]
    content = [sha256_of(path) for path in paths]
    state = [hash_of_code(), config, content, str(Path(dataset_dir).resolve()), device, precision]
    return hashlib.sha256(json.dumps(state, default=str).encode()).hexdigest()
