"""Score each case of an evaluation, and write the scores after the last case."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from tumour.cohort import Cohort
from tumour.errors import InputError
from tumour.files import save_json, sha256_of, unwritable
from tumour.processes import gather, rank
from tumour.records import read_json
from tumour.scores.challenges import score_case
from tumour.scores.tables import table, write_scores

STATISTICS = ("cases", "mean", "interval_low", "interval_high")  # those recorded next to a checkpoint
RECORD = "scores.json"  # in the folder of a checkpoint: the scores of its network
MEAN = {"cases": int, "mean": float, "interval_low": float, "interval_high": float}
DATA_SET = {"challenge": str, "scores": {str: {"dice": MEAN, "hd95?": MEAN}}}  # the trials measured no HD95
SCORES = {"sha256": str, "cohorts": {str: DATA_SET}, "crossvalidation?": {str: {**DATA_SET, "folds": int}}}
logger = logging.getLogger("bundle")


def scores_of(checkpoint: Path) -> dict[str, Any]:
    """The recorded scores of a checkpoint by cohort; empty if the record belongs to another version of the file."""
    return _record(checkpoint)["cohorts"]


def crossvalidation_of(checkpoint: Path) -> dict[str, Any]:
    """The recorded scores of the cross-validation with the settings of a checkpoint, by cohort; often empty."""
    return _record(checkpoint).get("crossvalidation", {})


def _record(checkpoint: Path) -> dict[str, Any]:
    """The record next to a checkpoint, or a new one if there is none with the hash of this file."""
    path, sha256 = checkpoint.with_name(RECORD), sha256_of(checkpoint)
    record = read_json(path, SCORES) if path.is_file() else {}
    return record if record.get("sha256") == sha256 else {"sha256": sha256, "cohorts": {}}


def record_scores(checkpoint: Path, cohort: str, summary: Mapping[str, Any]) -> None:
    """Record the Dice and HD95 of the regions next to the checkpoint that was scored; its model card is made from it.

    Args:
        checkpoint: model.pt.
        cohort: name of the data set that was scored.
        summary: as returned by `tumour.scores.tables.write_scores`.
    """
    record = _record(checkpoint)
    record["cohorts"][cohort] = {"challenge": summary["challenge"], "scores": _of_regions(summary)}
    save_json(record, checkpoint.with_name(RECORD))


def record_crossvalidation(checkpoint: Path, cohort: str, summary: Mapping[str, Any]) -> None:
    """Record the scores of a cross-validation with the settings of a checkpoint next to it, apart from its own.

    Args:
        checkpoint: model.pt.
        cohort: name of the data set of the cross-validation.
        summary: of its scores, with its number of `folds`.
    """
    record = _record(checkpoint)
    scores = {"challenge": summary["challenge"], "folds": summary["folds"], "scores": _of_regions(summary)}
    record["crossvalidation"] = {cohort: scores}
    save_json(record, checkpoint.with_name(RECORD))


def _of_regions(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The Dice and HD95 of the regions in a summary."""
    return {
        region: {name: {statistic: metrics[name][statistic] for statistic in STATISTICS} for name in ("dice", "hd95")}
        for region, metrics in summary["scores"].items()
        if metrics["kind"] == "region" and metrics["dice"]["cases"]
    }


class ScoreCases:
    """Handler that scores `pred` against `reference`, label maps (1, *S) with the data set's values on the scan's grid.

    Args:
        folder: folder for scores.csv, lesions.csv and summary.json.
        challenge: the scoring rules, one of `tumour.scores.challenges.CHALLENGES`.
        cohort: the label values and the regions.
        checkpoint: the network's weights; the scores are also recorded next to them.
        finished: what was kept for the cases that were scored before the run was interrupted, by case; its `add` is
            given the scores of each case.
    """

    def __init__(self, folder: str, challenge: str, cohort: Cohort, checkpoint: str, finished: Any = None) -> None:
        self.folder, self.challenge, self.cohort, self.checkpoint = folder, challenge, cohort, Path(checkpoint)
        self.finished = finished

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.score)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        kept = [] if self.finished is None or rank() else [*self.finished.values()]
        self.rows: list[dict[str, Any]] = [row for each in kept for row in each["rows"]]
        self.lesions: list[dict[str, Any]] = [row for each in kept for row in each["lesions"]]
        self.sha256 = ""
        if self.checkpoint.is_file() and not rank():
            self.sha256 = _record(self.checkpoint)["sha256"]  # a damaged record is noticed before the work
            if fault := unwritable(self.checkpoint.parent):
                logger.warning(f"the scores will not be recorded next to the weights: {fault}")

    def score(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            case, spacing = item["case"], item["reference"].pixdim.tolist()
            reference, prediction = (
                self.cohort.to_classes(np.asarray(label.cpu())[0], f"{case}: its {name}")
                for label, name in ((item["reference"], "label"), (output["pred"], "prediction"))
            )
            rows, lesions = score_case(case, reference, prediction, spacing, self.challenge, self.cohort)
            self.rows += rows
            self.lesions += lesions
            if self.finished is not None:
                self.finished.add(rows=rows, lesions=lesions)

    def write(self, engine: Engine) -> None:
        rows, lesions = (sorted(gather(part), key=lambda row: row["case"]) for part in (self.rows, self.lesions))
        if not rows:
            raise InputError("No case could be scored; the messages above give the reasons.")
        if rank():
            return
        summary = write_scores(rows, lesions, self.folder, challenge=self.challenge)
        logger.info(f"mean ± sd, rules of {self.challenge}:\n{table(summary)}")
        if self.sha256:
            try:
                if _record(self.checkpoint)["sha256"] != self.sha256:  # as by a training that goes on
                    raise InputError("they were replaced during this run; score a copy of them in another folder.")
                record_scores(self.checkpoint, self.cohort.name, summary)
            except InputError as error:  # the scores are in their folder
                logger.warning(f"the scores are not recorded next to the weights: {error}")
