"""Choose network, mirroring and after-treatment from the scores of cross-validations alone.

python -m tools best --crossvalidations "DIR DIR ..." --dataset_dir DIR --cohort NAME --output DIR

The candidates are the networks of each cross-validation and the ensemble of all of them, with and without mirroring.
Where the paired differences do not distinguish candidates from the best one, the cheapest of them is chosen. Its
after-treatment is fitted for each fold on the other folds.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from tumour.cases.case import repeated, unique_names
from tumour.cohort import Cohort
from tumour.errors import OptionError
from tumour.files import save_json, save_text, sha256_of
from tumour.maps.fitting import FitAfterTreatment, FittingCase
from tumour.records import read_json, read_tensors
from tumour.runs.checkpoints import BEST, PATIENTS, SETTINGS
from tumour.runs.folders import Claim
from tumour.runs.layers import layers, merge
from tumour.scores.tables import mean_interval, mean_text

from tools.command import failed, run_command, status_of
from tools.command_line import words_of
from tools.compare import common, mean_dice
from tools.crossvalidate import folder_of, options_of, scores_in, settings_of_folds
from tools.ensemble import OVERLAY as ENSEMBLE
from tools.ensemble import write as write_ensemble
from tools.networks import cost
from tools.started import STARTED, require_same_settings
from tools.tables import markdown

CASES = "fitting.pt"  # in the results of a fold: what its after-treatment is fitted to
FLIPS = 8


@dataclass(frozen=True)
class Candidate:
    """A way to segment a scan.

    Attributes:
        folders: finished cross-validations; more than one: the ensemble of their networks.
        mirror: whether the logits are averaged over the flips.
        names: those of the folders' networks in the table.
    """

    folders: tuple[Path, ...]
    mirror: bool
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        return " + ".join(self.names) + (", mirrored" if self.mirror else "")

    def cost(self, settings: Mapping[str, Any]) -> float:
        """Multiply-adds for a patch, in billions."""
        shape = {name: settings[name] for name in ("size", "modalities")}
        each = (cost(f"bundles/{bundle_of(folder)}/args.yaml", **shape)[1] for folder in self.folders)
        return sum(each) * (FLIPS if self.mirror else 1)


def bundle_of(folder: Path) -> str:
    return Path(started(folder)["args_file"]).parent.name


def names_of(folders: Sequence[Path]) -> dict[Path, str]:
    """The bundle of each cross-validation, with the name of its folder if several are of one bundle.

    Raises:
        OptionError: a folder is given twice.
    """
    places = [folder.resolve() for folder in folders]
    if twice := repeated(map(str, places)):
        raise OptionError(f"'{twice}' is named twice in --crossvalidations; name each folder once.")
    bundles = [*map(bundle_of, folders)]
    unique = unique_names([place.parts for place in places])
    return {
        folder: bundle if bundles.count(bundle) == 1 else f"{bundle} {name}"
        for folder, bundle, name in zip(folders, bundles, unique, strict=True)
    }


def started(folder: Path) -> dict[str, Any]:
    """The settings of a finished cross-validation."""
    for name in (STARTED, "summary.json"):
        if not (folder / name).is_file():
            raise OptionError(f"'{folder}' is not a finished cross-validation; run make crossvalidate first.")
    return read_json(folder / STARTED, {"args_file": str, "patients": {str: int}})


class Folds:
    """Runs of a candidate on the folds of the cross-validations.

    Args:
        output: folder for the candidates.
        options: of all runs, by the folder of each cross-validation.
        folds: number of folds.
    """

    def __init__(self, output: Path, options: Mapping[Path, Mapping[str, Any]], folds: int) -> None:
        self.output, self.options, self.folds = output, options, folds

    def place(self, candidate: Candidate, fold: int) -> Path:
        return folder_of(self.output / candidate.name.replace(" + ", "+").replace(", ", "-"), fold)

    def models(self, candidate: Candidate, fold: int) -> Path:
        """The folder with the network of a fold; a copy, because a run records its scores next to it."""
        target = self.place(candidate, fold) / "models"
        members = [folder_of(folder, fold) / "models" for folder in candidate.folders]
        if len(members) > 1 and not (target / BEST).is_file():
            write_ensemble([each / BEST for each in members], target)
        elif len(members) == 1:
            target.mkdir(parents=True, exist_ok=True)
            for name in (SETTINGS, PATIENTS, BEST):
                shutil.copyfile(members[0] / name, target / name)
        return target

    def run(self, run_id: str, candidate: Candidate, fold: int, done: Path, **options: Any) -> None:
        """Run one fold of a candidate, unless it is done."""
        if done.is_file():
            return
        models = self.models(candidate, fold)
        shared = dict(self.options[candidate.folders[0]])
        if len(candidate.folders) > 1:
            shared["+config_file"] = [*shared["+config_file"], str(models / ENSEMBLE)]
        places = {"ckpt_dir": models, "output_dir": self.place(candidate, fold) / "results"}
        command = run_command(run_id, **{**shared, "fold": fold, "mirror": candidate.mirror, **places, **options})
        print(f"\n== {candidate.name}, fold {fold} of {self.folds}: {run_id}", flush=True)
        status = status_of(command)
        if not done.is_file():
            raise failed(command, status)

    def scored(self, candidate: Candidate) -> pd.Series:
        """The mean Dice of each case; the scores of a plain network are those of its cross-validation."""
        if len(candidate.folders) == 1 and not candidate.mirror:
            return mean_dice(*candidate.folders)
        places = [scores_in(self.place(candidate, fold)) for fold in range(self.folds)]
        for fold, place in enumerate(places):
            self.run("evaluating", candidate, fold, place)
        return mean_dice(*(place.parent for place in places))

    def treated(self, candidate: Candidate) -> tuple[pd.Series, Path]:
        """The mean Dice of each case with an after-treatment fitted on the other folds; the one fitted on all folds."""
        cohort = merge(*layers(self.options[candidate.folders[0]])).get_parsed_content("cohort_def")
        kept = [self.place(candidate, fold) / "results" / CASES for fold in range(self.folds)]
        for fold, place in enumerate(kept):
            self.run("fitting", candidate, fold, place, fitted=place.with_name("own_fold.json"))
        cases = [read_cases(place) for place in kept]
        scores = []
        for fold in range(self.folds):
            fitted = self.place(candidate, fold) / "after_treatment.json"
            fit([case for number, part in enumerate(cases) if number != fold for case in part], fitted, cohort)
            done = self.place(candidate, fold) / "treated" / "summary.json"
            self.run("evaluating", candidate, fold, done, after_treatment=f"%{fitted}", scores=done.parent)
            scores.append(done.parent)
        final = self.output / "after_treatment.json"
        fit([case for part in cases for case in part], final, cohort)
        return mean_dice(*scores), final


def read_cases(path: Path) -> list[FittingCase]:
    """The cases that a run of `fitting` saved."""
    saved = read_tensors(path)
    return [FittingCase(probabilities, reference.numpy(), voxel) for probabilities, reference, voxel in saved]


def fit(cases: Sequence[FittingCase], path: Path, cohort: Cohort) -> None:
    """Fit the after-treatment to cases and write it."""
    handler = FitAfterTreatment(str(path), cohort)
    handler.cases = list(cases)
    handler.fit()


def row_of(name: str, dice: pd.Series, best: pd.Series, operations: float) -> dict[str, str]:
    """The row of a candidate: its cost, its mean Dice, and its paired difference from the best one."""
    difference = (dice - best).to_numpy()
    row = {"candidate": name, "multiply-adds of a 96³ patch, G": f"{operations:.1f}"}
    row["mean Dice"] = mean_text(dice.to_numpy())
    return row | {"minus the best": mean_text(difference) if difference.any() else ""}


def choose(
    scores: Mapping[Candidate, pd.Series], costs: Mapping[Candidate, float]
) -> tuple[Candidate, list[Candidate]]:
    """The cheapest candidate that the paired differences do not distinguish from the best one; all of these."""
    best = max(scores, key=lambda each: scores[each].mean())
    level = [each for each in scores if mean_interval((scores[each] - scores[best]).to_numpy())[1] >= 0]
    return min(level, key=lambda each: (costs[each], -scores[each].mean())), level


def compare(
    crossvalidations: str,
    dataset_dir: str,
    output: str,
    cohort: str = "",
    folds: int = 5,
    recipe: str = "",
    **options: Any,
) -> str:
    """Score the candidates on the folds and choose one.

    Args:
        crossvalidations: folders of finished cross-validations of the same patients, separated by blanks.
        dataset_dir, cohort, folds, recipe, options: the same as for the cross-validations.
        output: folder for the candidates, best.json and best.md.
    """
    target, folders = Path(output), [*map(Path, words_of(crossvalidations, "crossvalidations"))]
    if not folders:
        raise OptionError("There is no finished cross-validation; run make crossvalidate, or name its folder.")
    shared, settings = {}, {}
    for folder in folders:
        settings[folder] = started(folder)
        shared[folder] = options_of(bundle_of(folder), dataset_dir, cohort, folds, recipe, options)
        require_same_settings(folder, settings_of_folds(shared[folder], folds))
        if settings[folder]["patients"] != settings[folders[0]]["patients"]:
            raise OptionError(f"'{folders[0]}' and '{folder}' have other patients or folds; use the same for both.")
    names = names_of(folders)
    weights = {
        str(path): sha256_of(path)
        for folder, fold in product(folders, range(folds))
        for path in [folder_of(folder, fold) / "models" / BEST]
    }
    _claim = Claim("comparing", [output])
    require_same_settings(target, {"weights": weights, **{f"settings of {each}": settings[each] for each in folders}})
    runs = Folds(target, shared, folds)
    networks = [(each,) for each in folders] + ([tuple(folders)] if len(folders) > 1 else [])
    candidates = [
        Candidate(each, mirror, tuple(names[folder] for folder in each))
        for each in networks
        for mirror in (False, True)
    ]
    costs = {each: each.cost(settings[folders[0]]) for each in candidates}
    table, others = common(pd.DataFrame({each: runs.scored(each) for each in candidates}))
    scores = {each: table[each] for each in candidates}
    chosen, level = choose(scores, costs)
    treated, fitted = runs.treated(chosen)
    treated = treated.reindex(table.index)
    used = fitted if improves(treated, scores[chosen]) else None
    return write(target, scores, costs, chosen, level, treated, used, others)


def improves(treated: pd.Series, plain: pd.Series) -> bool:
    """Whether the interval of the paired difference of an after-treatment is above 0."""
    return bool(mean_interval((treated - plain).to_numpy())[0] > 0)


def write(
    target: Path,
    scores: Mapping[Candidate, pd.Series],
    costs: Mapping[Candidate, float],
    chosen: Candidate,
    level: Sequence[Candidate],
    treated: pd.Series,
    fitted: Path | None,
    left_out: Sequence[str],
) -> str:
    """Write best.json and best.md; the text."""
    best = scores[max(scores, key=lambda each: scores[each].mean())]
    rows = [row_of(each.name, scores[each], best, costs[each]) for each in scores]
    rows.append(row_of(f"{chosen.name}, with after-treatment", treated, best, costs[chosen]))
    if len(level) > 1:
        others = ", ".join(each.name for each in level)
        reason = f"These scores do not distinguish {others}; the cheapest of them is used."
    else:
        reason = "Every other candidate is worse."
    change = f"It changes the mean Dice by {mean_text((treated - scores[chosen]).to_numpy(), '+.3f')}"
    treatment = f"{change}; it is used: --after_treatment %{fitted}" if fitted else f"{change}; it is not used."
    missing = f" Left out, because not all candidates scored them: {', '.join(left_out)}." if left_out else ""
    text = (
        f"{len(best)} scans, each scored by networks that were trained without its patient; means with 95% bootstrap\n"
        f"intervals over the scans.{missing}\n\n{markdown(rows)}\n\n"
        f"Use {chosen.name}. {reason}\nAfter-treatment, fitted for each fold on the others: {treatment}"
    )
    content = {
        "bundles": [*map(bundle_of, chosen.folders)],
        "crossvalidations": [*map(str, chosen.folders)],
        "mirror": chosen.mirror,
        "after_treatment": str(fitted) if fitted else None,
    }
    save_json(content, target / "best.json")
    save_text(text + "\n", target / "best.md")
    return text
