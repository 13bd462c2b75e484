"""Find the T1, T1ce, T2 and FLAIR of a patient among the files that a scanner wrote."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumour.cases.folder import folders_below, nifti_files
from tumour.cases.series import is_dicom, modality_named, named_folder, words_of
from tumour.cohort import LABEL, Cohort, is_nifti
from tumour.errors import CaseError, InputError, OptionError
from tumour.scanner.extra import require
from tumour.scans.grid import Scan
from tumour.scans.readers import FEWEST, read_scan, usable
from tumour.scans.series import read_slices

# words of the name of a series, by modality: `series` of bundles/common/cohorts.yaml
Names = Mapping[str, Sequence[str]]
OTHER = "other"
SURVEYS = {"localizer", "localiser", "localizers", "loc", "scout", "survey", "aahead", "aahscout", "plane", "planes"}
# what is calculated from scans, or shows something else
OTHERS = {"adc", "dwi", "dti", "diff", "trace", "swi", "swan", "perf", "perfusion", "dsc", "dce", "asl", "sub", "mip"}
OTHERS |= {"subtraction", "mprs", "cbv", "cbf", "mtt", "fa", "tof", "angio", "phase", "pha", "b0", "b1000", "pd"}
MASKS = {"mask", "seg", "segmentation", "label", "labels"}  # in names of NIfTI files
REFORMATTED = {"mpr", "csa mpr", "reformatted"}  # in ImageType: slices calculated from a series


@dataclass(frozen=True)
class Series:
    """Files that may be one of the modalities.

    Args:
        name: description, or name of the file, for messages.
        files: one NIfTI file, or the DICOM files of a series in any order.
        modality: empty if unknown, `other` if it is none of them.
        sure: its folder is named after the modality, which decides between several.
        patient: patient id of a DICOM series.
        person: the patient's name in it, without case and punctuation.
        study: unique id of its study, after the date.
    """

    name: str
    files: tuple[str, ...]
    modality: str
    sure: bool = False
    patient: str = ""
    person: str = ""
    study: str = ""

    @property
    def is_dicom(self) -> bool:
        return not is_nifti(self.files[0])

    def read(self) -> Scan:
        """Its voxels on their grid.

        Raises:
            InputError: it cannot be read, or its slices make no volume.
        """
        if not self.is_dicom:
            return read_scan(self.files[0])
        data, affine, patient = read_slices(self.files, self.name)
        return usable(Scan(self.name, data, affine, patient=patient))


def patient_folders(root: str) -> list[Path]:
    """The folder of each patient: the subfolders, or the folder itself if it contains scans.

    Raises:
        InputError: it is not a folder, or there is no scan.
    """
    folder = Path(root)
    if not root or not folder.is_dir():
        raise OptionError(f"scans_dir '{root}' is not a folder; give the folder that contains one folder per patient.")
    if any(is_nifti(name) or is_dicom(folder / name) for name in _files(folder)):
        return [folder]
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise InputError(f"'{root}' contains no scans; give the folder that contains one folder per patient.")
    return folders


def _files(folder: Path) -> list[str]:
    return [path.name for path in sorted(folder.iterdir()) if path.is_file()]


def choose(found: Sequence[Series], modalities: Sequence[str]) -> dict[str, Series]:
    """The series of each modality.

    Raises:
        CaseError: one is missing, there are several, or they are of different patients.
    """
    usable = [each for each in found if each.modality in modalities]
    if len({each.patient for each in usable if each.patient}) > 1:
        patients = " and ".join(sorted({each.patient for each in usable if each.patient})[:3])
        raise CaseError(f"its series belong to the patients {patients}; give each patient a folder")
    if len({each.person for each in usable if each.person}) > 1:  # which are not written into logs
        raise CaseError("its series have several patient names; give each patient a folder, or correct the names")
    chosen = {}
    for modality in modalities:
        fitting = [each for each in found if each.modality == modality]
        fitting = [each for each in fitting if each.sure] or fitting
        if len(fitting) > 1:
            _require_one_study(fitting)
            both = " and ".join(f"'{each.name}'" for each in fitting[:3])
            raise CaseError(f"{both} may all be {modality}; put the right one into a folder called {modality}")
        if fitting:
            chosen[modality] = fitting[0]
    missing = [modality for modality in modalities if modality not in chosen]
    if missing:
        raise CaseError(f"it has no series that is certainly {' or '.join(missing)}; {_advice(found, missing[0])}")
    _require_one_study([each for each in chosen.values() if not each.sure])
    return chosen


def _require_one_study(series: Sequence[Series]) -> None:
    studies = sorted({each.study for each in series if each.study})
    if len(studies) > 1:
        raise CaseError(f"its series belong to the studies {' and '.join(studies[:3])}; give each study a folder")


def _advice(found: Sequence[Series], modality: str) -> str:
    if not found:
        return "its folder contains neither DICOM files nor any that end in .nii or .nii.gz; copy its scans there"
    named = [f"'{each.name}' ({each.modality or 'unclear'})" for each in found[:8]]
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return f"it has {', '.join(named)}{more}; put the right one into a folder called {modality}, or add it"


def series_of(folder: Path, cohort: Cohort, names: Names) -> list[Series]:
    """All series of a patient, NIfTI and DICOM, those that could be a modality first.

    Raises:
        InputError: a DICOM file is damaged, or pydicom is missing.
    """
    found = []
    for path, stem in nifti_files(folder):
        kind = (cohort.ending_of(stem) or ("",))[0]
        by_folder, sure = modality_named(path.parent.name, names)
        words = re.sub(r"(sub|ses)-[^_]*_", "", stem)  # of BIDS; `sub` also means subtraction
        if kind != LABEL and not words_of(words) & MASKS:
            modality = by_folder if sure else kind or modality_named(words, names)[0]
            found.append(Series(path.name, (str(path),), modality, sure))
    return sorted([*found, *_dicom_series(folder, names)], key=lambda each: each.modality in ("", OTHER))


def _dicom_series(folder: Path, names: Names) -> Iterator[Series]:
    """The DICOM series below a folder, however they are spread over folders and files."""
    groups: dict[str, list[Path]] = defaultdict(list)
    headers: dict[str, Any] = {}
    for inner, files in folders_below(folder):
        for path in (inner / name for name in files if is_dicom(inner / name)):
            if (header := _header(path)) is not None:
                groups[str(header.SeriesInstanceUID)].append(path)
                headers.setdefault(str(header.SeriesInstanceUID), header)
    for series, paths in groups.items():
        header, place = headers[series], named_folder(paths[0].parent, folder)
        by_folder, sure = modality_named(place.name, names) if place != folder else ("", False)
        slices = int(_number(header.get("NumberOfFrames")) or len(paths))
        name = str(header.get("SeriesDescription") or place.name)
        if header.get("SeriesNumber"):
            name = f"{name} (series {header.SeriesNumber})"
        modality = by_folder if sure else modality_of(tags_of(header), names) if slices >= FEWEST else OTHER
        person = "".join(re.findall(r"\w", str(header.get("PatientName") or "").casefold()))
        study = " ".join(str(header.get(tag) or "") for tag in ("StudyDate", "StudyInstanceUID")).strip()
        yield Series(
            name, tuple(map(str, sorted(paths))), modality, sure, str(header.get("PatientID") or ""), person, study
        )


def _header(path: Path) -> Any:
    """The header of a DICOM file; None for the index of a disk, which has no pixels."""
    require("pydicom")
    from pydicom import dcmread
    from pydicom.uid import MediaStorageDirectoryStorage

    try:
        header = dcmread(path, stop_before_pixels=True)
        if header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            return None
        complete = bool(header.get("SeriesInstanceUID"))
    except Exception:  # of many kinds
        complete = False
    if not complete:
        raise CaseError(f"'{path}' is an incomplete or damaged DICOM file; export its series again, or remove it")
    return header


def tags_of(header: Any) -> dict[str, Any]:
    """What a DICOM header says about the sequence; of an enhanced file, what its first frame says."""
    wanted = ("EchoTime", "EffectiveEchoTime", "RepetitionTime", "InversionTime", "ContrastBolusAgent")
    tags = {name: header.get(name) for name in ("Modality", "SeriesDescription", "ScanningSequence", "ImageType")}
    for element in _elements(header):
        if element.keyword in wanted and element.value not in (None, "", []):
            tags.setdefault(element.keyword, element.value)
    return tags


def _elements(header: Any) -> Iterator[Any]:
    """The elements of a header at any depth that can be read."""
    for tag in header.keys():
        try:
            element = header[tag]
        except Exception:  # of many kinds, for values that break the standard
            continue
        yield element
        for item in element.value if element.VR == "SQ" else ():
            yield from _elements(item)


def modality_of(tags: Mapping[str, Any], names: Names) -> str:
    """The modality of an MR series by its description and parameters: empty if they disagree or say nothing.

    Args:
        tags: DICOM keywords with their values; EchoTime, RepetitionTime and InversionTime in ms.
        names: words of a description, by modality.
    """
    text = str(tags.get("SeriesDescription") or "")
    words = words_of(text.replace("+", " c "))
    image_type = {str(part).lower() for part in tags.get("ImageType") or ()}
    others = SURVEYS | OTHERS
    if words & others or image_type & (others | REFORMATTED) or tags.get("Modality", "MR") != "MR":
        return OTHER
    by_sequence = sequence_of(tags)
    by_words = modality_named(" ".join(words), {name: given for name, given in names.items() if name != OTHER})[0]
    if by_sequence == OTHER or any(words_of(given) <= words for given in names.get(OTHER, ())):
        return OTHER
    agree = {"T1": ("T1", ""), "T1ce": ("T1", ""), "T2": ("T2", ""), "FLAIR": ("FLAIR", "T2", "")}
    modality = by_words or by_sequence
    if modality and by_sequence not in agree[modality]:
        return ""
    agent = str(tags.get("ContrastBolusAgent") or "").strip().lower()
    return "T1ce" if modality == "T1" and agent not in ("", "no", "none", "n") else modality


def sequence_of(tags: Mapping[str, Any]) -> str:
    """The weighting that the echo, repetition and inversion time (ms) of a sequence give; empty if unclear."""
    echo, repetition, inversion = (_number(tags.get(name)) for name in ("EchoTime", "RepetitionTime", "InversionTime"))
    echo = _number(tags.get("EffectiveEchoTime")) or echo
    scanning = str(tags.get("ScanningSequence") or "")
    if "EP" in scanning:  # echo planar: diffusion and perfusion
        return OTHER
    if not echo:
        return ""
    if echo >= 60 and repetition >= 1500:
        return "FLAIR" if inversion >= 1400 else "T2"
    short = 12 if "GR" in scanning else 30
    if echo <= short and (0 < repetition <= 1000 or 300 <= inversion <= 1300):
        return "T1"
    return ""


def _number(value: Any) -> float:
    """The number that a DICOM element states; 0 if it states none or several."""
    try:
        return float(value or 0)
    except (TypeError, ValueError):
        return 0.0
