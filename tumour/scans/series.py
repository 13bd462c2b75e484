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
    """Read the only DICOM series in a folder.

    Returns:
        The voxels (x, y, z), the affine (4, 4) to RAS coordinates in mm, and the patient id.

    Raises:
        InputError: the folder has no series or several, slices are missing, or the series cannot be read.
    """
    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(True)
    names.SetDirectory(folder)
    series = names.GetSeriesUIDs()
    if len(series) != 1:
        raise InputError(f"'{folder}' has {len(series)} DICOM series; keep only the one of this modality")
    reader = ITKReader()
    try:
        image = reader.read(folder)
        array, meta = reader.get_data(image)
        patient = _patient(names.GetFileNames(series[0])[0])
    except Exception as error:
        kind = type(error).__name__
        raise InputError(f"'{folder}' is not a complete DICOM series ({kind}); export it again") from error
    if "ITK_non_uniform_sampling_deviation" in dict(image).keys():
        raise InputError(f"'{folder}' has missing or unevenly spaced slices; export the complete series")
    return np.asarray(array), np.asarray(meta[MetaKeys.AFFINE], float), patient


def _patient(path: str) -> str:
    """The patient id in a DICOM file, or an empty string."""
    reader = itk.GDCMImageIO.New()
    reader.SetFileName(path)
    reader.ReadImageInformation()
    tags, name = reader.GetMetaDataDictionary(), "0010|0020"
    return str(tags[name]).strip() if tags.HasKey(name) else ""
