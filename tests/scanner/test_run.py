"""One command prepares, segments and returns, another only prepares; the exit status says whether all are done."""

import os
import shutil
import signal
import time
from dataclasses import replace
from importlib.metadata import PackageNotFoundError

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tumour.files import Hold
from tumour.scanner import extra, prepare
from tumour.scans.readers import read_scan

from tests.conftest import BUNDLES, forked, run


@pytest.fixture
def raw(patients, tmp_path, monkeypatch):
    """Two patients, the second without T2; registration and skull-stripping find what is known of synthetic ones."""
    source = sorted(path for path in patients("brats2021").iterdir() if path.is_dir())[:2]
    for folder in source:
        shutil.copytree(folder, tmp_path / "raw" / folder.name)
    (tmp_path / "raw" / source[1].name / f"{source[1].name}_t2.nii.gz").unlink()
    atlas = replace(read_scan(str(next(source[0].glob("*_t1ce.nii.gz")))), path="the atlas")
    monkeypatch.setattr(prepare, "atlas_head", lambda grid, motion: atlas)
    monkeypatch.setattr(prepare, "register_all", lambda scans, fixed, same: dict.fromkeys(scans, np.eye(4)))
    monkeypatch.setattr(prepare, "brain_of", lambda head, device: head.data > 0)
    return tmp_path / "raw", [folder.name for folder in source]


def test_raw_scans_are_segmented_and_what_cannot_be_prepared_is_listed(raw, trained, tmp_path):
    folder, (complete, incomplete) = raw
    models = trained(BUNDLES[0]) / "models"
    done = run(
        "segmenting", BUNDLES[0], tmp_path, "brats2021", tmp_path / "prepared", scans_dir=folder, ckpt_dir=models
    )
    assert done.returncode == 1 and f"{incomplete}: it has no series that is certainly T2" in done.stdout + done.stderr
    maps = tmp_path / "results" / "segmentations", tmp_path / "results" / "native"
    assert [path.name for path in sorted(maps[0].glob("*.nii.gz"))] == [f"{complete}.nii.gz"]
    label, native = nib.load(maps[0] / f"{complete}.nii.gz"), nib.load(maps[1] / f"{complete}_T1ce.nii.gz")
    assert np.array_equal(label.dataobj, native.dataobj) and np.allclose(label.affine, native.affine)
    assert pd.read_csv(maps[0] / "measurements.csv")["case"].tolist() == [complete]
    shutil.rmtree(maps[1])
    again = run("returning", BUNDLES[0], tmp_path, "brats2021", tmp_path / "prepared", ckpt_dir=models)
    assert again.returncode == 0 and (maps[1] / f"{complete}_T1ce.nii.gz").is_file()


def test_a_wrong_request_and_a_folder_in_use_are_refused_before_any_work(raw, trained, tmp_path):
    folder, _ = raw
    places = BUNDLES[0], tmp_path, "brats2021", tmp_path / "prepared"
    models = trained(BUNDLES[0]) / "models"
    given = {"scans_dir": folder, "ckpt_dir": models}
    for run_id in ("segmenting", "returning"):
        done = run(run_id, *places, back_to="[T1CE]", **given)
        assert done.returncode == 2 and "back_to has T1CE; it takes T1, T1ce, T2, FLAIR" in done.stderr
    assert not (tmp_path / "prepared").exists()
    for work, name, run_ids in (
        ("preparing", "prepared", ["preparing", "segmenting"]),
        ("returning", "results/native", ["returning", "segmenting"]),
    ):
        held = forked(lambda work=work, name=name: (Hold(tmp_path / name, work), time.sleep(600)))
        while not (tmp_path / name / f".{work}.lock").exists():
            time.sleep(0.01)
        try:
            for run_id in run_ids:
                done = run(run_id, *places, **given)
                assert done.returncode == 1 and f"is in use for {work} by process {held}" in done.stderr
        finally:
            os.kill(held, signal.SIGKILL)
            os.waitpid(held, 0)
    assert not [*tmp_path.rglob("prepare.json")]


def test_a_package_that_only_the_last_step_needs_is_missed_before_any_work(raw, trained, tmp_path, monkeypatch):
    def installed(package):
        if package == "highdicom":
            raise PackageNotFoundError(package)

    monkeypatch.setattr(extra, "version", installed)
    folder, (complete, _) = raw
    (folder / complete / "DICOM").mkdir()
    (folder / complete / "DICOM" / "1").write_bytes(128 * b"\0" + b"DICM")
    given = {"scans_dir": folder, "ckpt_dir": trained(BUNDLES[0]) / "models"}
    done = run("segmenting", BUNDLES[0], tmp_path, "brats2021", tmp_path / "prepared", **given)
    assert done.returncode == 1 and "highdicom is not installed; run `make setup EXTRA=scanner`" in done.stderr
    assert not [*tmp_path.rglob("prepare.json")]


def test_label_maps_of_another_folder_are_returned(raw, trained, tmp_path):
    """As those that a viewer corrected and MONAI Label stored."""
    folder, (complete, _) = raw
    places, models = (BUNDLES[0], tmp_path, "brats2021", tmp_path / "prepared"), trained(BUNDLES[0]) / "models"
    run("preparing", *places, scans_dir=folder, ckpt_dir=models)
    scan = nib.load(tmp_path / "prepared" / complete / f"{complete}_t1ce.nii.gz")
    corrected = np.zeros(scan.shape, np.float32)
    corrected[10:20, 5:15, 20:22] = 4
    (tmp_path / "final").mkdir()
    nib.save(nib.Nifti1Image(corrected, scan.affine), tmp_path / "final" / f"{complete}.nii.gz")
    assert run("returning", *places, segmentations=tmp_path / "final", ckpt_dir=models).returncode == 0
    native = nib.load(tmp_path / "results" / "native" / f"{complete}_T1ce.nii.gz")
    assert np.array_equal(native.dataobj, corrected)


def test_preparing_alone_writes_cases_and_needs_scans(raw, trained, tmp_path):
    folder, (complete, _) = raw
    models = trained(BUNDLES[0]) / "models"
    done = run("preparing", BUNDLES[0], tmp_path, "brats2021", tmp_path / "prepared", scans_dir=folder, ckpt_dir=models)
    assert done.returncode == 1 and (tmp_path / "prepared" / complete / "prepare.json").is_file()
    shutil.rmtree(folder / sorted(path.name for path in folder.iterdir())[1])
    assert (
        run(
            "preparing", BUNDLES[0], tmp_path, "brats2021", tmp_path / "prepared", scans_dir=folder, ckpt_dir=models
        ).returncode
        == 0
    )
    none = run("preparing", BUNDLES[0], tmp_path, "brats2021", tmp_path / "prepared", ckpt_dir=models)
    assert none.returncode == 2 and "give the folder that contains one folder per patient" in none.stderr
