"""Write the report of a run: a page for any browser that needs no server, and pictures for papers."""

import logging
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import pandas as pd
from ignite.engine import Engine, Events
from monai.utils import path_to_sqlite_uri
from tqdm import tqdm
from tumour.cases.case import Case, LeftOut
from tumour.cohort import Cohort
from tumour.errors import InputError
from tumour.files import copy_file, save_text
from tumour.pictures.drawing import (
    CHANGED,
    ERRORS,
    LEGEND,
    NAMES,
    background,
    change_map,
    colours_of,
    outlined,
    sheet,
    sweep,
    write_image,
)
from tumour.pictures.volumes import read_case
from tumour.processes import cores, end_with_parent
from tumour.records import csv_text, read_table
from tumour.scanner.picture import PICTURE
from tumour.scores.measurements import CHANGES, TABLE

from tools.report.charts import best_epoch, curves, save_curves, score_charts, svg
from tools.report.results import Results
from tools.report.slides import slides

PAGE = Path(__file__).with_name("page")
VIEWER = "_assets/js/niivue.umd.js"  # in nilearn
LIGHTS = {"red": "#D55E00", "yellow": "#F0E442", "green": "#009E73"}  # of Okabe & Ito, and each has its word
ROUNDING = 0.005  # of a Dice
logger = logging.getLogger("bundle")


def draw_case(
    case: Case,
    prediction: str,
    cohort: Cohort,
    modalities: Sequence[str],
    folder: Path,
    earlier: Mapping[str, str],
    dice: Mapping[str, Mapping[str, float]],
) -> tuple[LeftOut | None, LeftOut | None]:
    """Write the pictures of one case; why it cannot be drawn, and what is doubtful about it, as far as anything is.

    Args:
        earlier: the case of the same patient at the time point before, by case.
        dice: by case and region, from the table of scores.
    """
    before = Path(prediction).with_name(f"{earlier[case.name]}.nii.gz") if case.name in earlier else None
    try:
        volumes = read_case(case, prediction, cohort, modalities, before)
    except InputError as error:
        return LeftOut(case.name, str(error).removeprefix(f"{case.name}: ").rstrip(".")), None
    name, kinds = volumes.case, ("prediction", "reference")
    write_image(sheet(volumes), folder / f"{name}_overlay.png")
    sweep(volumes, folder / f"{name}.gif")
    thumbnail = outlined(volumes, background(volumes), "axial", volumes.centre()[2], float(min(volumes.spacing)), kinds)
    write_image(thumbnail, folder / "cases" / f"{name}.webp")
    if volumes.before:
        write_image(change_map(volumes), folder / "cases" / f"{name}_change.png")
    registration = Path(case.images[0]).parent / PICTURE  # of a case that was prepared from raw scans
    if registration.is_file():
        copy_file(registration, folder / "cases" / f"{name}_{PICTURE}")
    save_text(slides(volumes), folder / "cases" / f"{name}.js")
    notes = [volumes.note] if volumes.note else []
    scored = dice.get(name, {})
    if any(abs(scored.get(region, now) - now) > ROUNDING for region, now in volumes.dice.items()):
        notes.append("its scores are of another label map than the one that is shown; evaluate again")
    return None, LeftOut(name, "; ".join(notes)) if notes else None


def draw_cases(
    cases: Sequence[Case],
    predictions: Sequence[str],
    cohort: Cohort,
    modalities: Sequence[str],
    folder: Path,
    earlier: Mapping[str, str],
    dice: Mapping[str, Mapping[str, float]],
) -> list[tuple[LeftOut | None, LeftOut | None]]:
    """Draw all cases in parallel; for each why it cannot be drawn, and what is doubtful about it."""
    if not cases:
        return []
    job = partial(draw_case, cohort=cohort, modalities=modalities, folder=folder, earlier=earlier, dice=dice)
    with ProcessPoolExecutor(min(cores(), len(cases)), initializer=end_with_parent) as pool:
        drawn = pool.map(job, cases, predictions)
        return list(tqdm(drawn, "drawing", len(cases), unit="case", disable=None))


