"""Find the T1, T1ce, T2 and FLAIR of a patient among the files that a scanner wrote."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumour.cases.folder import folders_below, nifti_files
from tumour.cases.series import is_dicom, modality_named, named_folder, words_of
from tumour.cohort import ENDINGS, LABEL, Cohort
from tumour.errors import CaseError, InputError, OptionError
from tumour.scanner.extra import require
from tumour.scans.grid import Scan
from tumour.scans.readers import read_scan
from tumour.scans.series import read_slices

Names = Mapping[
    str, Sequence[str]
]  # words of the name of a series, by modality: `series` of bundles/common/cohorts.yaml
OTHER = "other"
SURVEYS = {"localizer", "localiser", "localizers", "loc", "scout", "survey", "aahead", "aahscout", "plane", "planes"}
# what is calculated from scans, or shows something else
OTHERS = {"adc", "dwi", "dti", "diff", "trace", "swi", "swan", "perf", "perfusion", "dsc", "dce", "asl", "sub", "mip"}
OTHERS |= {"subtraction", "mprs", "cbv", "cbf", "mtt", "fa", "tof", "angio", "phase", "pha", "b0", "b1000", "pd"}
FEWEST = 8  # slices of a volume, as in `read_scan`


@dataclass(frozen=True)
class Series:
    """Files that may be one of the modalities.

    Args:
        name: description, or name of the file, for messages.
        files: one NIfTI file, or the DICOM files of a series in any order.
        modality: empty if unknown, `other` if it is none of them.
        sure: its folder is named after the modality, which decides between several.
        patient: patient id of a DICOM series.
    """

    name: str
    files: tuple[str, ...]
    modality: str
    sure: bool = False
    patient: str = ""

    @property
    def is_dicom(self) -> bool:
        return not self.files[0].endswith(ENDINGS)

    def read(self) -> Scan:
        """Its voxels on their grid.

        Raises:
            InputError: it cannot be read, or its slices make no volume.
        """
        if not self.is_dicom:
            return read_scan(self.files[0])
        data, affine, patient = read_slices(self.files, self.name)
        if min(data.shape) < FEWEST:
            raise InputError(f"'{self.name}' has the shape {data.shape}, which is not a volume; export all slices")
        return Scan(self.name, data, affine, patient=patient)


def patient_folders(root: str) -> list[Path]:
    """The folder of each patient: the subfolders, or the folder itself if it contains scans.

    Raises:
        InputError: it is not a folder, or there is no scan.
    """
    folder = Path(root)
    if not root or not folder.is_dir():
        raise OptionError(f"scans_dir '{root}' is not a folder; give the folder that contains one folder per patient.")
    if any(name.endswith(ENDINGS) or is_dicom(folder / name) for name in _files(folder)):
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
    chosen = {}
    for modality in modalities:
        fitting = [each for each in found if each.modality == modality]
        fitting = [each for each in fitting if each.sure] or fitting
        if len(fitting) > 1:
            both = " and ".join(f"'{each.name}'" for each in fitting[:3])
            raise CaseError(f"{both} may all be {modality}; put the right one into a folder called {modality}")
        if fitting:
            chosen[modality] = fitting[0]
    missing = [modality for modality in modalities if modality not in chosen]
    if missing:
        raise CaseError(f"it has no series that is certainly {' or '.join(missing)}; {_advice(found, missing[0])}")
    patients = {each.patient for each in chosen.values() if each.patient}
    if len(patients) > 1:
        raise CaseError(f"its series belong to the patients {' and '.join(sorted(patients))}; separate them")
    return chosen


def _advice(found: Sequence[Series], modality: str) -> str:
    if not found:
        return "its folder contains neither DICOM nor NIfTI files; copy its scans there"
    named = [f"'{each.name}' ({each.modality or 'unclear'})" for each in found[:8]]
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return f"it has {', '.join(named)}{more}; put the right one into a folder called {modality}, or add it"


def series_of(folder: Path, cohort: Cohort, names: Names) -> list[Series]:
    """All series of a patient, NIfTI and DICOM, those that could be a modality first."""
    suffixes = {suffix: kind for kind, given in cohort.suffixes.items() for suffix in given}
    found = []
    for path, stem in nifti_files(folder):
        kind = next((kind for suffix, kind in suffixes.items() if stem.endswith(suffix)), "")
        by_folder, sure = modality_named(path.parent.name, names)
        if kind != LABEL:
            words = re.sub(r"(sub|ses)-[^_]*_", "", stem)  # of BIDS; `sub` also means subtraction
            modality = by_folder if sure else kind or modality_named(words, names)[0]
            found.append(Series(path.name, (str(path),), modality, sure))
    return sorted([*found, *_dicom_series(folder, names)], key=lambda each: each.modality in ("", OTHER))


def _dicom_series(folder: Path, names: Names) -> Iterator[Series]:
    """The DICOM series below a folder, however they are spread over folders and files."""
    paths = [inner / name for inner, files in folders_below(folder) for name in files if is_dicom(inner / name)]
    if paths:
        require("pydicom")
        from pydicom import dcmread
    groups: dict[tuple[str, Path], list[Path]] = defaultdict(list)
    headers: dict[tuple[str, Path], Any] = {}
    for path in paths:
        header = dcmread(path, stop_before_pixels=True)
        key = str(header.get("SeriesInstanceUID", "")), path.parent if not header.get("SeriesInstanceUID") else folder
        groups[key].append(path)
        headers.setdefault(key, header)
    for key, files in groups.items():
        header, place = headers[key], named_folder(files[0].parent, folder)
        by_folder, sure = modality_named(place.name, names) if place != folder else ("", False)
        slices = int(header.get("NumberOfFrames", len(files)) or len(files))
        name = str(header.get("SeriesDescription", "") or place.name)
        if header.get("SeriesNumber"):
            name = f"{name} (series {header.SeriesNumber})"
        modality = by_folder if sure else modality_of(tags_of(header), names) if slices >= FEWEST else OTHER
        yield Series(name, tuple(map(str, sorted(files))), modality, sure, str(header.get("PatientID", "")))


def tags_of(header: Any) -> dict[str, Any]:
    """What a DICOM header says about the sequence; of an enhanced file, what its first frame says."""
    wanted = ("EchoTime", "EffectiveEchoTime", "RepetitionTime", "InversionTime", "ContrastBolusAgent")
    tags = {name: header.get(name) for name in ("Modality", "SeriesDescription", "ScanningSequence", "ImageType")}
    for element in header.iterall():
        if element.keyword in wanted and element.value not in (None, "", []):
            tags.setdefault(element.keyword, element.value)
    return tags


def modality_of(tags: Mapping[str, Any], names: Names) -> str:
    """The modality of an MR series by its description and parameters: empty if they disagree or say nothing.

    Args:
        tags: DICOM keywords with their values; EchoTime, RepetitionTime and InversionTime in ms.
        names: words of a description, by modality.
    """
    text = str(tags.get("SeriesDescription") or "")
    words = words_of(text.replace("+", " c "))
    image_type = {str(part).lower() for part in tags.get("ImageType") or ()}
    if words & (SURVEYS | OTHERS) or image_type & (SURVEYS | OTHERS) or tags.get("Modality", "MR") != "MR":
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
    echo, repetition, inversion = (
        float(tags.get(name) or 0) for name in ("EchoTime", "RepetitionTime", "InversionTime")
    )
    echo = float(tags.get("EffectiveEchoTime") or echo)
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
