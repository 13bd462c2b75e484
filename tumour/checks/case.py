"""What is wrong or doubtful with one case, from its files alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumour.checks import label as label_check
from tumour.errors import InputError
from tumour.processes import cores
from tumour.scans import nifti as scan
from tumour.scans.nifti import Scan, apart, read_scan

OVERLAP = (0.5, 0.9)  # Dice of the brains in two modalities: below the first they are unregistered, the second doubtful


@dataclass
class Finding:
    """What the check of a case found.

    Args:
        case, patient: ids.
        faults: why it cannot be used, each naming the file and the mend.
        notes: what is doubtful but can be used.
        across: what is doubtful beside other cases or files.
        labelled: whether it has a label file.
        facts: its grid, volumes and hashes.
        stamp: changes with the files, the convention and the check.
    """

    case: str
    patient: str
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    across: list[str] = field(default_factory=list)
    labelled: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    stamp: str = ""

    @property
    def status(self) -> str:
        return "unusable" if self.faults else "note" if self.notes + self.across else "good"

    @property
    def why(self) -> str:
        return "; ".join(self.faults or self.notes + self.across)

    @property
    def sentence(self) -> str:
        return f"{self.case}: {self.why}."

    def record(self) -> dict[str, Any]:
        return {"status": self.status, **asdict(self)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Finding:
        """A finding again, less what other cases had to do with it."""
        return cls(**{key: value for key, value in record.items() if key not in ("status", "across")})


class CaseCheck:
    """Check cases by a convention; what `record` knows of files that did not change is taken from there.

    Args:
        cohort: the name of the convention.
        cohorts: all conventions by name; another one is named where a label fits it better.
        classes: class names, background first.
        modalities: what the images of a case are.
        record: check.json of an earlier check, which need not be there.
    """

    def __init__(
        self,
        cohort: str,
        cohorts: Mapping[str, Mapping[str, Any]],
        classes: Sequence[str],
        modalities: Sequence[str],
        record: str | None = None,
    ) -> None:
        self.cohort, self.cohorts, self.convention = cohort, cohorts, cohorts[cohort]
        self.classes, self.modalities = list(classes), list(modalities)
        self.left_out: list[str] = []  # sentences on the cases that a run does without
        self.tested: list[Mapping[str, Any]] = []  # usable cases that a run keeps for testing
        rules = [Path(path).read_bytes() for path in (__file__, scan.__file__, label_check.__file__)]
        task = json.dumps([self.convention, self.classes, self.modalities]).encode()
        self.rules = hashlib.blake2b(b"".join([*rules, task])).hexdigest()
        self.known: dict[str, Finding] = {}
        if record and Path(record).is_file():
            try:
                earlier = json.loads(Path(record).read_text(encoding="utf-8"))["cases"]
                self.known = {item["stamp"]: Finding.from_record(item) for item in earlier}
            except (ValueError, TypeError, KeyError):
                pass  # of another version: the cases are checked anew

    def __call__(self, case: Mapping[str, Any]) -> Finding:
        paths = self.paths(case)
        stamp = self.stamp(paths.values())
        if stamp in self.known:
            return self.known[stamp]
        finding = Finding(case["case"], case["patient"], labelled="label" in paths, stamp=stamp)
        try:
            self.look_at_files(finding, paths)
        except Exception as error:  # no case may end a run
            finding.faults.append(f"it could not be checked ({type(error).__name__}: {error}); look at its files")
        return finding

    def look_at_files(self, finding: Finding, paths: Mapping[str, str]) -> None:
        """Add to a finding what its files show."""
        brains: dict[str, NDArray[np.bool_]] = {}
        first: Scan | None = None
        with ThreadPoolExecutor(cores()) as pool:
            files = [(name, pool.submit(read_scan, path)) for name, path in paths.items()]
            for name, read in files:
                try:
                    file = read.result()
                except InputError as error:
                    finding.faults.append(str(error))
                    continue
                finding.notes += [] if first else file.notes  # the others lie as the first, or it is told
                first = first or file.emptied()
                if told := apart(first, file):
                    finding.faults.append(told)
                if name == "label":
                    label_check.look(finding, file, brains, self.cohort, self.cohorts, self.classes)
                else:
                    self.look_at_image(finding, file, name, brains)
        if first:
            spacing = first.spacing.round(4).tolist()
            finding.facts |= {"shape": list(first.shape), "spacing": spacing, "orientation": first.orientation}
        if not finding.faults:
            overlaps(finding, brains)

    def paths(self, case: Mapping[str, Any]) -> dict[str, str]:
        """The files of a case by modality; a 4-D one is called `image`."""
        image, label = case["image"], case.get("label", case.get("reference"))
        names = case["present"].split(",") if "present" in case else self.modalities
        paths = {"image": image} if isinstance(image, str) else dict(zip(names, image, strict=True))
        return paths | ({} if label is None else {"label": label})

    def stamp(self, paths: Any) -> str:
        state = [(path, *_size_and_time(path)) for path in paths]
        return hashlib.blake2b(f"{self.rules}{state}".encode(), digest_size=12).hexdigest()

    def look_at_image(self, finding: Finding, file: Scan, name: str, brains: dict[str, NDArray[np.bool_]]) -> None:
        """Note the faults of an image, the hash of each volume, and in `brains` where it is not 0."""
        channels = self.convention.get("channels")
        if file.data.shape[3:] != ((len(channels),) if channels else ()):
            wanted = f"four axes, the last for {', '.join(channels)}" if channels else "three axes"
            finding.faults.append(f"'{file.path}' has the shape {file.data.shape}, not {wanted}; export it so")
            return
        digests = finding.facts.setdefault("digests", {})
        for modality in self.modalities if channels else [name]:
            data = file.data[..., channels.index(modality)] if channels else file.data
            low, high = data.min(), data.max()
            if low == high:
                finding.faults.append(f"'{file.path}': its {modality} is {low} everywhere; export it again")
                continue
            brain = data != 0
            if brain.mean() > 0.95:
                finding.notes.append(f"'{file.path}': the background of its {modality} is not 0; skull-strip it")
            else:
                brains[modality] = brain
            digest = file.digest(data)
            for other, known in digests.items():
                if digest == known:
                    finding.faults.append(f"'{file.path}' is the scan of its {other}, not {modality}; restore it")
            digests[modality] = digest


def overlaps(finding: Finding, brains: Mapping[str, NDArray[np.bool_]]) -> None:
    """Note where the brains of two modalities lie apart."""
    sizes = {name: np.count_nonzero(brain) for name, brain in brains.items()}
    dice = {
        (a, b): 2 * np.count_nonzero(brains[a] & brains[b]) / (sizes[a] + sizes[b]) for a, b in combinations(brains, 2)
    }
    if not dice:
        return
    (one, other), least = min(dice.items(), key=lambda item: item[1])
    finding.facts["least_overlap"] = round(least, 3)
    told = f"the brains in its {one} and {other} differ (Dice {least:.2f})"
    if least < OVERLAP[0]:
        finding.faults.append(f"{told}; register them, or find the scans of one patient")
    elif least < OVERLAP[1]:
        finding.notes.append(f"{told}, as when a field of view is cut or a scan is not registered; look at them")


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        states = [each.stat() for each in (Path(path), *sorted(Path(path).glob("*")))]  # a folder's files with it
    except OSError:
        return (0, 0)
    return sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)
