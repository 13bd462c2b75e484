"""Write synthetic patients, named and stored like those of a published data set.

python -m tools patients --output DIR --cases 16 --size 96
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage
from tqdm import tqdm
from tumour.cases.folder import nifti_files
from tumour.cohort import Cohort
from tumour.errors import OptionError, one_of
from tumour.files import atomic_write
from tumour.runs.folders import Claim
from tumour.scans.nifti import is_marked

from tools.cohorts import cohort_named
from tools.patients.faults import KINDS, plant
from tools.patients.phantom import SIGNAL, make_patient

CASES = {  # path of a case below the output folder; `index` counts from 0, `number` from 1
    "brats2018": "HGG/Brats18_SYN_{index:03d}_1",
    "brats2020": "BraTS20_Training_{number:03d}",
    "brats2021": "BraTS2021_{index:05d}",
    "brats2023_gli": "BraTS-GLI-{index:05d}-000",
    "brats2023_ssa": "BraTS-SSA-{index:05d}-000",
    "brats2023_men": "BraTS-MEN-{index:05d}-000",
    "brats2023_ped": "BraTS-PED-{index:05d}-000",
    "brats2023_met": "BraTS-MET-{index:05d}-000",
    "brats2024_gli": "BraTS-GLI-{index:05d}-100",
    "brats2024_ped": "BraTS-PED-{index:05d}-000",
    "brats2024_met": "BraTS-MET-{index:05d}-000",
    "brats2024_met_rc": "BraTS-MET-{index:05d}-000",
    "msd": "BRATS_{number:03d}",
}
AXES = {"msd": "RAS", "brats2024_gli": "LAS"}  # voxel order of the files; all others are LPS
MARK = ("descrip", b"synthetic patient")  # in the header: what may be replaced
OTHER_CASES = "SYN-{index:05d}-000"  # for a data set that is not listed above


def save(array: np.ndarray, path: Path, axes: str, spacing: Sequence[float], left: float) -> None:
    """Write an array that is in RAS order as a NIfTI file whose voxels are in the order `axes`.

    Args:
        array: (x, y, z[, channel]) in RAS order.
        path: of the file; an interrupted write leaves the old file.
        axes: voxel order of the file, such as LPS.
        spacing: voxel size in mm along the three axes.
        left: position in mm of the first voxel on the first axis; it is 0 on the other two.
    """
    affine = np.diag([*spacing, 1.0])
    affine[0, 3] = left
    turn = nib.orientations.ornt_transform(*(nib.orientations.axcodes2ornt(codes) for codes in ("RAS", axes)))
    image = nib.Nifti1Image(array, affine).as_reoriented(turn)  # type: ignore[attr-defined]
    image.set_sform(image.affine, code="scanner")
    image.set_qform(image.affine, code="scanner")
    image.header.set_xyzt_units("mm")
    image.header[MARK[0]] = MARK[1]
    with atomic_write(path) as draft:
        nib.save(image, draft)


def on_grid(array: np.ndarray, spacing: Sequence[float], order: int) -> np.ndarray:
    """Resample a volume from 1 mm voxels to another spacing with splines of the given order."""
    if list(spacing) == [1, 1, 1]:
        return array
    shape = tuple(int((edge - 1) / mm) + 1 for edge, mm in zip(array.shape, spacing, strict=True))
    return ndimage.affine_transform(array, np.array(spacing), output_shape=shape, order=order)


def with_fifth_class(label: np.ndarray) -> np.ndarray:
    """Turn the left half of the necrosis into class 4: a resection cavity or a cyst."""
    necrotic = np.nonzero(label == 1)
    left = necrotic[0] <= np.median(necrotic[0]) if necrotic[0].size else slice(0)
    label = label.copy()
    label[tuple(axis[left] for axis in necrotic)] = 4
    return label


def write_patient(
    output: Path,
    case: str,
    images: Mapping[str, np.ndarray],
    label: np.ndarray,
    cohort: Cohort,
    axes: str = "LPS",
    spacing: Sequence[float] = (1, 1, 1),
) -> dict[str, Path]:
    """Write the files of a patient with the names, voxel order and label values of a data set.

    Returns:
        The paths by modality, or `image` for a 4-D file, and `label`.
    """
    label = with_fifth_class(label) if len(cohort.classes) > 4 else label
    left = 1 - label.shape[0]
    label = cohort.to_values(on_grid(label, spacing, order=0))
    images = {name: on_grid(image, spacing, order=1) for name, image in images.items()}
    if cohort.channels:
        image = np.stack([images[modality] for modality in cohort.channels], axis=-1)  # (x, y, z, channel)
        files = {"image": output / cohort.image_folders[0], "label": output / cohort.label_folder}
        paths = {name: folder / f"{case}.nii.gz" for name, folder in files.items()}
        arrays: Mapping[str, np.ndarray] = {"image": image, "label": label}
    else:
        arrays = {**images, "label": label}
        endings = {name: cohort.suffixes[name][0] for name in arrays}
        paths = {name: output / case / f"{Path(case).name}{ending}.nii.gz" for name, ending in endings.items()}
    for name, path in paths.items():
        save(arrays[name], path, axes, spacing, left)
    return paths


def make_patients(
    output: str | os.PathLike,
    cases: int = 16,
    size: int | Sequence[int] = 96,
    seed: int = 0,
    cohort: str = "brats2021",
    lesions: int | None = None,
    spacing: float | Sequence[float] = 1,
    missing: str | None = None,
    corrupt: str | None = None,
) -> str:
    """Write synthetic patients like those of a published data set.

    Patient 1 has no enhancing tumour, patient 2 has ten small lesions; all others have one ring-enhancing tumour.

    Args:
        output: folder to write to; files of the same name are replaced.
        cases: number of patients.
        size: number of 1 mm voxels along each axis, one or three numbers; the brain fills about 85% of the volume.
        seed: together with its index, determines everything about a patient.
        cohort: name of the data set, as in bundles/common/cohorts.yaml.
        lesions: number of lesions per patient.
        spacing: voxel size in mm, one or three numbers: the same head on another grid, such as 0.86,0.86,1.5.
        missing: modality that the last patient lacks.
        corrupt: defect of the last patient, such as half, for half a file; an unknown one lists all.

    Returns:
        A sentence with what was written.

    Raises:
        InputError: an argument is out of range, or the cohort is unknown.
    """
    edges, grid = three("size", size), three("spacing", spacing)
    check_numbers(cases=cases, edges=edges, seed=seed, lesions=lesions, spacing=grid)
    data_set = cohort_named(cohort)
    if corrupt:
        one_of(KINDS, corrupt, setting="corrupt")
    if missing:
        one_of(SIGNAL, missing, setting="missing")
    if (missing or corrupt) and data_set.channels:
        raise OptionError(f"missing and corrupt need one file per modality, but {cohort} stores 4-D files.")
    require_only_synthetic(Path(output))
    names = []
    with Claim("writing patients", [str(output)]):
        for index in tqdm(range(cases), desc="synthetic patients", unit="patient", disable=None):
            case = CASES.get(cohort, OTHER_CASES).format(index=index, number=index + 1)
            patient = make_patient(seed, index, edges, lesions)
            files = write_patient(Path(output), case, *patient, data_set, AXES.get(cohort, "LPS"), grid)
            names.append(Path(case).name)
    if missing:
        files[missing].unlink()
    if corrupt:
        plant(corrupt, files)
    return f"Synthetic patients {names[0]} to {names[-1]} ({cases}) written to '{output}' as {cohort}."


def require_only_synthetic(output: Path) -> None:
    """Refuse a folder with other scans, which might be replaced and would be mixed with these.

    Raises:
        OptionError: there is one; the message names the first.
    """
    for path, _ in nifti_files(output) if output.is_dir() else ():
        if not is_marked(path, *MARK):
            raise OptionError(f"'{output}' holds other scans, such as '{path}'; give another folder.")


def three(name: str, value: Any) -> list:
    """The value for each axis, from one for all axes or three."""
    values = list(value) if isinstance(value, list | tuple) else [value] * 3
    if len(values) != 3:
        raise OptionError(f"{name} is {value}; give one number or three.")
    return values


def check_numbers(cases: int, edges: list[int], seed: int, lesions: int | None, spacing: list[float]) -> None:
    """Raise an InputError for the first number that is out of its range."""
    for name, value, least, most in [
        ("cases", cases, 1, 100_000),
        *[("size", edge, 32, 1024) for edge in edges],
        ("seed", seed, 0, 2**32 - 1),
        ("lesions", 1 if lesions is None else lesions, 1, 50),
    ]:
        if not isinstance(value, int) or not least <= value <= most:
            raise OptionError(f"{name} is {value}; it must be an integer from {least} to {most}.")
    for mm in spacing:
        if not isinstance(mm, int | float) or not 0.2 <= mm <= 8:
            raise OptionError(f"spacing is {mm}; it must be a number from 0.2 to 8 (mm).")
