"""Cross-validate a bundle: each patient is scored by a network that was trained without it.

python -m tools crossvalidate folds --bundle neuroseg3d --dataset_dir DIR --cohort NAME --output DIR
python -m tools crossvalidate final --bundle neuroseg3d --dataset_dir DIR --cohort NAME --output DIR

The first trains one network per fold and collects the scores of all patients. The second trains the final network on
all of them, with the same settings. All other options are passed to every run. A command that was stopped continues
where it stopped if it is run again, and finished folds are not repeated.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from tumour.cases.case import CASE, LEFT_OUT, LeftOut
from tumour.cases.parts import ALL, is_of, recorded_patients, used_patients
from tumour.errors import InputError, OptionError, one_of
from tumour.files import remove_locks, save_json, save_text
from tumour.maps.aftertreatment import FILE as TREATMENT
from tumour.records import read_json, read_table
from tumour.runs.checkpoints import BEST, PATIENTS
from tumour.runs.folders import Claim
from tumour.runs.layers import layers, merge
from tumour.runs.options import check_command
from tumour.scores.evaluation import record_crossvalidation
from tumour.scores.quality import FILE as QUALITY
from tumour.scores.quality import Quality
from tumour.scores.tables import SUMMARY, mean_text, read_scores, write_scores

from tools.bundles import files_in, files_of
from tools.command import failed, run_command, status_of
from tools.quality import assess, settings_for, text_of
from tools.started import OF_THE_MACHINE, STARTED, hash_of, require_same_settings, settings_in
from tools.tables import markdown

OVERLAY = "bundles/common/crossvalidate.yaml"
DAY = 24 * 60  # minutes; submitit's own limit for a job is 5 minutes


def command_of(run_id: str, folder: Path, output: Path, options: Mapping[str, Any]) -> list[str]:
    """The command of one fold, or of the final network, with its models and results in a folder."""
    places = {"ckpt_dir": folder / "models", "output_dir": folder / "results"}
    return run_command(run_id, **{**options, **places, "segmentations": output / "segmentations"})


def options_of(
    bundle: str, dataset_dir: str, cohort: str, folds: int, recipe: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of all runs of a cross-validation; without a cohort it is that of the recipe, or else the default."""
    data = {**({"cohort": cohort} if cohort else {}), "dataset_dir": dataset_dir, "folds": folds}
    return {**data, **given, **files_of(bundle, recipe, *files_in(given), OVERLAY)}


def settings_of_folds(options: Mapping[str, Any], folds: int) -> dict[str, Any]:
    """What the folds are trained and scored with: all settings, the network, the patients of each fold, the files.

    Raises:
        InputError: a patient to score would be used for training or model selection, or a fold has no patient.
    """
    parser = merge(*layers(options))
    values = {**settings_in(parser), "network_def": parser["network_def"]}
    known = ("dataset_dir", "start_from", *OF_THE_MACHINE, *values)
    given = {name: value for name, value in options.items() if name not in known}
    if values["keep"] != "last":
        raise OptionError("--keep best would select the weights on the patients of the fold; leave it out.")
    start = parser.get_parsed_content("start_from")
    record = Path(start, PATIENTS)
    used = used_patients(record) if start and record.is_file() else set()
    values["patients"], values["files"], seen = {}, {}, []  # with their folds; a hash by case
    for fold in range(folds):
        parts = merge(*layers({**options, "fold": fold})).get_parsed_content("parts")
        parts.refuse_empty("validate")
        parts.refuse_empty("train")
        values["patients"] |= {case.patient: fold for case in parts.by_name["validate"]}
        values["files"] |= {case.name: hash_of(case) for case in parts.by_name["validate"]}
        seen += [case.patient for case in parts.by_name["validate"] if is_of(case, used)]
    if both := {*seen}:
        raise OptionError(
            f"{len(both)} of {len(values['patients'])} patients, e.g. {min(both)}, are among those of '{record}' and "
            "could not be scored; leave --start_from out, or give weights that were trained on others."
        )
    return json.loads(json.dumps({**given, **values}, default=str))


def folder_of(output: Path, fold: int) -> Path:
    return output / f"fold{fold}"


def scores_in(folder: Path) -> Path:
    return folder / "results" / "scores" / "summary.json"


