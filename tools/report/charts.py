"""Charts of a run for the page and for papers: training curves, scores by region, volumes, lesions."""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator
from tumour.files import atomic_write
from tumour.pictures.drawing import colours_of
from tumour.scores.tables import SHOWN

SIZE = (4.2, 3.1)  # of a chart, in inches
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.parse_math": False,
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
}
OUTCOMES = {"found": "o", "missed": "x", "invented": "^"}  # of a lesion, with the marker
METRICS = ("dice", "hd95", "lesion_dice")
INK, GREY = "#000000", "#777777"
Draw = Callable[[Axes], None]


def address(case: str) -> str:
    """The link to a case on the page."""
    return f"#case/{quote(case)}"


def svg(draw: Draw) -> str:
    """A chart as SVG; the tooltip of a point with a link is the name of its case."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(SIZE, layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # `savefig` draws everything twice
    # ink and paper of the page, which is light or dark; all other colours can be seen on both
    text = buffer.getvalue().replace("#000000", "currentColor").replace("#ffffff", "var(--paper)")
    link = r'<a [^>]*xlink:href="#case/([^"]*)"[^>]*>'
    return re.sub(link, r'<a xlink:href="#case/\1" aria-label="\1"><title>\1</title>', text[text.index("<svg") :])


def save_curves(draws: Sequence[Draw], folder: Path) -> None:
    """Write all training curves as one figure to curves.png and curves.svg."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((2 * SIZE[0], -(-len(draws) // 2) * SIZE[1]), layout="constrained")
        for axes, draw in zip(np.ravel(figure.subplots(-(-len(draws) // 2), 2)), draws, strict=False):
            draw(axes)
        for ending in ("png", "svg"):
            with atomic_write(folder / f"curves.{ending}") as path:
                figure.savefig(path, dpi=150, metadata={"Date": None} if ending == "svg" else None)
            figure.set_layout_engine("none")  # the places are found


def _line(axes: Axes, x: pd.Series, y: pd.Series, colour: str, label: str, dashed: bool = False) -> None:
    rim = [Stroke(linewidth=2.6, foreground="#333"), Normal()]  # keeps light colours visible on white
    known = y.notna()
    style: Any = {"linestyle": (0, (3, 2)), "linewidth": 1.1} if dashed else {"linewidth": 1.6, "path_effects": rim}
    axes.plot(x[known], y[known], color=colour, label=label, marker="." if known.sum() < 3 else "", **style)


def _epochs(axes: Axes, title: str, best: int | None) -> None:
    axes.set(title=title, xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if best:
        axes.axvline(best, color=GREY, linestyle=":", label=f"best epoch, {best}")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=7)


def best_epoch(log: pd.DataFrame) -> int | None:
    """The epoch with the best mean validation Dice, whose checkpoint is kept; None without a validation."""
    dice = log["validate_dice"].dropna() if "validate_dice" in log else pd.Series(dtype=float)
    return int(log["epoch"][dice.idxmax()]) if len(dice) else None


def curves(log: pd.DataFrame, regions: Iterable[str]) -> list[Draw]:
    """Charts of training.csv: loss, learning rate, and Dice and IoU by region; training is dashed."""
    best, colours = best_epoch(log), colours_of(regions)

    def loss(axes: Axes) -> None:
        for column, label, dashed in (
            ("loss", "train, patches", True),
            ("validate_loss", "validate, whole brains", False),
        ):
            if column in log:
                _line(axes, log["epoch"], log[column], INK, label, dashed)
        _epochs(axes, "Loss", best)

    def rate(axes: Axes) -> None:
        _line(axes, log["epoch"], log["learning_rate"], INK, "")
        _epochs(axes, "Learning rate", best)

    def both(axes: Axes, metric: str, title: str) -> None:
        for region, colour in colours.items():
            for part, dashed in (("train", True), ("validate", False)):
                if f"{part}_{metric}_{region}" in log:
                    label = f"{region}, {part}"
                    _line(axes, log["epoch"], log[f"{part}_{metric}_{region}"], colour, label, dashed)
        axes.set_ylim(0, 1)
        _epochs(axes, title, best)

    return [loss, rate, partial(both, metric="dice", title="Dice"), partial(both, metric="iou", title="IoU")]


def _points(axes: Axes, x: Any, y: Any, cases: Iterable[str], colour: str, label: str, marker: str = "o") -> None:
    thin: Any = {"edgecolors": "#333", "linewidths": 0.7} if marker != "x" else {"linewidths": 1.6}
    drawn = axes.scatter(x, y, s=34, c=colour, marker=marker, label=label, zorder=3, **thin)
    drawn.set_urls([address(case) for case in cases])


def distribution(axes: Axes, scores: pd.DataFrame, metric: str, title: str) -> None:
    """One box per region, with one point per case."""
    colours = colours_of(scores["region"].unique())
    for place, (region, colour) in enumerate(colours.items()):
        part = scores[scores["region"] == region].dropna(subset=[metric])
        if part.empty:
            continue
        axes.boxplot(part[metric], positions=[place], widths=0.6, showfliers=False, medianprops={"color": GREY})
        aside = place + (part[metric].rank(method="first") % 5 - 2) * 0.08  # so that points do not hide each other
        _points(axes, aside, part[metric], part["case"], colour, region)
    axes.set_xticks(range(len(colours)), list(colours))
    axes.set(title=title)


def volumes(axes: Axes, scores: pd.DataFrame) -> None:
    """Predicted against reference volume, with a line where they are equal."""
    for region, colour in colours_of(scores["region"].unique()).items():
        part = scores[scores["region"] == region]
        _points(axes, part["reference_ml"], part["predicted_ml"], part["case"], colour, region)
    most = max(scores[["reference_ml", "predicted_ml"]].max().max(), 0.1)
    axes.plot([0, most], [0, most], color=GREY, linestyle=":")
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set(title="Volume", xlabel="reference, ml", ylabel="predicted, ml")
    axes.legend(fontsize=7)


def lesions(axes: Axes, rows: pd.DataFrame) -> None:
    """Size of every lesion by region and outcome; the predicted size for invented lesions."""
    colours = colours_of(rows["region"].unique())
    for place, (region, colour) in enumerate(colours.items()):
        for step, (outcome, marker) in enumerate(OUTCOMES.items()):
            part = rows[(rows["region"] == region) & (rows["outcome"] == outcome)]
            size = part["predicted_ml" if outcome == "invented" else "reference_ml"]
            if len(part):
                _points(axes, size, np.full(len(part), place + (step - 1) * 0.25), part["case"], colour, "", marker)
    for outcome, marker in OUTCOMES.items():
        axes.scatter([], [], c=GREY, marker=marker, label=outcome)
    axes.set_yticks(range(len(colours)), list(colours))
    axes.set_xscale("log")
    axes.set(title="Lesions", xlabel="size, ml")
    axes.legend(fontsize=7)


def score_charts(scores: pd.DataFrame, lesion_rows: pd.DataFrame) -> list[Draw]:
    """Charts of scores.csv and, if the rules count lesions, of lesions.csv."""
    shown = {metric: SHOWN[metric][0] for metric in METRICS if metric in scores}
    draws: list[Draw] = [partial(distribution, scores=scores, metric=m, title=title) for m, title in shown.items()]
    draws.append(partial(volumes, scores=scores))
    if len(lesion_rows):
        draws.append(partial(lesions, rows=lesion_rows))
    return draws
