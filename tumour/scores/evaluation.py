"""Score the cases of an evaluation as they come, and write the scores after the last."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from tumour.cohort import Cohort
from tumour.errors import InputError
from tumour.files import save_json
from tumour.processes import gather, rank
from tumour.scores.challenges import score_case
from tumour.scores.tables import table, write_scores

KEPT = ("cases", "mean", "interval_low", "interval_high")
RECORD = "scores.json"  # beside a checkpoint: how its network scored
logger = logging.getLogger("bundle")


def scores_of(checkpoint: Path) -> dict[str, Any]:
    """What is recorded of a checkpoint's scores, by cohort; of another file of this name, nothing."""
    return _record(checkpoint)["cohorts"]


def _record(checkpoint: Path) -> dict[str, Any]:
    """The record beside a checkpoint, or an empty one if there is none of this very file."""
    path, sha256 = checkpoint.with_name(RECORD), hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return told if told.get("sha256") == sha256 else {"sha256": sha256, "cohorts": {}}


def record_scores(checkpoint: Path, cohort: str, summary: Mapping[str, Any]) -> None:
    """Keep the Dice and HD95 of the regions beside the checkpoint that reached them, for its model card."""
    told = {
        region: {name: {part: of[name][part] for part in KEPT} for name in ("dice", "hd95")}
        for region, of in summary["scores"].items()
        if of["kind"] == "region"
    }
    record = _record(checkpoint)
    record["cohorts"][cohort] = {"challenge": summary["challenge"], "scores": told}
    save_json(record, checkpoint.with_name(RECORD))


class ScoreCases:
    """Handler that scores `pred` against `reference`, both (1, *S) in the data set's values on the scan's own grid.

    Args:
        folder: where scores.csv, lesions.csv and summary.json go.
        challenge: its rules, one of `tumour.scores.challenges.CHALLENGES`.
        cohort: what the values mean, and the regions.
        checkpoint: the network's weights; their scores are kept next to them.
    """

    def __init__(self, folder: str, challenge: str, cohort: Cohort, checkpoint: str) -> None:
        self.folder, self.challenge, self.cohort, self.checkpoint = folder, challenge, cohort, Path(checkpoint)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.score)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        self.rows: list[dict[str, Any]] = []
        self.lesions: list[dict[str, Any]] = []

    def score(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            case, spacing = item["case"], item["reference"].pixdim.tolist()
            reference, prediction = (
                self.cohort.to_classes(np.asarray(label.cpu())[0], f"{case}: its {what}")
                for label, what in ((item["reference"], "label"), (output["pred"], "prediction"))
            )
            rows, lesions = score_case(case, reference, prediction, spacing, self.challenge, self.cohort)
            self.rows += rows
            self.lesions += lesions

    def write(self, engine: Engine) -> None:
        rows, lesions = (sorted(gather(part), key=lambda row: row["case"]) for part in (self.rows, self.lesions))
        if not rows:
            raise InputError("No case could be scored; the lines above say why.")
        if rank():
            return
        summary = write_scores(rows, lesions, self.folder, challenge=self.challenge)
        if self.checkpoint.is_file():
            record_scores(self.checkpoint, self.cohort.name, summary)
        logger.info(f"mean ± sd, rules of {self.challenge}:\n{table(summary)}")
