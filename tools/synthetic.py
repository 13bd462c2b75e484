"""Make synthetic patients with brain tumours, named and stored as one of the published data sets.

python -m tools.synthetic --output DIR --cases 16 --size 96 --seed 0 --convention brats2021
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fire
import nibabel as nib
import numpy as np
import yaml
from tqdm import tqdm

from tools.errors import InputError, one_of
from tools.files import whole
from tools.phantom import make_patient

BRATS = Path(__file__).parents[1] / "bundles" / "common" / "brats.yaml"
CASES = {  # path below the output folder, given the index and the number that starts at 1
    "brats2018": "HGG/Brats18_SYN_{index:03d}_1",
    "brats2020": "BraTS20_Training_{number:03d}",
    "brats2021": "BraTS2021_{index:05d}",
    "brats2023_gli": "BraTS-GLI-{index:05d}-000",
    "brats2024_met": "BraTS-MET-{index:05d}-000",
    "msd": "BRATS_{number:03d}",
}
OTHER_CASES = "SYN-{index:05d}-000"  # of a convention that is not listed above


def save(array: np.ndarray, path: Path, flip: bool) -> None:
    """Write an array in RAS order, 1 mm, whole or not at all; `flip` stores the same voxels in LPS order."""
    affine = np.eye(4)
    affine[0, 3] = 1 - array.shape[0]
    if flip:
        array, affine = array[::-1, ::-1], np.diag([-1.0, -1, 1, 1])
        affine[1, 3] = array.shape[1] - 1
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    with whole(path) as part:
        nib.save(image, part)


def write_patient(
    output: Path, case: str, images: Mapping[str, np.ndarray], label: np.ndarray, cohort: Mapping[str, Any]
) -> None:
    """Store a patient under the file names, in the voxel order and with the label values of a convention."""
    label = np.array(cohort["label_values"], np.uint8)[label]
    if "channels" in cohort:
        image = np.stack([images[modality] for modality in cohort["channels"]], axis=-1)  # (x, y, z, channel)
        save(image, output / cohort["folders"]["image"][0] / f"{case}.nii.gz", flip=False)
        save(label, output / cohort["folders"]["label"] / f"{case}.nii.gz", flip=False)
        return
    for name, array in [*images.items(), ("label", label)]:
        suffix = cohort["files"][name]
        suffix = suffix if isinstance(suffix, str) else suffix[0]
        save(array, output / case / f"{Path(case).name}{suffix}.nii.gz", flip=True)


def make_patients(
    output: str | os.PathLike,
    cases: int = 16,
    size: int | Sequence[int] = 96,
    seed: int = 0,
    convention: str = "brats2021",
    lesions: int | None = None,
) -> list[str]:
    """Write synthetic patients as a published data set stores its own; the ids of the cases come back.

    Patient 1 has no enhancing tumour and patient 2 has ten small lesions; all others have one that enhances in a ring.

    Args:
        output: folder to write to; files of the same name are replaced.
        cases: how many patients.
        size: edge of the volume in voxels of 1 mm, or its three edges; the brain is scaled to fill about 85 % of it.
        seed: with the index of a patient it decides all of that patient.
        convention: one of the cohorts in bundles/common/brats.yaml.
        lesions: how many each patient has.

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
    cohort = one_of(yaml.safe_load(BRATS.read_text(encoding="utf-8"))["cohorts"], convention, setting="convention")
    made = []
    for index in tqdm(range(cases), desc="synthetic patients", unit="patient", disable=None):
        case = CASES.get(convention, OTHER_CASES).format(index=index, number=index + 1)
        write_patient(Path(output), case, *make_patient(seed, index, edges, lesions), cohort)
        made.append(Path(case).name)
    return made


def command(output, cases=16, size=96, seed=0, convention="brats2021", lesions=None) -> str:
    made = make_patients(output, cases, size, seed, convention, lesions)
    return f"Synthetic patients {made[0]} to {made[-1]} ({len(made)}) written to '{output}' as {convention}."


def main() -> None:
    command.__doc__ = make_patients.__doc__
    try:
        fire.Fire(command, name="tools.synthetic")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
