"""Write label maps with the grid and header of the scan; writing is atomic and never replaces an input."""

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from tumour.errors import InputError
from tumour.files import atomic_write
from tumour.scans.nifti import read_header


class SaveLabelMapd(MapTransform):
    """Write (1, *S) label maps as `<folder>/<case>.nii.gz`, uint8, with the affine and header of the case's first scan.

    Nothing is written for data without the key `case`: a client passed the scan and uses the label map from memory.

    Args:
        keys: keys of label maps on the grid of the scan that `image` was read from.
        folder: folder for the label maps.

    Raises:
        InputError: a label map would replace the scan.
    """

    def __init__(self, keys: KeysCollection, folder: str, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.folder = Path(folder)

    def __call__(self, data: Mapping) -> Mapping:
        for key in self.key_iterator(data) if "case" in data else ():
            meta = data["image"].meta
            source, affine = Path(meta["filename_or_obj"]), np.asarray(meta["original_affine"])
            self.write(np.asarray(data[key].cpu())[0], source, affine, self.folder / f"{data['case']}.nii.gz")
        return data

    @staticmethod
    def write(label: np.ndarray, source: Path, affine: np.ndarray, target: Path) -> None:
        """Write one label map (*S) with the header of `source`, or with only the affine if that is a DICOM series."""
        if target.exists() and target.samefile(source):
            raise InputError(f"'{target}' is an input and would be replaced; give another output_dir.")
        header = None if source.is_dir() else read_header(str(source))
        affine = affine if header is None else header.get_best_affine()
        image = nib.Nifti1Image(label.astype(np.uint8), affine, header, dtype=np.uint8)  # type: ignore[attr-defined]
        if header is None:
            image.header.set_xyzt_units("mm")
            image.set_qform(affine, "scanner")
            image.set_sform(affine, "scanner")
        image.header["cal_max"] = image.header["cal_min"] = 0  # the display range of the scan does not suit a label map
        image.header.set_slope_inter(1, 0)
        with atomic_write(target) as part:
            nib.save(image, part)  # type: ignore[attr-defined]
