"""Write an ensemble of trained networks as one network with one model.pt.

python -m tools ensemble --members "DIR DIR ..." --output DIR

The members are folds of one bundle, several bundles, or several checkpoints of one training.
"""

import contextlib
from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

import torch
import yaml
from tumour.cases.case import repeated
from tumour.cases.parts import recorded_patients
from tumour.errors import InputError, OptionError
from tumour.files import save_json, save_text
from tumour.records import read_json
from tumour.runs.checkpoints import BEST, OF_WEIGHTS, PATIENTS, read_weights, save_checkpoint
from tumour.runs.folders import Claim
from tumour.runs.reading import require_same_reading
from tumour.runs.trained import SETTINGS, history_of, settings_of, settings_to_use
from tumour.scores.evaluation import record_crossvalidation
from tumour.scores.tables import SUMMARY

from tools.bundles import ROOT, bundles, folder_of, require_bundle
from tools.command_line import words_of
from tools.release.configs import ensemble_def
from tools.show import merged

# patients; layers, start of each
MAY_DIFFER = "fold folds test_share seed keep layers seen trained_on started_from".split()
OVERLAY = "ensemble.yaml"


def network_of(weights: Mapping[str, torch.Tensor], folder: Path, bundle: str) -> str | None:
    """The bundle whose network has these weights, with the settings in their folder; `bundle` if several have."""
    shapes = {name: value.shape for name, value in weights.items()}
    for name in sorted(bundles(), key=lambda each: (each != bundle, each)):
        with contextlib.chdir(ROOT), torch.device("meta"):
            parser = merged(str(folder_of(name) / "args.yaml"))
            parser["trained"] = settings_to_use(parser["defaults"], str(folder))
            network = parser.get_parsed_content("network_def")
        if {key: value.shape for key, value in network.state_dict().items()} == shapes:
            return name
    return None


def require_equal_settings(settings: Mapping[Path, Mapping[str, Any]]) -> None:
    """Refuse members that were trained with other settings than the first."""
    first, *others = settings
    for path, given in settings.items():
        if not given:
            raise InputError(f"'{path.parent}' has no {SETTINGS}, so its settings are unknown; train it again.")
        if "members" in given:
            raise OptionError(f"'{path}' is itself an ensemble; name its members instead.")
    for path in others:
        for name in settings[first].keys() | settings[path].keys():
            a, b = settings[first].get(name), settings[path].get(name)
            if name == "reading":
                require_same_reading(a, b, first)
            elif a != b and name not in MAY_DIFFER:
                raise OptionError(f"{name} is {a} in '{first}' and {b} in '{path}'; members need the same settings.")


def patients_of(paths: Sequence[Path]) -> dict[str, list[str]]:
    """The patients of all members: used for training by any, else for model selection by any, else for testing."""
    records = [path.with_name(PATIENTS) for path in paths]
    for record in records:
        if not record.is_file():
            raise InputError(f"'{record}' does not exist; without it the training patients of a member are unknown.")
    parts = [recorded_patients(record) for record in records]
    train, validate, test = (
        {patient for part in parts for patient in part[name]} for name in ("train", "validate", "test")
    )
    return {"train": sorted(train), "validate": sorted(validate - train), "test": sorted(test - train - validate)}


def crossvalidation(paths: Sequence[Path]) -> dict[str, Any]:
    """The summary of the cross-validation of which the members are all folds; empty if they are something else."""
    folders = {path.resolve().parent.parent.parent for path in paths}
    summary = folders.pop() / "summary.json"
    found = read_json(summary, SUMMARY) if summary.is_file() and not folders else {}
    return found if found.get("folds") == len({path.resolve().parent for path in paths}) else {}


def ensemble(members: str, output: str, bundle: str = "") -> str:
    """Write model.pt, its records, and ensemble.yaml, the config file that builds the network.

    Args:
        members: folders with a model.pt, or checkpoints, separated by blanks; with * for several.
        output: folder for the ensemble.
        bundle: the bundle that a member belongs to where its weights fit several.

    Raises:
        InputError: a member cannot be read, belongs to no bundle, or has other settings than the first.
    """
    names = [name for word in words_of(members, "members") for name in sorted(glob(word)) or [word]]
    paths = [path / BEST if path.is_dir() else path for path in map(Path, names)]
    target = Path(output)
    if not paths:
        raise OptionError('members is empty; give folders, as --members "models/fold0 models/fold1".')
    if missing := next((name for name, path in zip(names, paths, strict=True) if not path.is_file()), None):
        raise OptionError(f"'{missing}' is neither a checkpoint nor a folder with a {BEST}; correct --members.")
    if twice := repeated(str(path.resolve()) for path in paths):
        raise OptionError(f"'{twice}' is named twice in --members; name each network once.")
    if bundle:
        require_bundle(bundle)
    if any(target.resolve() == path.resolve().parent for path in paths):
        raise OptionError(f"'{output}' is the folder of a member; give another folder.")
    if (target / BEST).exists() and "members" not in settings_of(output):
        raise OptionError(f"'{target / BEST}' is no ensemble and would be replaced; give another folder.")
    with Claim("writing an ensemble", [output]):
        bundles_of = write(paths, target, bundle)
    size = f"{(target / BEST).stat().st_size / 1e6:.1f} MB"
    return f"{target / BEST}: {len(paths)} networks ({', '.join(bundles_of)}), {size}; use it with ENSEMBLE={output}"


def write(paths: Sequence[Path], target: Path, bundle: str = "") -> list[str]:
    """Write the ensemble of some checkpoints; the bundle of each."""
    weights = {path: read_weights(path) for path in paths}
    settings = {path: settings_of(str(path.parent)) for path in paths}
    require_equal_settings(settings)
    bundles_of = []
    for path in paths:
        name = network_of(weights[path], path.parent, bundle)
        if name is None:
            raise InputError(
                f"'{path}' belongs to none of the bundles {', '.join(bundles())}, whose networks may be members."
            )
        bundles_of.append(name)
    common = {key: value for key, value in settings[paths[0]].items() if key not in MAY_DIFFER}
    patients = patients_of(paths)
    summary = crossvalidation(paths)
    for name in (BEST, *OF_WEIGHTS):  # if this is stopped, the records of one ensemble are not those of another
        (target / name).unlink(missing_ok=True)
    save_json(patients, target / PATIENTS)
    save_json(common | {"members": bundles_of} | history_of(*settings.values()), target / SETTINGS)
    text = yaml.safe_dump({"network_def": ensemble_def(bundles_of)}, sort_keys=False, width=120)
    save_text(f"# The ensemble in {BEST}, for --+config_file.\n{text}", target / OVERLAY)
    joint = {f"members.{n}.{key}": value for n, path in enumerate(paths) for key, value in weights[path].items()}
    save_checkpoint(joint, target / BEST)
    if summary:
        record_crossvalidation(target / BEST, summary["cohort"], summary)
    return bundles_of
