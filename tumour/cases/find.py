"""Find the cases of a data set."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tumour.cases.case import Case, Cases, LeftOut
from tumour.cases.datalist import read_datalist
from tumour.cases.folder import folders_below, look_through
from tumour.cases.series import dicom_folders, series_cases
from tumour.cohort import ENDINGS, Cohort
from tumour.errors import InputError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
logger = logging.getLogger("bundle")


def find_cases(
    dataset_dir: str, cohort: Cohort, modalities: Sequence[str], cohorts: Mapping[str, Cohort] | None = None
) -> Cases:
    """The cases below a folder, or in a datalist.json, with or without labels.

    Args:
        dataset_dir: the folder, or the datalist.
        cohort: how the files are named.
        modalities: those wanted, in order.
        cohorts: all cohorts by name; one whose file names fit is suggested if `cohort` does not.

    Raises:
        InputError: there is no such folder, or no case of the cohort in it.
    """
    found = _look(dataset_dir, cohort, modalities)
    if not found.complete and not found.incomplete:
        raise _nothing(dataset_dir, cohort, modalities, cohorts or {}, found)
    return found


def cases_to_use(dataset_dir: str, cohort: Cohort, modalities: Sequence[str], cohorts: Mapping[str, Cohort]) -> Cases:
    """The same for training and scoring, which need complete cases; the log names the cases that are left out.

    Raises:
        InputError: no case is complete.
    """
    found = find_cases(dataset_dir, cohort, modalities, cohorts)
    _log(found)
    if not found.complete:
        raise InputError(f"No case of {cohort.name} below '{dataset_dir}' is complete; {found.left_out[0]}")
    return found


def find_scans(
    dataset_dir: str,
    cohort: Cohort,
    modalities: Sequence[str],
    cohorts: Mapping[str, Cohort],
    series: Mapping[str, Sequence[str]],
    modality_dropout: float,
) -> Cases:
    """The same for segmenting: no labels, DICOM as well, and incomplete cases if the network was trained for them.

    Args:
        series: names of the folders of DICOM series by modality, see `tumour.cases.series.series_cases`.
        modality_dropout: the network's setting in training; at 0 it takes complete cases alone.

    Raises:
        InputError: there is no case to segment.
    """
    found = _look(dataset_dir, cohort, modalities)
    if Path(dataset_dir).is_dir():
        homes = {Path(image).parent for case in found.complete for image in case.images}
        found = series_cases(Path(dataset_dir), series, modalities, homes) + found
    if not found.complete and not found.incomplete:
        raise _nothing(dataset_dir, cohort, modalities, cohorts, found)
    names = [case.name for case in found.complete + found.incomplete]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"'{twice}' is a case of NIfTI files and one of DICOM series; rename or remove one.")
    lacking = {case.name for case in found.incomplete}
    if modality_dropout:
        for case in found.incomplete:
            lacks = ", ".join(name for name in modalities if name not in case.modalities)
            logger.warning(f"{case.name}: has no {lacks}; the network can segment it, but less well.")
        left_out = [each for each in found.left_out if each.case not in lacking]
        complete = sorted(found.complete + found.incomplete, key=lambda case: case.name)
    else:
        reason = " (the network was trained on complete cases, modality_dropout 0)"
        left_out = [LeftOut(e.case, e.why + reason) if e.case in lacking else e for e in found.left_out]
        complete = list(found.complete)
    scans: tuple[Case, ...] = tuple(replace(case, label=None) for case in complete)
    found = replace(found, complete=scans, incomplete=(), left_out=tuple(left_out))
    _log(found)
    if not scans:
        raise InputError(f"No case below '{dataset_dir}' can be segmented; {found.left_out[0]}")
    return found


def _look(dataset_dir: str, cohort: Cohort, modalities: Sequence[str]) -> Cases:
    cohort.channel_indices(modalities)  # refuses unknown modalities
    listed = dataset_dir.endswith(".json")
    if not dataset_dir or not (listed or Path(dataset_dir).is_dir()):
        raise InputError(f"dataset_dir '{dataset_dir}' is not a folder; name the folder that holds the cases.")
    return (read_datalist if listed else look_through)(Path(dataset_dir), cohort, modalities)


def _nothing(
    dataset_dir: str, cohort: Cohort, modalities: Sequence[str], cohorts: Mapping[str, Cohort], found: Cases
) -> InputError:
    """The error for a folder without a case; it names the cohorts whose file names fit."""
    wanted = (
        f"a file in {' or '.join(cohort.image_folders)}"
        if cohort.channels
        else ", ".join(f"<case>{given[0]}.nii.gz" for kind, given in cohort.suffixes.items() if kind in modalities)
    )
    fitting = [
        name
        for name, other in cohorts.items()
        if set(modalities) <= set(other.modalities) and _look(dataset_dir, other, modalities).complete
    ]
    if fitting:
        hint = f"its files are named as in {' or '.join(fitting)}: give that as --cohort."
    elif found.left_out:
        hint = str(found.left_out[0])
    else:
        hint = _what_is_there(Path(dataset_dir), cohort)
    return InputError(f"No case of {cohort.name} ({wanted}) below '{dataset_dir}'; {hint}")


def _what_is_there(root: Path, cohort: Cohort) -> str:
    """What a folder without a case holds, and how to make it usable."""
    if not root.is_dir():
        return "check dataset_dir and cohort."
    files = [str((folder / name).relative_to(root)) for folder, names in folders_below(root) for name in names]
    packed = [file for file in files if file.lower().endswith(ARCHIVES)]
    scans = [file for file in files if file.lower().endswith(ENDINGS)]
    channels = [file for file in scans if re.search(r"images[^/]*/[^/]+_\d{4}\.nii(\.gz)?$", file)]
    if channels:
        fix = 'name them as in a cohort, or list them in a datalist with "modality" (docs/data.md)'
        return f"'{channels[0]}' is named as in the raw folder of nnU-Net, one file per channel; {fix}."
    if not scans and packed:
        return f"it holds '{packed[0]}'; unpack it."
    dicom = [] if scans else list(dicom_folders(root))
    if dicom:
        fix = "convert them with dcm2niix to train, check or score"
        return f"it holds DICOM folders ('{dicom[0]}' ...), which can only be segmented; {fix}."
    shown = scans or files
    if not shown:
        return "it holds no files; check dataset_dir and cohort."
    names = ", ".join(f"'{file}'" for file in shown[:3]) + (f" and {len(shown) - 3:,} more" if len(shown) > 3 else "")
    suffixes = tuple(suffix + ending for given in cohort.suffixes.values() for suffix in given for ending in ENDINGS)
    if any(file.lower().endswith(suffixes) for file in shown):
        return f"it holds {names}: rename them, small letters and capitals differ."
    return f"it holds {names}; check dataset_dir and cohort, or rename them."


def _log(found: Cases) -> None:
    for sentence in found.sentences():
        logger.warning(sentence)
