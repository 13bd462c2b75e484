"""Check the files of one case for errors and possible problems."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tumour.cases.case import Case, LeftOut
from tumour.checks import label as label_check
from tumour.checks.strangers import field_of_view, intensities, relations, z_scores
from tumour.cohort import LABEL, Cohort
from tumour.errors import InputError
from tumour.files import hash_of_code, size_and_times
from tumour.processes import cores
from tumour.records import read_json
from tumour.scans.grid import Mask, Scan, difference, digest
from tumour.scans.readers import background_of, read_scan

ABSURD = 1e6  # times the 99th percentile: a maximum above it is damage, and turns the rest of the scan into 0
# Dice of the brains in two modalities: below the first they are not registered, below the second it is doubtful
OVERLAP = (0.5, 0.9)
FINDING = {  # what a record contains of a `Finding`
    "case": str,
    "patient": str,
    "faults": [str],
    "notes": [str],
    "labelled": bool,
    "facts": {str: object},
    "stamp": str,
}


@dataclass
class Finding:
    """The result of checking a case.

    Args:
        case, patient: ids.
        faults: reasons why the case cannot be used, each with the file and how to fix it.
        notes: possible problems of a usable case.
        across: possible problems that were found by comparing it with other cases.
        labelled: whether it has a label file.
        facts: its grid, volumes and hashes.
        stamp: a hash of the state of its files, the cohort and the code of the check.
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
    def left_out(self) -> LeftOut:
        """The case with its faults, or else its notes."""
        return LeftOut(self.case, self.why)

    def record(self) -> dict[str, Any]:
        return {"status": self.status, **asdict(self)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """A finding from its record, without `across`, because the other cases may have changed."""
        return cls(**{name: record[name] for name in FINDING})


class CaseCheck:
    """Check cases of a cohort. Cases whose files have not changed since an earlier check are not read again.

    Args:
        cohort: naming and meaning of the files.
        cohorts: all cohorts by name; if a label does not match `cohort`, the message suggests those that it matches.
        modalities: the modalities of the network.
        record: path of check.json from an earlier check; it need not exist.
    """

    def __init__(
        self, cohort: Cohort, cohorts: Mapping[str, Cohort], modalities: Sequence[str], record: str | None = None
    ) -> None:
        self.cohort, self.cohorts, self.modalities = cohort, cohorts, list(modalities)
        self.rules = json.dumps([hash_of_code(), asdict(cohort), self.modalities])
        self.known: dict[str, Finding] = {}
        if record and Path(record).is_file():
            try:
                earlier = read_json(Path(record), {"cases": [FINDING]})["cases"]
                self.known = {item["stamp"]: Finding.from_record(item) for item in earlier}
            except InputError:
                pass  # damaged or written by another version: all cases are checked again

    def __call__(self, case: Case) -> Finding:
        stamp = self.stamp(case.files)
        if stamp in self.known:  # other cases, or none, may have given it another name
            return replace(self.known[stamp], case=case.name, patient=case.patient)
        finding = Finding(case.name, case.patient, labelled=case.label is not None, stamp=stamp)
        try:
            self.look_at_files(finding, case.files)
        except Exception as error:  # an unexpected error in one case must not end the run
            finding.faults.append(f"it could not be checked ({type(error).__name__}: {error}); check its files")
        return finding

    def look_at_files(self, finding: Finding, files: Mapping[str, str]) -> None:
        """Add the faults, notes and facts of the files to a finding."""
        brains: dict[str, Mask] = {}
        scores: dict[str, NDArray[np.float32]] = {}
        first: Scan | None = None
        with ThreadPoolExecutor(cores()) as pool:
            scans = [(name, pool.submit(read_scan, path)) for name, path in files.items()]
            for name, future in scans:
                try:
                    scan = future.result()
                except InputError as error:
                    finding.faults.append(str(error))
                    continue
                finding.notes += [] if first else scan.notes  # the others must have the same orientation
                first = first or scan.without_data()
                if fault := difference(first, scan) or _other_patient(first, scan):
                    finding.faults.append(fault)
                if name == LABEL:
                    label_check.look(finding, scan, brains, self.cohort, self.cohorts)
                else:
                    self.look_at_image(finding, scan, name, brains, scores)
        if first:
            spacing = first.spacing.round(4).tolist()
            finding.facts |= {"shape": list(first.shape), "spacing": spacing, "orientation": first.orientation}
            finding.facts["field"] = field_of_view(first)
        if not finding.faults:
            _compare_brains(finding, brains)
            finding.facts["relations"] = relations(scores)

    def stamp(self, files: Mapping[str, str]) -> str:
        """A hash of the sizes and times of files, the cohort and the code of the check."""
        state = [(name, path, *size_and_times(path)) for name, path in files.items()]
        return hashlib.blake2b(f"{self.rules}{state}".encode(), digest_size=12).hexdigest()

    def look_at_image(
        self,
        finding: Finding,
        scan: Scan,
        name: str,
        brains: dict[str, Mask],
        scores: dict[str, NDArray[np.float32]],
    ) -> None:
        """Add the faults of an image and the hash of each volume to a finding, and what other images need to the dicts.

        Args:
            finding, scan, name: the finding so far; the image; its modality, or `image` for all of them.
            brains: the non-zero voxels by modality.
            scores: the z-scores by modality.
        """
        channels = self.cohort.channels
        if scan.volumes.shape[3] != len(channels or [name]):
            wanted = f"four axes, the last for {', '.join(channels)}" if channels else "three axes"
            finding.faults.append(f"'{scan.path}' has the shape {scan.data.shape}, not {wanted}; export it again")
            return
        digests = finding.facts.setdefault("digests", {})
        for modality in self.modalities if channels else [name]:
            data = scan.volumes[..., channels.index(modality) if channels else 0]
            low, high = data.min(), data.max()
            if low == high:
                finding.faults.append(f"'{scan.path}': every voxel of its {modality} is {low}; export it again")
                continue
            usual = np.percentile(np.abs(data[::3, ::3, ::3].astype(float)), 99)
            if max(float(high), -float(low)) > ABSURD * usual > 0:
                limits = f"its {modality} goes from {low:g} to {high:g}, though 99% of it is below {usual:g}"
                finding.notes.append(f"'{scan.path}': {limits}; check it")
            background = background_of(data)
            if high <= background:
                dark = f"no voxel of its {modality} is brighter than the background, {background:g}"
                finding.faults.append(f"'{scan.path}': {dark}; check its scl_slope, or export it again")
                continue
            if background:
                finding.notes.append(f"'{scan.path}': {background:g} is taken for the background of its {modality}")
            brain = data != background
            volume = float(np.count_nonzero(brain) * np.prod(scan.spacing) / 1000)
            finding.facts.setdefault("brain_ml", round(volume, 1))
            scores[modality] = z_scores(data, brain)
            finding.facts.setdefault("intensities", {})[modality] = intensities(scores[modality])
            if brain.mean() > 0.95:
                finding.notes.append(f"'{scan.path}': the background of its {modality} is not 0; skull-strip it")
            else:
                brains[modality] = brain
            hashed = digest(data)
            for other, known in digests.items():
                if hashed == known:
                    finding.faults.append(f"'{scan.path}' has the same voxels for {modality} and {other}; restore it")
            digests[modality] = hashed


def _other_patient(first: Scan, second: Scan) -> str | None:
    """A message if two DICOM series have different patient ids, or None."""
    if first.patient == second.patient or not (first.patient and second.patient):
        return None
    both = f"'{first.path}' is from patient {first.patient}, but '{second.path}' is from patient {second.patient}"
    return f"{both}; a case must contain the series of one patient"


def _compare_brains(finding: Finding, brains: Mapping[str, Mask]) -> None:
    """Add a fault or note to a finding if the brains in two modalities overlap too little."""
    sizes = {name: np.count_nonzero(brain) for name, brain in brains.items()}
    dice = {
        (a, b): 2 * np.count_nonzero(brains[a] & brains[b]) / (sizes[a] + sizes[b]) for a, b in combinations(brains, 2)
    }
    if not dice:
        return
    (first, second), least = min(dice.items(), key=lambda item: item[1])
    finding.facts["least_overlap"] = round(least, 3)
    sentence = f"the brains in its {first} and {second} differ (Dice {least:.2f})"
    if least < OVERLAP[0]:
        finding.faults.append(f"{sentence}; register them, or check that both scans are from this patient")
    elif least < OVERLAP[1]:
        finding.notes.append(f"{sentence}; check that they are registered and that none is cut off")
