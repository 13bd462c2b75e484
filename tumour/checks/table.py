"""The result of checking a data set as a printed table and as the files check.json and check.csv."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from tumour.cases.case import LeftOut
from tumour.checks.case import Finding
from tumour.files import save_text
from tumour.records import csv_text

HEADINGS = {"good": "good", "note": "usable with a note", "unusable": "unusable"}
SHOWN = 20  # number of notes and of unusable cases that are printed; the files contain all


@dataclass
class Report:
    """The result of checking a data set.

    Args:
        findings: the result for each case.
        left_out: cases that were not checked because files are missing.
        regions: class names of each region, by the region's name.
        strays: NIfTI files that belong to no case.
    """

    findings: Sequence[Finding]
    left_out: Sequence[LeftOut]
    regions: Mapping[str, Sequence[str]]
    strays: Sequence[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """The number of cases by status."""
        counts = {status: sum(finding.status == status for finding in self.findings) for status in HEADINGS}
        counts["unusable"] += len(self.left_out)
        return counts

    def time_points(self) -> dict[str, list[str]]:
        """The cases of each patient with more than one case."""
        cases = defaultdict(list)
        for finding in self.findings:
            cases[finding.patient].append(finding.case)
        return {patient: names for patient, names in cases.items() if len(names) > 1}

    def volumes(self) -> dict[str, dict[str, Any]]:
        """For each region, the number of labels with and without it, and its median and largest volume in ml."""
        classes = pd.DataFrame([finding.facts["ml"] for finding in self.findings if "ml" in finding.facts])
        volumes = {}
        for region, names in self.regions.items():
            ml = classes[list(names)].sum(axis=1) if len(classes) else pd.Series(dtype=float)
            present = ml[ml > 0]
            median, largest = (round(float(value), 2) for value in (present.median(), present.max()))
            volumes[region] = {
                "cases": len(present),
                "without": len(ml) - len(present),
                "median ml": median,
                "largest ml": largest,
            }
        return volumes if len(classes) else {}

    def write(self, folder: str) -> None:
        """Write check.json and check.csv atomically."""
        content = {
            "counts": self.counts,
            "left_out": [asdict(left_out) for left_out in self.left_out],
            "strays": list(self.strays),
            "several_time_points": self.time_points(),
            "regions": self.volumes(),
            "cases": [finding.record() for finding in self.findings],
        }
        save_text(json.dumps(content, indent=1), Path(folder, "check.json"))
        save_text(csv_text(self.rows()), Path(folder, "check.csv"))

    def rows(self) -> list[dict[str, Any]]:
        """The rows of check.csv, one per case."""
        rows: list[dict[str, Any]] = []
        for finding in self.findings:
            facts = finding.facts
            row: dict[str, Any] = {"case": finding.case, "patient": finding.patient}
            row |= {"status": finding.status, "why": finding.why}
            row |= {name: "x".join(map(str, facts.get(name, []))) for name in ("shape", "spacing")}
            row |= {name: facts.get(name, "") for name in ("orientation", "least_overlap", "lesions")}
            rows.append(row | {f"{name}_ml": ml for name, ml in facts.get("ml", {}).items()})
        rows += [{"case": e.case, "patient": "", "status": "unusable", "why": e.why} for e in self.left_out]
        return rows

    def table(self) -> str:
        """The text for the user: counts, the reason for each case that is not good, and the volumes of the regions."""
        blocks = ["\n".join(f"{heading:<20}{self.counts[status]:>7,}" for status, heading in HEADINGS.items())]
        for status in ("note", "unusable"):
            lines = [str(finding.left_out) for finding in self.findings if finding.status == status]
            lines += [str(left_out) for left_out in self.left_out] if status == "unusable" else []
            more = [f"... and {len(lines) - SHOWN:,} more, see check.csv"] if len(lines) > SHOWN else []
            if lines:
                blocks.append("\n  ".join([f"{HEADINGS[status]}:", *lines[:SHOWN], *more]))
        unlabelled = sum(not finding.labelled for finding in self.findings)
        if 0 < unlabelled < len(self.findings):
            blocks.append(f"Cases without a label: {unlabelled:,}; they can be segmented but not used for training.")
        if self.strays:
            blocks.append(f"NIfTI files that belong to no case: {len(self.strays):,}, e.g. '{self.strays[0]}'.")
        if several := self.time_points():
            blocks.append(
                f"Patients with several time points: {len(several):,}; a split keeps each patient in one part."
            )
        if volumes := self.volumes():
            blocks.append(pd.DataFrame.from_dict(volumes, orient="index").to_string())
        return "\n\n".join(blocks)
