"""Probabilities are written on the grid of the scan, with a scale that gives them back."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from tumour.errors import CaseError, InputError
from tumour.maps.writer import SaveLabelMapd, SaveProbabilitiesd

from tests.conftest import BUNDLES, succeed
from tests.members import member
from tests.scans.test_dicom import EVEN, VOXELS, oblique, write_slices

AFFINE = np.array([[0, -0.9, 0, 10], [0.7, 0, 0, -20], [0, 0, 1.5, 5], [0, 0, 0, 1]], float)
SHAPE = (6, 5, 4)


@pytest.fixture
def item(tmp_path):
    """A case whose scan is int16 with a scale of its own."""
    scan = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(SHAPE), AFFINE)
    scan.header.set_slope_inter(2.5, 7)
    scan.header["descrip"] = b"scanner"
    path = tmp_path / "scan.nii.gz"
    nib.save(scan, path)
    meta = {"filename_or_obj": str(path), "original_affine": AFFINE}
    return {"case": "P1", "image": MetaTensor(torch.zeros(1, *SHAPE), meta=meta)}


def test_each_region_is_a_file_that_gives_its_probabilities_back_within_half_a_step(item, tmp_path):
    pred = torch.rand(2, *SHAPE)
    pred[0, 0, 0] = torch.tensor([0, 1, 0.5, 0.4999])
    SaveProbabilitiesd("pred", str(tmp_path / "out"), ["WT", "ET"])({**item, "pred": pred})
    assert sorted(path.name for path in (tmp_path / "out_probabilities").iterdir()) == ["P1_ET.nii.gz", "P1_WT.nii.gz"]
    for name, values in zip(("WT", "ET"), pred.numpy(), strict=True):
        stored = nib.load(tmp_path / "out_probabilities" / f"P1_{name}.nii.gz")
        assert stored.get_data_dtype() == np.uint8 and stored.dataobj.slope == np.float32(1 / 255)
        assert np.allclose(stored.affine, AFFINE) and stored.header["descrip"].item() == b"scanner"
        assert np.abs(stored.get_fdata() - values).max() <= 0.5 / 255 + 1e-6
        assert np.array_equal(stored.get_fdata() >= 0.5, values >= 0.5)  # 0.4999 is 127/255


def test_a_case_without_finite_probabilities_and_a_file_that_is_the_scan_are_refused(item, tmp_path):
    save = SaveProbabilitiesd("pred", str(tmp_path / "maps"), ["WT"])
    with pytest.raises((CaseError, InputError), match="P1: the network's output is not finite"):
        save({**item, "pred": torch.full((1, *SHAPE), torch.nan)})
    target = tmp_path / "maps_probabilities" / "P1_WT.nii.gz"
    target.parent.mkdir()
    (tmp_path / "scan.nii.gz").rename(target)
    item["image"].meta["filename_or_obj"] = str(target)
    with pytest.raises((InputError, RuntimeError), match="would be replaced, but it is no prediction of ours"):
        save({**item, "pred": torch.zeros(1, *SHAPE)})


def test_a_client_without_case_ids_gets_no_file(item, tmp_path):
    del item["case"]
    SaveProbabilitiesd("pred", str(tmp_path / "out"), ["WT"])({**item, "pred": torch.zeros(1, *SHAPE)})
    SaveLabelMapd("pred", str(tmp_path / "out"))({**item, "pred": torch.zeros(1, *SHAPE)})
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("run_id", ["inferring", "evaluating"])
def test_one_option_writes_probabilities_whose_halves_are_the_regions_of_the_label_map(run_id, patients, tmp_path):
    member(tmp_path / "models", BUNDLES[0])
    settings = {"test_share": 1.0} if run_id == "evaluating" else {}
    succeed(run_id, BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), probabilities="yes", **settings)
    maps = sorted((tmp_path / "results" / "segmentations").glob("*.nii.gz"))
    assert len(maps) == 6
    folder = tmp_path / "results" / "segmentations_probabilities"
    for path in maps:
        label = nib.load(path)
        files = {
            name: nib.load(folder / path.name.replace(".nii.gz", f"_{name}.nii.gz")) for name in ("WT", "TC", "ET")
        }
        inside = {name: np.asanyarray(file.dataobj) >= 0.5 for name, file in files.items()}
        assert all(np.array_equal(file.affine, label.affine) for file in files.values())
        values = np.asanyarray(label.dataobj)
        assert np.array_equal(values == 4, inside["ET"]) and inside["ET"].any() and not inside["ET"].all()
        assert np.array_equal(values > 0, inside["WT"] | inside["TC"] | inside["ET"])


def test_a_dicom_case_has_probabilities_in_the_space_of_its_series(tmp_path):
    member(tmp_path / "models", BUNDLES[0])
    for number, name in enumerate(("T1", "T1ce", "T2", "FLAIR")):
        write_slices(tmp_path / "data" / "P1" / name, VOXELS + number, oblique(angle=0), EVEN)
    succeed("inferring", BUNDLES[0], tmp_path, "brats2021", tmp_path / "data", probabilities=True)
    label = nib.load(tmp_path / "results" / "segmentations" / "P1.nii.gz")
    stored = nib.load(tmp_path / "results" / "segmentations_probabilities" / "P1_WT.nii.gz")
    assert np.array_equal(stored.affine, label.affine) and stored.shape == label.shape
    assert stored.header["sform_code"] == 1 and stored.header.get_xyzt_units()[0] == "mm"
