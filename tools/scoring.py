"""Score the cases of an evaluation as they come, and write the scores when the last is done."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

from tools.errors import InputError
from tools.parallel import gather, rank
from tools.score import score_case, table, to_classes, write_scores

logger = logging.getLogger("bundle")


class ScoreCases:
    """Handler that scores `pred` against `reference`, both (1, *S) in the data set's values on the scan's own grid.

    Args:
        folder: where scores.csv, lesions.csv and summary.json go.
        challenge: whose rules, of `tools.challenges.CHALLENGES`.
        classes: class names, background first.
        regions: class names of each region, by the region's name.
        label_values: how the data set stores each of `classes`.
    """

    def __init__(
        self,
        folder: str,
        challenge: str,
        classes: Sequence[str],
        regions: Mapping[str, Sequence[str]],
        label_values: Sequence[int],
    ) -> None:
        self.folder, self.challenge, self.classes, self.regions = folder, challenge, classes, regions
        self.label_values = label_values

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
                to_classes(np.asarray(label.cpu())[0], self.label_values, f"{case}: its {what}")
                for label, what in ((item["reference"], "label"), (output["pred"], "prediction"))
            )
            rows, lesions = score_case(case, reference, prediction, spacing, self.challenge, self.classes, self.regions)
            self.rows += rows
            self.lesions += lesions

    def write(self, engine: Engine) -> None:
        rows, lesions = (sorted(gather(part), key=lambda row: row["case"]) for part in (self.rows, self.lesions))
        if not rows:
            raise InputError("No case could be scored; the lines above say why.")
        if rank():
            return
        summary = write_scores(rows, lesions, self.folder, challenge=self.challenge)
        logger.info(f"mean ± sd, rules of {self.challenge}:\n{table(summary)}")
