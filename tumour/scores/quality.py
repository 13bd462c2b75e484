"""How good is a label map that has no reference? Predicted Dice, a traffic light, and the slices to look at.

A region that hardly changes with the threshold is a good one: a line for each region turns the Dice of the region at
two thresholds into a prediction. It is fitted to cases that their network was not trained on, and kept next to the
weights as quality.json: data, no code.
"""

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from ignite.engine import Engine, Events
from tumour.errors import InputError
from tumour.files import save_json, save_text, sha256_of
from tumour.processes import gather, rank
from tumour.records import csv_text, read_json, read_table
from tumour.scores.calibration import LOGITS, Histogram

FILE = "quality.json"  # next to model.pt
TABLE = "quality.csv"  # in the folder of the label maps
LIGHTS = ("red", "yellow", "green")
WORST = 0.2  # share of the cases that a red light should catch
COST = 0.1  # the share of the other cases that may be red
MISSED = 0.05  # the share of cases whose Dice is below the interval, and of those above it
SHRINKAGE = 0.1  # pulls the line of a region towards the stability itself; it matters for a few cases alone
MARGIN = 1.1  # the two thresholds as logits: probabilities of 0.75 and 0.25
FEWEST = 10  # cases for a fit
REGION = {"offset": float, "slope": float, "empty": float}
RECORD = {"regions": {str: REGION}, "low": float, "high": float, "red": float, "poor": float, "cases": int}
RECORD |= {"settings": {str: object}, "sha256": str}  # what quality.json contains
CASE_EVIDENCE = {"histograms": {str: [[float]]}, "entropy": [float]}  # what evidence.json contains of a case
logger = logging.getLogger("bundle")


@dataclass(frozen=True)
class Scored:
    """A case with a reference, segmented by a network that was not trained on it.

    Args:
        case: its id.
        fold: of the cross-validation.
        histograms: (2, STEPS) by region.
        dice: by region; 1 where it is in neither mask.
    """

    case: str
    fold: int
    histograms: Mapping[str, Histogram]
    dice: Mapping[str, float]

    @property
    def mean(self) -> float:
        return float(np.mean([*self.dice.values()]))


@dataclass(frozen=True)
class Region:
    """The model of a region.

    Args:
        offset, slope: predicted Dice = offset + slope * stability.
        empty: the predicted Dice if the region is empty.
    """

    offset: float
    slope: float
    empty: float

    def predict(self, histogram: Histogram) -> float:
        """The predicted Dice of a region with this histogram."""
        if not is_predicted(histogram):
            return self.empty
        return min(max(self.offset + self.slope * stability(histogram), 0.0), 1.0)


def is_predicted(histogram: Histogram) -> bool:
    """Whether any voxel has a probability of 0.5 or more."""
    return bool(histogram[:, LOGITS > 0].any())


def stability(histogram: Histogram) -> float:
    """The Dice of the region at a high and at a low threshold: the voxels of the first are part of the second."""
    core, rim = (float(histogram[:, each < LOGITS].sum()) for each in (MARGIN, -MARGIN))
    return 2 * core / max(core + rim, 1.0)


def fit_region(histograms: Sequence[Histogram], dice: Sequence[float]) -> Region:
    """The model of a region, from the histograms (2, STEPS) and the true Dice of some cases."""
    there = np.array([is_predicted(each) for each in histograms])
    stable = np.array([stability(each) for each in histograms])[there]
    rows = np.stack([np.ones_like(stable), stable], axis=1)
    change = np.linalg.solve(rows.T @ rows + SHRINKAGE * np.eye(2), rows.T @ (np.array(dice)[there] - stable))
    empty = np.array(dice)[~there]
    return Region(float(change[0]), 1 + float(change[1]), float((empty.sum() + 1) / (len(empty) + 2)))


def fit_regions(cases: Sequence[Scored]) -> dict[str, Region]:
    """The model of each region."""
    return {
        name: fit_region([case.histograms[name] for case in cases], [case.dice[name] for case in cases])
        for name in cases[0].dice
    }


@dataclass(frozen=True)
class Judgement:
    """What is predicted for a case.

    Args:
        case: its id.
        light: red, yellow or green.
        dice: predicted mean Dice of the regions.
        low, high: the interval of the mean Dice.
        regions: predicted Dice by region.
        slices: the axial slices of the scan with most uncertainty, counted from 0, the first index of the file.
        note: what is doubtful about its scans.
    """

    case: str
    light: str
    dice: float
    low: float
    high: float
    regions: Mapping[str, float]
    slices: Sequence[int] = ()
    note: str = ""

    def row(self) -> dict[str, Any]:
        """The row of quality.csv."""
        numbers = {"dice": self.dice, "low": self.low, "high": self.high}
        numbers |= {f"dice_{name}": value for name, value in self.regions.items()}
        rounded = {name: round(value, 3) for name, value in numbers.items()}
        slices = " ".join(map(str, self.slices))
        return {"case": self.case, "light": self.light, **rounded, "slices": slices, "note": self.note}


