"""Read one DICOM series."""

from __future__ import annotations

from typing import Any

import itk
import numpy as np
from monai.data import ITKReader
from monai.utils import MetaKeys
from numpy.typing import NDArray
from tumour.errors import InputError


def read_series(folder: str) -> tuple[NDArray[Any], NDArray[np.float64], str]:
    """The voxels (x, y, z), the affine (to RAS, mm) and the patient's id of the one series in a folder.

    Raises:
        InputError: there is none or more than one, slices are missing, or it cannot be read.
    """
    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(True)
    names.SetDirectory(folder)
    series = names.GetSeriesUIDs()
    if len(series) != 1:
        raise InputError(f"'{folder}' holds {len(series)} DICOM series; keep the one of this modality")
    reader = ITKReader()
    try:
        image = reader.read(folder)
        array, meta = reader.get_data(image)
        patient = _patient(names.GetFileNames(series[0])[0])
    except Exception as error:
        kind = type(error).__name__
        raise InputError(f"'{folder}' is no complete DICOM series ({kind}); export it again") from error
    if "ITK_non_uniform_sampling_deviation" in dict(image).keys():
        raise InputError(f"'{folder}' has slices missing or unevenly spaced; export the whole series")
    return np.asarray(array), np.asarray(meta[MetaKeys.AFFINE], float), patient


def _patient(path: str) -> str:
    """The patient's id in a DICOM file."""
    reader = itk.GDCMImageIO.New()
    reader.SetFileName(path)
    reader.ReadImageInformation()
    tags, name = reader.GetMetaDataDictionary(), "0010|0020"
    return str(tags[name]).strip() if tags.HasKey(name) else ""
