"""Make synthetic patients with brain tumours, named and stored as one of the published data sets.

python -m tools.patients.synthetic --output DIR --cases 16 --size 96 --seed 0 --convention brats2021
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from tqdm import tqdm
from tumour.cohort import Cohort
from tumour.errors import InputError, command_line, one_of
from tumour.files import whole

from tools.cohorts import cohort_named
from tools.patients.faults import KINDS, plant
from tools.patients.phantom import SIGNAL, make_patient

CASES = {  # path below the output folder, given the index and the number that starts at 1
    "brats2018": "HGG/Brats18_SYN_{index:03d}_1",
    "brats2020": "BraTS20_Training_{number:03d}",
    "brats2021": "BraTS2021_{index:05d}",
    "brats2023_gli": "BraTS-GLI-{index:05d}-000",
    "brats2024_gli": "BraTS-GLI-{index:05d}-100",
    "brats2024_met": "BraTS-MET-{index:05d}-000",
    "brats2024_met_rc": "BraTS-MET-{index:05d}-000",
    "msd": "BRATS_{number:03d}",
}
AXES = {"msd": "RAS", "brats2024_gli": "LAS"}  # which way the voxels of a file run; of all others LPS
OTHER_CASES = "SYN-{index:05d}-000"  # of a convention that is not listed above


def save(array: np.ndarray, path: Path, axes: str, spacing: Sequence[float], left: float) -> None:
    """Write an array in RAS order, whole or not at all; the file's voxels run along `axes`.

    A voxel has `spacing` mm, and the first lies at `left` mm on the first axis of the world and at 0 on the others.
    """
    affine = np.diag([*spacing, 1.0])
    affine[0, 3] = left
    turn = nib.orientations.ornt_transform(*(nib.orientations.axcodes2ornt(codes) for codes in ("RAS", axes)))
    image = nib.Nifti1Image(array, affine).as_reoriented(turn)  # type: ignore[attr-defined]
    image.set_sform(image.affine, code="scanner")
    image.set_qform(image.affine, code="scanner")
    image.header.set_xyzt_units("mm")
    with whole(path) as part:
        nib.save(image, part)


def on_grid(array: np.ndarray, spacing: Sequence[float], order: int) -> np.ndarray:
    """A volume of 1 mm voxels on a grid of others, by splines of an order."""
    if list(spacing) == [1, 1, 1]:
        return array
    shape = tuple(int((edge - 1) / mm) + 1 for edge, mm in zip(array.shape, spacing, strict=True))
    return ndimage.affine_transform(array, np.array(spacing), output_shape=shape, order=order)


def with_cavity(label: np.ndarray) -> np.ndarray:
    """The left half of the necrosis as a resection cavity, the fifth class: after surgery both are fluid."""
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
    """Store a patient under the file names, in the voxel order and with the label values of a convention."""
    label = with_cavity(label) if len(cohort.classes) > 4 else label
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
    convention: str = "brats2021",
    lesions: int | None = None,
    spacing: float | Sequence[float] = 1,
    missing: str | None = None,
    corrupt: str | None = None,
) -> list[str]:
    """Write synthetic patients as a published data set stores its own; the ids of the cases come back.

    Patient 1 has no enhancing tumour and patient 2 has ten small lesions; all others have one that enhances in a ring.

    Args:
        output: folder to write to; files of the same name are replaced.
        cases: how many patients.
        size: edge of the volume in voxels of 1 mm, or its three edges; the brain is scaled to fill about 85 % of it.
        seed: with the index of a patient it decides all of that patient.
        convention: one of the cohorts in bundles/common/cohorts.yaml.
        lesions: how many each patient has.
        spacing: edge of a voxel in mm, or its three edges: the same head on another grid, as metastases' 0.86,0.86,1.5.
        missing: modality that the last patient lacks.
        corrupt: fault of the last patient, of `tools.patients.faults.KINDS`.

    Raises:
        InputError: an argument is out of its range, or the convention is not known.
    """
    edges: list = list(size) if isinstance(size, list | tuple) else [size] * 3
    if len(edges) != 3:
        raise InputError(f"size is {size}; it must be one number or three.")
    for name, value, least, most in [
        ("cases", cases, 1, 100_000),
        *[("size", edge, 32, 1024) for edge in edges],
        ("seed", seed, 0, 2**32 - 1),
        ("lesions", 1 if lesions is None else lesions, 1, 50),
    ]:
        if not isinstance(value, int) or not least <= value <= most:
            raise InputError(f"{name} is {value}; it must be a whole number from {least} to {most}.")
    grid: list = list(spacing) if isinstance(spacing, list | tuple) else [spacing] * 3
    if len(grid) != 3 or not all(isinstance(mm, int | float) and 0.2 <= mm <= 8 for mm in grid):
        raise InputError(f"spacing is {spacing}; it must be one number or three, from 0.2 to 8 mm.")
    cohort = cohort_named(convention, setting="convention")
    if corrupt:
        one_of(KINDS, corrupt, setting="corrupt")
    if missing:
        one_of(SIGNAL, missing, setting="missing")
    if (missing or corrupt) and cohort.channels:
        raise InputError(f"missing and corrupt need one file a modality, which {convention} has not.")
    made = []
    for index in tqdm(range(cases), desc="synthetic patients", unit="patient", disable=None):
        case = CASES.get(convention, OTHER_CASES).format(index=index, number=index + 1)
        patient = make_patient(seed, index, edges, lesions)
        files = write_patient(Path(output), case, *patient, cohort, AXES.get(convention, "LPS"), grid)
        made.append(Path(case).name)
    if missing:
        files[missing].unlink()
    if corrupt:
        plant(corrupt, files)
    return made


def command(
    output, cases=16, size=96, seed=0, convention="brats2021", lesions=None, spacing=1, missing=None, corrupt=None
) -> str:
    made = make_patients(output, cases, size, seed, convention, lesions, spacing, missing, corrupt)
    return f"Synthetic patients {made[0]} to {made[-1]} ({len(made)}) written to '{output}' as {convention}."


def main() -> None:
    command.__doc__ = make_patients.__doc__
    command_line(command, "tools.patients.synthetic")


if __name__ == "__main__":
    main()