def crossvalidate(
    bundle: str,
    dataset_dir: str,
    output: str,
    cohort: str = "",
    folds: int = 5,
    recipe: str = "",
    cluster: str = "",
    cluster_options: str = "",
    **options: Any,
) -> str:
    """Train and score the folds, one after the other or as jobs of a cluster, and collect the scores of all patients.

    Args:
        bundle: a folder of bundles/.
        dataset_dir: folder of the data set.
        output: folder for the folds, scores.csv, lesions.csv, summary.json, quality.json, second_look.csv and
            crossvalidation.md.
        cohort: name of the data set; default: that of the recipe or of the bundle.
        folds: number of folds.
        recipe: name of a file in bundles/common/recipes.
        cluster: slurm or local: each fold is a job, submitted by submitit; this command waits for them.
        cluster_options: submitit's parameters of a job, as "timeout_min=600 gpus_per_node=1 slurm_partition=gpu".
        options: settings of the bundle, such as --epochs 50; passed to every run.
    """
    target = Path(output)
    shared = options_of(bundle, dataset_dir, cohort, folds, recipe, options)
    commands = {
        fold: command_of("crossvalidating", folder_of(target, fold), target, {**shared, "fold": fold})
        for fold in range(folds)
    }
    check_command(commands[0][3:])
    settings = settings_of_folds(shared, folds)
    _claim = Claim("cross-validating", [output])
    require_same_settings(target, settings)
    left = {fold: each for fold, each in commands.items() if not scores_in(folder_of(target, fold)).is_file()}
    if cluster:
        run_on_cluster(left, target / "jobs", cluster, cluster_options)
    for fold, command in {} if cluster else left.items():
        print(f"\n== fold {fold} of {folds}", flush=True)
        status = status_of(command)
        if not scores_in(folder_of(target, fold)).is_file():  # a status alone may mean that a case was left out
            raise failed(command, status)
    remove_locks(target)  # of folds that were killed at their very end, which are not repeated
    return collect(target, folds, settings["cohort"], dataset_dir)


def run_on_cluster(commands: Mapping[int, Sequence[str]], folder: Path, cluster: str, parameters: str) -> None:
    """Run each fold as a job and wait for all; jobs that an earlier call submitted and that still run are waited for.

    Args:
        commands: by fold.
        folder: folder for the jobs' logs and jobs.json, their ids.
        cluster: slurm, or local, whose jobs are processes of this machine and end with this command.
        parameters: of submitit's executor, `name=value` separated by blanks.
    """
    try:
        import submitit
    except ImportError as error:
        raise InputError("cluster needs submitit; install it with .venv/bin/pip install submitit.") from error
    kind = one_of({"slurm": submitit.SlurmJob, "local": submitit.LocalJob}, cluster, "cluster")
    executor = submitit.AutoExecutor(folder, cluster=cluster)
    given = dict(each.split("=", 1) for each in parameters.split())
    executor.update_parameters(name="fold", **{"timeout_min": DAY} | {k: yaml.safe_load(v) for k, v in given.items()})
    path = folder / "jobs.json"
    ids = read_json(path, {str: str}) if path.is_file() else {}
    jobs: dict[int, Any] = {}
    for fold, command in commands.items():
        earlier = kind(folder, ids[str(fold)]) if str(fold) in ids else None
        if earlier is None or earlier.done():
            jobs[fold] = executor.submit(submitit.helpers.CommandFunction(list(command)))
            ids[str(fold)] = jobs[fold].job_id
            save_json(ids, path)
        else:
            jobs[fold] = earlier
        print(f"fold {fold}: job {jobs[fold].job_id}, {jobs[fold].paths.stdout}", flush=True)
    for fold, job in jobs.items():
        job.wait()
        if not scores_in(folder_of(folder.parent, fold)).is_file():
            raise InputError(f"fold {fold} was not scored; see '{job.paths.stderr}' and '{job.paths.stdout}'.")


def final(
    bundle: str, dataset_dir: str, output: str, cohort: str = "", folds: int = 5, recipe: str = "", **options: Any
) -> str:
    """Train the final network on all patients of a finished cross-validation, whose score is recorded next to it.

    Args:
        bundle, dataset_dir, output, cohort, folds, recipe, options: the same as for the cross-validation.
    """
    target = Path(output)
    summary = target / "summary.json"
    if not summary.is_file():
        raise OptionError(f"'{summary}' does not exist; finish the cross-validation first.")
    shared = options_of(bundle, dataset_dir, cohort, folds, recipe, options)
    command = command_of("training", target / "final", target, {**shared, "fold": ALL})
    check_command(command[3:])
    settings = settings_of_folds(shared, folds)
    _claim = Claim("cross-validating", [output])
    require_same_settings(target, settings)
    scores, quality = read_json(summary, SUMMARY), None  # read before the training, which takes long
    if (target / QUALITY).is_file():
        quality = Quality.read(target / QUALITY)
    if status := status_of(command):
        raise failed(command, status)
    checkpoint = target / "final" / "models" / BEST
    record_crossvalidation(checkpoint, settings["cohort"], scores)
    if quality:
        quality.save(checkpoint)
    treatment = settings_for(settings)["after_treatment"]
    if any(treatment.values()):
        save_json(treatment, checkpoint.with_name(TREATMENT))
    return f"{checkpoint}: trained on all patients; the score of the cross-validation is recorded next to it"


