"""Find the cases of a data set."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tumour.cases.case import Case, Cases, LeftOut
from tumour.cases.datalist import read_datalist, require_channels
from tumour.cases.folder import folders_below, look_through
from tumour.cases.series import dicom_folders, series_cases
from tumour.cohort import LABEL, Cohort, is_nifti
from tumour.errors import InputError, OptionError, require_text

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
logger = logging.getLogger("bundle")


def find_cases(
    dataset_dir: str, cohort: Cohort, modalities: Sequence[str], cohorts: Mapping[str, Cohort] | None = None
) -> Cases:
    """Find the cases in a folder and its subfolders, or in a datalist.json, with or without labels.

    Args:
        dataset_dir: the folder or the datalist.
        cohort: how the files are named.
        modalities: the modalities to use, in order.
        cohorts: all cohorts by name; if no file matches `cohort`, the error suggests the cohorts that match.

    Raises:
        InputError: the folder does not exist or has no case of the cohort, or a modality is unknown.
    """
    found = _look(dataset_dir, cohort, modalities)
    if not found.complete and not found.incomplete:
        raise _nothing(dataset_dir, cohort, modalities, cohorts or {}, found)
    require_channels(dataset_dir, cohort)
    return found


def cases_to_use(dataset_dir: str, cohort: Cohort, modalities: Sequence[str], cohorts: Mapping[str, Cohort]) -> Cases:
    """Find cases for training and scoring, which need complete cases; the log lists the cases that are left out.

    Args:
        dataset_dir, cohort, modalities, cohorts: as in `find_cases`.

    Raises:
        InputError: as in `find_cases`, or no case is complete.
    """
    found = find_cases(dataset_dir, cohort, modalities, cohorts)
    _log(found)
    if not found.complete:
        raise InputError(f"No case of {cohort.name} in '{dataset_dir}' is complete; {found.left_out[0]}")
    return found


def find_scans(
    dataset_dir: str,
    cohort: Cohort,
    modalities: Sequence[str],
    cohorts: Mapping[str, Cohort],
    series: Mapping[str, Sequence[str]],
    modality_dropout: float,
) -> Cases:
    """Find cases to segment: without labels, also DICOM, and incomplete cases if the network was trained for them.

    Args:
        dataset_dir, cohort, modalities, cohorts: as in `find_cases`.
        series: folder names of DICOM series by modality, see `tumour.cases.series.series_cases`.
        modality_dropout: the setting that the network was trained with; with 0 it accepts only complete cases.

    Raises:
        InputError: as in `find_cases`, or there is no case to segment.
    """
    found = _look(dataset_dir, cohort, modalities)
    if Path(dataset_dir).is_dir():
        homes = {Path(image).parent for case in found.complete for image in case.images}
        found = series_cases(Path(dataset_dir), series, modalities, homes) + found
    if not found.complete and not found.incomplete:
        raise _nothing(dataset_dir, cohort, modalities, cohorts, found)
    require_channels(dataset_dir, cohort)
    incomplete = {case.name for case in found.incomplete}
    if modality_dropout:
        for case in found.incomplete:
            missing = ", ".join(name for name in modalities if name not in case.modalities)
            logger.warning(f"{case.name}: has no {missing}; the network can segment it, but less accurately.")
        left_out = [entry for entry in found.left_out if entry.case not in incomplete]
        complete = sorted(found.complete + found.incomplete, key=lambda case: case.name)
    else:
        reason = " (the network was trained on complete cases, modality_dropout 0)"
        left_out = [LeftOut(e.case, e.why + reason) if e.case in incomplete else e for e in found.left_out]
        complete = list(found.complete)
    scans: tuple[Case, ...] = tuple(replace(case, label=None) for case in complete)
    labels = tuple(case.label for case in complete if case.label)
    found = replace(found, complete=scans, incomplete=(), left_out=tuple(left_out), labels=labels)
    _log(found)
    if not scans:
        raise InputError(f"No case in '{dataset_dir}' can be segmented; {found.left_out[0]}")
    return found


def _look(dataset_dir: str, cohort: Cohort, modalities: Sequence[str]) -> Cases:
    cohort.channel_indices(modalities)  # raises an error for unknown modalities
    require_text("dataset_dir", dataset_dir)
    is_datalist = dataset_dir.lower().endswith(".json") and not Path(dataset_dir).is_dir()
    if not dataset_dir or not (is_datalist or Path(dataset_dir).is_dir()):
        raise OptionError(f"dataset_dir '{dataset_dir}' is not a folder; give the folder that contains the cases.")
    return (read_datalist if is_datalist else look_through)(Path(dataset_dir), cohort, modalities)


def _nothing(
    dataset_dir: str, cohort: Cohort, modalities: Sequence[str], cohorts: Mapping[str, Cohort], found: Cases
) -> InputError:
    """The error for a folder without a case; it suggests the cohorts whose file names match."""
    expected = (
        f"a file in {' or '.join(cohort.image_folders)}"
        if cohort.channels
        else ", ".join(f"<case>{cohort.suffixes[kind][0]}.nii.gz" for kind in modalities)
    )
    matching = [
        name
        for name, other in cohorts.items()
        if set(modalities) <= set(other.modalities) and _look(dataset_dir, other, modalities).complete
    ]
    if matching:
        hint = f"its files are named as in {' or '.join(matching)}: give that as --cohort."
    elif found.left_out:
        hint = str(found.left_out[0])
    else:
        hint = _what_is_there(Path(dataset_dir), cohort)
    return OptionError(f"No case of {cohort.name} ({expected}) in '{dataset_dir}'; {hint}")


def _what_is_there(root: Path, cohort: Cohort) -> str:
    """What a folder without a case holds, and how to make it usable."""
    if not root.is_dir():
        return "check dataset_dir and cohort."
    files = [str((folder / name).relative_to(root)) for folder, names in folders_below(root) for name in names]
    packed = [file for file in files if file.lower().endswith(ARCHIVES)]
    scans = [file for file in files if is_nifti(file)]
    channels = [file for file in scans if re.search(r"images[^/]*/[^/]+_\d{4}\.nii(\.gz)?$", file)]
    if channels:
        fix = 'name them as in a cohort, or list them in a datalist with "modality" (docs/data.md)'
        return f"'{channels[0]}' is named as in the raw folder of nnU-Net, one file per channel; {fix}."
    if not scans and packed:
        return f"it contains '{packed[0]}'; unpack it."
    dicom = [] if scans else list(dicom_folders(root))
    if dicom:
        fix = "convert them with dcm2niix to train, check or score"
        return f"it contains DICOM folders ('{dicom[0]}' ...), which can only be segmented; {fix}."
    shown = scans or files
    if not shown:
        return "it contains no files; check dataset_dir and cohort."
    names = ", ".join(f"'{file}'" for file in shown[:3]) + (f" and {len(shown) - 3:,} more" if len(shown) > 3 else "")
    stems = {file.lower().removesuffix(".gz").removesuffix(".nii") for file in shown}
    kinds = [suffixes for kind, suffixes in cohort.suffixes.items() if kind != LABEL]
    if kinds and all(any(stem.endswith(suffixes) for stem in stems) for suffixes in kinds):
        return f"it contains {names}: rename them, as upper and lower case are different."
    return f"it contains {names}; check dataset_dir and cohort, or add a cohort for these names (docs/own-data.md)."


def _log(found: Cases) -> None:
    for sentence in found.sentences():
        logger.warning(sentence)
    if found.strays:
        logger.warning(f"NIfTI files that belong to no case: {len(found.strays):,}, e.g. '{found.strays[0]}'.")
