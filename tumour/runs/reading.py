"""How cases are read, recorded as what becomes of a probe: its shape and its values after the transforms of a config.

Two configs that read the probe alike give a network the same input, however they are written.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
from monai.transforms import Compose
from tumour.cohort import Cohort
from tumour.errors import OptionError

READING = {"shape": [int], "means": [[float]]}  # what a record contains of it
SHAPE, SPACING = (20, 18, 16), (1.5, 1.0, 1.2)  # voxels, mm: unequal, so that axes and their directions show
NEAR = 0.02  # standard deviations; another processor differs by a millionth


def reading_of(read: Sequence[Any], cohort: Cohort, modalities: Sequence[str]) -> dict[str, Any] | None:
    """Read a small made-up scan, an ellipsoid of waves with a bright spot, and describe the result.

    Args:
        read: transforms from the files of a case to `image` (C, x, y, z).
        cohort: the data set, which says whether all modalities are in one file.
        modalities: channels of the network.

    Returns:
        The shape of the image, and the means of its eight octants by channel; None if `read` takes other files.
    """
    with TemporaryDirectory() as folder:
        item = probe(Path(folder), cohort, modalities)
        try:
            image = np.asarray(Compose(read)(item)["image"], np.float64)
            x, y, z = ((slice(0, (n + 1) // 2), slice(n // 2, n)) for n in image.shape[1:])
        except Exception:  # of a reader for other files; the cases of a run will show what is wrong, if anything
            return None
    means = np.stack([image[:, a, b, c].mean(axis=(1, 2, 3)) for a in x for b in y for c in z], axis=1).round(3)
    return {"shape": list(image.shape[1:]), "means": means.tolist()} if np.isfinite(means).all() else None


def probe(folder: Path, cohort: Cohort, modalities: Sequence[str]) -> dict[str, Any]:
    """Write the files of the probe, and give it as a case. The background of its first modality is below 0."""
    place = np.indices(SHAPE) - np.reshape(np.array(SHAPE) / 2 - 0.5, (3, 1, 1, 1))
    inside = (np.square(place) / np.reshape(np.square(np.array(SHAPE) / 2 - 2), (3, 1, 1, 1))).sum(0) < 1
    along = place[0] + 2 * place[1] + 3 * place[2]
    bright = np.square(place - np.reshape((3, 2, -1), (3, 1, 1, 1))).sum(0) < 3  # shows a limit of the values
    head = inside * (1 + 9 * bright)
    waves = {name: head * (600 + 200 * np.cos(0.1 * n * along)) for n, name in enumerate(modalities, 1)}
    waves[modalities[0]] -= 300
    files = [waves[name] for name in modalities]
    if cohort.channels:
        files = [np.stack([waves.get(name, np.zeros(SHAPE)) for name in cohort.channels], axis=-1)]
    paths = [str(folder / f"{n}.nii") for n in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        nib.save(nib.Nifti1Image(data.astype(np.float32), np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1])), path)
    return {"case": "probe", "image": paths} | ({} if cohort.channels else {"modalities": list(modalities)})


def require_same_reading(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None, path: Path) -> None:
    """Refuse to read cases in another way than weights were trained with; a reading that is not known may be any.

    Raises:
        OptionError: the probe is read differently.
    """
    if not before or not now:
        return
    sizes, sizes_now = ([each["shape"], [len(row) for row in each["means"]]] for each in (before, now))
    if sizes != sizes_now or not np.allclose(before["means"], now["means"], rtol=0, atol=NEAR):
        raise OptionError(
            f"Cases are read differently than '{path}' was trained with: a test image now has the shape {now['shape']} "
            f"(in training {before['shape']}) or other values; leave out what changes load, resized or read."
        )