def collect(output: Path, folds: int, cohort: str, dataset_dir: str) -> str:
    """Write the scores of all patients, each of its own fold, into the folder; the table."""
    rows, lesions, fold_of, place_of, left_out = [], [], {}, {}, []
    for fold in range(folds):
        folder = folder_of(output, fold)
        trained = {*recorded_patients(folder / "models" / PATIENTS)["train"]}
        record = read_json(folder / "results" / "runs" / "evaluating.json", {"cases": [CASE], "left_out": [LEFT_OUT]})
        left_out += [f"Left out, {LeftOut(each['case'], each['why'])}" for each in record["left_out"]]
        for case in record["cases"]:
            if case["patient"] in trained or case["name"] in fold_of:
                raise InputError(f"{case['name']} is scored by a network that was trained on it; give another OUT.")
            fold_of[case["name"]], place_of[case["name"]] = fold, data_set_of(case["images"][0], dataset_dir)
        rows += read_scores(scores_in(folder).with_name("scores.csv")).to_dict("records")
        lesions += read_table(scores_in(folder).with_name("lesions.csv"), ["case", "region"]).to_dict("records")
        save_json({**record, "run": f"fold {fold}"}, output / "runs" / f"fold{fold}.json")
    groups = {f"all of {cohort}": list(fold_of)}
    if len(set(place_of.values())) > 1:
        groups |= {
            place: [case for case in fold_of if place_of[case] == place] for place in sorted({*place_of.values()})
        }
    groups |= {f"fold {fold}": [case for case in fold_of if fold_of[case] == fold] for fold in range(folds)}
    frame = pd.DataFrame(rows)
    table = [row_of(name, frame[frame["case"].isin(cases)]) for name, cases in groups.items()]
    challenge = read_json(scores_in(folder_of(output, 0)), SUMMARY)["challenge"]
    started = read_json(output / STARTED, {"patients": {str: int}})
    quality, tables = assess(output, [folder_of(output, fold) / "results" for fold in range(folds)], started)
    (output / QUALITY).unlink(missing_ok=True)
    if quality:
        save_json(asdict(quality), output / QUALITY)
    write_scores(rows, lesions, str(output), challenge=challenge, cohort=cohort, folds=folds, groups=table, **tables)
    text = (
        f"{len(fold_of)} scans in {folds} folds; each is scored by a network that was trained without its patient and\n"
        f"keeps its last weights. Means with 95% bootstrap intervals over the scans, rules of {challenge}.\n\n"
        + "\n\n".join([markdown(table) + text_of(tables), *left_out])
    )
    save_text(text + "\n", output / "crossvalidation.md")
    return text


def data_set_of(image: str, dataset_dir: str) -> str:
    """The folder of `dataset_dir` that holds the folder of a case, if there are several data sets in it."""
    path, root = Path(image).absolute(), Path(dataset_dir).absolute()  # data sets may be links in one folder
    parts = path.relative_to(root).parts if path.is_relative_to(root) else ()
    return parts[0] if len(parts) > 2 else "no folder"


def row_of(name: str, scores: pd.DataFrame) -> dict[str, str]:
    """The scores of some cases as a row of the table."""
    regions = scores[scores["kind"] == "region"]
    dice = regions.pivot(index="case", columns="region", values="dice")[list(dict.fromkeys(regions["region"]))]
    row = {"patients": name, "scans": str(len(dice))}
    for region in dice:
        row[f"Dice {region}"] = mean_text(dice[region].to_numpy())
    row["mean Dice"] = mean_text(dice.mean(axis=1).to_numpy())
    hd95 = regions.groupby("region", sort=False)["hd95"].mean().dropna()
    return row | {"HD95, mm": ", ".join(f"{region} {value:.1f}" for region, value in hd95.items())}


COMMANDS = {"folds": crossvalidate, "final": final}
