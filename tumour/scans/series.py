"""DICOM for segmenting: a folder a case, in it a folder a modality that holds one series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import itk
import numpy as np
from monai.data import ITKReader
from monai.utils import MetaKeys, ensure_tuple
from numpy.typing import NDArray

from tumour.errors import InputError


class OneGridSeriesReader(ITKReader):
    """Read the series of a case on the grid of the first, as `tumour.scans.readers.OneGridReader` reads files."""

    def get_data(self, img: Any) -> tuple[Any, dict]:
        parts = [super(OneGridSeriesReader, self).get_data(each) for each in ensure_tuple(img)]
        arrays, meta = [array for array, _ in parts], parts[0][1]
        if len(arrays) == 1:
            return arrays[0], meta
        meta[MetaKeys.ORIGINAL_CHANNEL_DIM] = 0
        return np.stack(arrays), meta


def series_cases(dataset_dir: str, series: Mapping[str, Sequence[str]], modalities: Sequence[str]) -> list[dict]:
    """The cases below a folder that have a series for at least one modality.

    A case is a dict with `case`, `patient`, `image` (one folder a modality) and, if some are missing, `present`.

    Args:
        dataset_dir: folder of the cases.
        series: names that the folder of each modality may have, in lower case.
        modalities: those wanted, in order.
    """
    found: dict[Path, dict[str, str]] = {}
    for folder in sorted(path for path in Path(dataset_dir).rglob("*") if path.is_dir()):
        name = next((name for name, given in series.items() if folder.name.lower() in given), None)
        if name in modalities and any(_is_dicom(path) for path in folder.iterdir()):
            found.setdefault(folder.parent, {})[str(name)] = str(folder)
    cases = []
    for folder, folders in found.items():
        present = [name for name in modalities if name in folders]
        case = {"case": folder.name, "patient": folder.name, "image": [folders[name] for name in present]}
        cases.append(case if len(present) == len(modalities) else case | {"present": ",".join(present)})
    return cases


def read_series(folder: str) -> tuple[NDArray, NDArray]:
    """The voxels (x, y, z) and the affine (to RAS, mm) of the one series in a folder.

    Raises:
        InputError: there is none or more than one, slices are missing, or it cannot be read.
    """
    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(True)
    names.SetDirectory(folder)
    count = len(names.GetSeriesUIDs())
    if count != 1:
        raise InputError(f"'{folder}' holds {count} DICOM series; keep the one of this modality")
    reader = OneGridSeriesReader()
    try:
        image = reader.read(folder)
        array, meta = reader.get_data(image)
    except Exception as error:
        raise InputError(f"'{folder}' is no whole DICOM series ({type(error).__name__}); export it again") from error
    if "ITK_non_uniform_sampling_deviation" in dict(image).keys():
        raise InputError(f"'{folder}' has slices missing or unevenly apart; export the whole series")
    return np.asarray(array), np.asarray(meta[MetaKeys.AFFINE], float)


def _is_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"
