"""Write label maps and probabilities with the grid and header of the scan; writing is atomic and replaces no input."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from numpy.typing import NDArray
from tumour.errors import InputError, require_finite
from tumour.files import atomic_write, probability_file
from tumour.scans.nifti import is_marked, read_header

MARK = ("intent_name", b"predicted tumour")  # in the header: what may be replaced by a later run
STEPS = 255  # a probability p is stored as round(STEPS * p), and scl_slope is 1 / STEPS


def require_own(targets: Iterable[Path]) -> None:
    """Refuse to replace files that are no predictions of this program, such as references or corrected maps.

    Raises:
        InputError: there is such a file; the message names the first.
    """
    for target in targets:
        if target.exists() and not is_marked(target, *MARK):
            raise InputError(f"'{target}' would be replaced, but it is no prediction of ours; give another folder.")


def save_on_scan(
    values: NDArray[np.uint8], source: Path, affine: NDArray[np.float64], target: Path, slope: float = 1.0
) -> None:
    """Write values (*S) with the header of the scan `source`, or with only the affine if that is a folder of DICOM.

    Raises:
        InputError: the file would replace another one, such as the scan or a reference.
    """
    require_own([target])
    header = None if source.is_dir() else read_header(str(source))
    affine = affine if header is None else header.get_best_affine()
    image = nib.Nifti1Image(values, affine, header, dtype=np.uint8)  # type: ignore[attr-defined]
    if header is None:
        image.header.set_xyzt_units("mm")
        image.set_qform(affine, "scanner")
        image.set_sform(affine, "scanner")
    image.header["cal_max"] = image.header["cal_min"] = 0  # the display range of the scan does not suit other values
    image.header[MARK[0]] = MARK[1]
    image.header.set_slope_inter(slope, 0)  # nibabel then stores the values unchanged
    with atomic_write(target) as part:
        nib.save(image, part)  # type: ignore[attr-defined]


class _SaveOnScan(MapTransform):
    """Base of transforms that write volumes on the grid of the scan that `image` was read from.

    Nothing is written for data without the key `case`: a client passed the scan and uses the result from memory.

    Args:
        keys: keys of volumes on the grid of the scan.
        folder: folder for the files.

    Raises:
        InputError: a file would replace the scan.
    """

    def __init__(self, keys: KeysCollection, folder: str, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.folder = Path(folder)

    def write(self, data: Mapping, values: NDArray[np.uint8], target: Path, slope: float = 1.0) -> None:
        """Write values (*S) with the header of the case's first scan, or with only its affine if that is DICOM."""
        meta = data["image"].meta
        source, affine = Path(meta["filename_or_obj"]), np.asarray(meta["original_affine"])
        save_on_scan(values, source, affine, target, slope)


class SaveLabelMapd(_SaveOnScan):
    """Write (1, *S) label maps as `<folder>/<case>.nii.gz`, uint8, with the affine and header of the case's first scan.

    As of `_SaveOnScan`: nothing is written for data without `case`, and no file replaces the scan.
    """

    def __call__(self, data: Mapping) -> Mapping:
        for key in self.key_iterator(data) if "case" in data else ():
            label = np.asarray(data[key].cpu())[0].astype(np.uint8)
            self.write(data, label, self.folder / f"{data['case']}.nii.gz")
        return data


class SaveProbabilitiesd(_SaveOnScan):
    """Write probabilities (R, *S) as `<folder>_probabilities/<case>_<region>.nii.gz`, uint8 with `scl_slope` 1/255.

    They are rounded to the next multiple of 1/255, so those of 0.5 or more are also stored as more than 0.5.
    As of `_SaveOnScan`: nothing is written for data without `case`, and no file replaces the scan.

    Args:
        keys: keys of the probabilities.
        folder: folder of the label maps.
        regions: names of the regions, in the order of the channels.
    """

    def __init__(
        self, keys: KeysCollection, folder: str, regions: Iterable[str], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, folder, allow_missing_keys)
        self.regions = list(regions)

    def __call__(self, data: Mapping) -> Mapping:
        for key in self.key_iterator(data) if "case" in data else ():
            require_finite(data[key], str(data["case"]))
            for name, values in zip(self.regions, data[key], strict=True):
                stored = (values.clamp(0, 1) * STEPS).round().byte().cpu().numpy()  # 127.5 becomes 128
                self.write(data, stored, probability_file(self.folder, data["case"], name), 1 / STEPS)
        return data