@dataclass(frozen=True)
class Quality:
    """The model of a network's quality.

    Args:
        regions: the model of each region.
        low, high: the ends of the interval of the mean Dice, as shares of what the prediction lacks to 1.
        red: a case is red if its predicted mean Dice is this or less.
        poor: the mean Dice of the best case among the worst fifth. A case is green if its interval is above it.
        cases: number of cases that it was fitted to.
        settings: of the segmenting that it is valid for.
        sha256: of the weights that it is valid for; empty for none yet.
    """

    regions: Mapping[str, Region]
    low: float
    high: float
    red: float
    poor: float
    cases: int
    settings: Mapping[str, Any]
    sha256: str = ""

    @classmethod
    def fit(cls, cases: Sequence[Scored], settings: Mapping[str, Any]) -> Self:
        """Fit the model to cases; interval and thresholds are set on each case with a model of the others.

        Raises:
            InputError: there are fewer than 10 cases.
        """
        if len(cases) < FEWEST:
            raise InputError(f"A model of the quality needs {FEWEST} cases or more; there are {len(cases)}.")
        predicted = np.array(
            [mean_of(fit_regions([*cases[:n], *cases[n + 1 :]]), case.histograms) for n, case in enumerate(cases)]
        )
        true = np.array([case.mean for case in cases])
        error = (true - predicted) / lacking(predicted)
        low, high = np.quantile(error, [MISSED, 1 - MISSED], method="closest_observation")
        order = np.argsort(true, kind="stable")
        worst, others = np.split(order, [round(WORST * len(cases))])
        spared = np.sort(predicted[others])[math.floor(COST * len(others))]  # this case must not be red
        below = predicted[predicted < spared]
        red = min(float(below.max(initial=0)), float(predicted[worst].max()))
        return cls(
            fit_regions(cases), float(low), float(high), red, float(true[worst].max()), len(cases), dict(settings)
        )

    def judge(
        self, case: str, histograms: Mapping[str, Histogram], slices: Sequence[int] = (), note: str = ""
    ) -> Judgement:
        """Predict the Dice of a case; a case with a note is never green.

        Args:
            case: its id.
            histograms: by region; a reference is not used.
            slices, note: those of the judgement.
        """
        regions = {name: model.predict(histograms[name]) for name, model in self.regions.items()}
        dice = float(np.mean([*regions.values()]))
        low, high = (min(max(dice + share * lacking(dice), 0.0), 1.0) for share in (self.low, self.high))
        light = "red" if dice <= self.red else "green" if low > self.poor and not note else "yellow"
        return Judgement(case, light, dice, low, high, regions, slices, note)

    def save(self, checkpoint: Path) -> None:
        """Write it next to the weights that it is valid for from now on."""
        content = asdict(self) | {"sha256": sha256_of(checkpoint)}
        save_json(content, checkpoint.with_name(FILE))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read it from a file.

        Raises:
            InputError: the file is damaged.
        """
        content = read_json(path, RECORD)
        regions = {name: Region(**{key: each[key] for key in REGION}) for name, each in content["regions"].items()}
        if not regions:
            raise InputError(f"'{path}' has no regions; restore or delete it.")
        return cls(regions, **{name: content[name] for name in RECORD if name != "regions"})


def lacking(dice: Any) -> Any:
    """What a Dice lacks to 1, at least 0.01: the errors of good predictions are smaller."""
    return np.maximum(1 - dice, 0.01)


def mean_of(regions: Mapping[str, Region], histograms: Mapping[str, Histogram]) -> float:
    """The predicted mean Dice of the regions."""
    return float(np.mean([model.predict(histograms[name]) for name, model in regions.items()]))


def quality_of(checkpoint: str, **settings: Any) -> Quality | None:
    """The model next to a checkpoint; None if there is none, or if it is valid for other weights or settings.

    Args:
        checkpoint: model.pt.
        settings: of this segmenting; those that were not recorded may have any value.
    """
    weights, path = Path(checkpoint), Path(checkpoint).with_name(FILE)
    if not (weights.is_file() and path.is_file()):
        return None
    quality = Quality.read(path)
    now = json.loads(json.dumps(settings))
    differ = [name for name, value in quality.settings.items() if name in now and now[name] != value]
    if quality.sha256 != sha256_of(weights):
        logger.warning(f"'{path}' belongs to other weights and is not used: no quality is predicted.")
    elif differ:
        wanted = f"{differ[0]} = {quality.settings[differ[0]]}"
        logger.warning(f"'{path}' is valid for {wanted} and is not used: no quality is predicted.")
    else:
        return quality
    return None


def uncertain_slices(entropy: Sequence[float], most: int = 5, apart: int = 3) -> list[int]:
    """The slices with the highest entropy, at least `apart` slices from each other, in order.

    Args:
        entropy: the sum for each slice.
        most: number of slices.
        apart: least distance of two slices.
    """
    found: list[int] = []
    left = np.array(entropy, float)
    while len(found) < most and left.max(initial=0) > 0:
        found.append(int(left.argmax()))
        left[max(found[-1] - apart + 1, 0) : found[-1] + apart] = 0
    return sorted(found)


def worst_first(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of judgements in the order of the table."""
    return sorted(rows, key=lambda row: (LIGHTS.index(row["light"]), row["dice"], row["case"]))