def write_report(
    bundle: str,
    cohort: Cohort,
    modalities: Sequence[str],
    output_dir: str,
    ckpt_dir: str,
    scores: str,
    segmentations: str,
    folder: str,
) -> None:
    """Write report.html with curves.png, curves.svg, means.csv, scores.csv, and two pictures of each case.

    Args:
        bundle: name of the bundle.
        cohort: meaning of the data set's files.
        modalities: those of the network.
        output_dir: folder with training.csv and the records of the runs.
        ckpt_dir: folder with patients.json.
        scores: folder with scores.csv.
        segmentations: folder with the label maps, and quality.csv; the cases that have a label map are drawn.
        folder: where to write the report.

    Raises:
        InputError: there is neither a training nor a label map.
    """
    began = time.monotonic()
    results = Results.read(Path(output_dir), Path(ckpt_dir), Path(scores), Path(segmentations))
    target = Path(folder)
    cases = [case for case in results.cases() if Path(segmentations, f"{case.name}.nii.gz").is_file()]
    if results.log.empty and not cases:
        raise InputError(f"'{output_dir}' contains neither training.csv nor label maps; train or infer first.")
    target.mkdir(parents=True, exist_ok=True)
    maps = [f"{segmentations}/{case.name}.nii.gz" for case in cases]
    measured = copy_measurements(Path(segmentations), target)
    changes = measured.get(CHANGES, pd.DataFrame(columns=["after", "before"]))
    earlier = dict(zip(changes["after"].astype(str), changes["before"].astype(str), strict=True))
    drawn = draw_cases(cases, maps, cohort, modalities, target, earlier, results.dice())
    errors = [error for error, _ in drawn]
    results = replace(results, drawn=[note for _, note in drawn if note])
    names = [case.name for case, error in zip(cases, errors, strict=True) if error is None]
    left_out = list(dict.fromkeys([*results.left_out(), *(error for error in errors if error)]))
    write_tables(results, Path(scores, "scores.csv"), target)
    if len(results.log):
        save_curves(curves(results.log, cohort.regions), target)
    configs = copy_configs(Path(output_dir), target)
    copy_file(str(files("nilearn") / VIEWER), target / "cases" / "niivue.js")  # loaded when a case is opened in it
    registered = {name for name in names if (target / "cases" / f"{name}_{PICTURE}").is_file()}
    text = page(bundle, cohort, modalities, results, names, left_out, configs, measured, registered, earlier)
    save_text(text, target / "report.html")
    keep_in_mlflow(Path(output_dir, "mlruns.db"), target)
    seconds = time.monotonic() - began
    logger.info(f"{len(names)} cases drawn in {seconds:.0f} s, {len(left_out)} left out; see '{target}/report.html'.")


def write_tables(results: Results, scores: Path, folder: Path) -> None:
    """Copy scores.csv and write means.csv, as far as there are scores."""
    if len(results.scores):
        copy_file(scores, folder / "scores.csv")
    means = results.means()
    if len(means):
        rows = [{"patients": name, **row.round(2)} for name, row in means.iterrows()]
        save_text(csv_text(rows), folder / "means.csv")
        logger.info(f"means over the regions:\n{means.round(2).to_string()}")


def copy_configs(output_dir: Path, folder: Path) -> list[str]:
    """Copy the merged configs of the runs; their names."""
    paths = sorted(output_dir.glob("runs/*.yaml"))
    for path in paths:
        copy_file(path, folder / path.name)
    return [path.name for path in paths]


def copy_measurements(segmentations: Path, folder: Path) -> dict[str, pd.DataFrame]:
    """Copy the tables of measurements, as far as there are; their rows with rounded numbers, by name."""
    found = {name: segmentations / name for name in (TABLE, CHANGES) if (segmentations / name).is_file()}
    for name, path in found.items():
        copy_file(path, folder / name)
    return {name: read_table(path).round(1).astype(object).fillna("") for name, path in found.items()}


def keep_in_mlflow(database: Path, folder: Path) -> None:
    """Add the report as report.zip to the last run in the MLflow database of these results, if there is one."""
    if not database.is_file():
        return
    if not find_spec("mlflow"):
        logger.warning(f"'{database}' lacks the report: MLflow is not installed; run `make setup EXTRA=tracking`.")
        return
    from mlflow import MlflowClient  # the import takes a second

    client = MlflowClient(path_to_sqlite_uri(str(database)))
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    for run in client.search_runs(experiments, order_by=["attributes.start_time DESC"], max_results=1):
        with TemporaryDirectory() as scratch:  # one file, because MLflow stores each file of a folder separately
            client.log_artifact(run.info.run_id, shutil.make_archive(f"{scratch}/report", "zip", folder))


def page(
    bundle: str,
    cohort: Cohort,
    modalities: Sequence[str],
    results: Results,
    names: Sequence[str],
    left_out: Sequence[LeftOut],
    configs: Sequence[str],
    measured: Mapping[str, pd.DataFrame],
    registered: Collection[str],
    earlier: Mapping[str, str],
) -> str:
    """The HTML of the page; it loads the files of a case when the case is opened."""
    from jinja2 import Environment, FileSystemLoader  # here, for the runs that write no report

    environment = Environment(loader=FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["quote"] = quote
    regions, log = list(cohort.regions), results.log
    colours = colours_of(regions)
    headings, rows = results.score_table()
    legend = {NAMES.get(region, region): colour for region, colour in colours.items()}
    return environment.get_template("report.html").render(
        bundle=bundle,
        cohort=cohort.name,
        modalities=modalities,
        made=time.strftime("%Y-%m-%d %H:%M"),
        results=results,
        left_out=left_out,
        configs=configs,
        measured=measured,
        registered=registered,
        earlier=earlier,
        changes=CHANGED,
        curves=[svg(draw) for draw in curves(log, regions)] if len(log) else [],
        best=best_epoch(log),
        means=results.means(),
        headings=headings,
        rows=rows,
        charts=[svg(draw) for draw in score_charts(results.scores, results.lesions)] if len(results.scores) else [],
        cases=results.worst_first(names, regions),
        colours=colours,
        legend=legend | ({f"{name} voxels": colour for name, colour in ERRORS.items()} if rows else {}),
        explanation=LEGEND,
        lights=LIGHTS,
    )


class ReportWhenDone:
    """Handler that writes the report at the end of a run.

    Args:
        write_report: the function above with its arguments.
    """

    def __init__(self, write_report: Callable[[], None]) -> None:
        self.write_report = write_report

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self.write_report)