def write_table(rows: Iterable[Mapping[str, Any]], folder: Path) -> None:
    """Write quality.csv, worst first, atomically."""
    save_text(csv_text(worst_first(rows)), folder / TABLE)


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of quality.csv; none if it does not exist."""
    path = folder / TABLE
    if not path.is_file():
        return []
    frame = read_table(path, ["case", "light", "dice", "low", "high", "slices", "note"])
    if not frame["light"].isin(LIGHTS).all():
        raise InputError(f"'{path}' has a light that is none of {', '.join(LIGHTS)}; restore or delete it.")
    return frame.fillna({"slices": "", "note": ""}).to_dict("records")


class JudgeCases:
    """Handler that judges each case by the `evidence` in the output of an evaluator, and writes quality.csv.

    Args:
        folder: folder of the label maps.
        quality: the model; without one, only the table of earlier label maps is deleted.
        cases: object with `notes`.
        finished: what was kept for the cases of a run that was interrupted; its `add` is given the row of each case.
    """

    def __init__(self, folder: str, quality: Quality | None, cases: Any, finished: Any = None) -> None:
        self.folder, self.quality, self.cases, self.finished = Path(folder), quality, cases, finished

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.forget)
        if self.quality is not None:
            engine.add_event_handler(Events.STARTED, self.start)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.judge)
            engine.add_event_handler(Events.COMPLETED, self.write)

    def forget(self, engine: Engine) -> None:
        if not rank():
            (self.folder / TABLE).unlink(missing_ok=True)  # of label maps that other weights may replace now

    def start(self, engine: Engine) -> None:
        kept = () if self.finished is None or rank() else self.finished.values()
        self.rows: list[dict[str, Any]] = [each["quality"] for each in kept]

    def judge(self, engine: Any) -> None:
        assert self.quality is not None
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            case, evidence = str(item["case"]), output["evidence"]
            note = "; ".join(note.why for note in self.cases.notes if note.case == case)
            histograms = {name: np.array(counts) for name, counts in evidence["histograms"].items()}
            found = self.quality.judge(case, histograms, uncertain_slices(evidence["entropy"]), note)
            self.rows.append(found.row())
            if self.finished is not None:
                self.finished.add(quality=self.rows[-1])
            log = logger.info if found.light == "green" else logger.warning
            log(f"{case}: {found.light}, predicted Dice {found.dice:.2f} ({found.low:.2f} to {found.high:.2f}).")

    def write(self, engine: Engine) -> None:
        rows = gather(self.rows)
        if rows and not rank():
            write_table(rows, self.folder)
            lights = [row["light"] for row in rows]
            counts = ", ".join(f"{lights.count(light)} {light}" for light in LIGHTS)
            logger.info(f"predicted quality: {counts}; see '{self.folder / TABLE}'.")


class KeepEvidence:
    """Handler that writes the `evidence` of all cases with a reference, for the fit of a model.

    Args:
        path: JSON file, an object by case.
        finished: what was kept for the cases of a run that was interrupted; its `add` is given that of each case.
    """

    def __init__(self, path: str, finished: Any = None) -> None:
        self.path, self.finished = Path(path), finished

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.keep)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        kept = () if self.finished is None or rank() else self.finished.items()
        self.kept: list[tuple[str, dict[str, Any]]] = [(case, each["evidence"]) for case, each in kept]

    def keep(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            self.kept.append((str(item["case"]), output["evidence"]))
            if self.finished is not None:
                self.finished.add(evidence=output["evidence"])

    def write(self, engine: Engine) -> None:
        kept = dict(gather(self.kept))
        if not rank():
            save_json(kept, self.path)
