"""Data that is not BraTS: the cohorts of docs/own-data.md and docs/from-nnunet.md, used as these pages say."""

import json

import nibabel as nib
import numpy as np
import pytest
import yaml
from monai.bundle import ConfigParser
from tumour.cases.find import find_cases
from tumour.cases.parts import Parts
from tumour.cohort import read_cohorts
from tumour.pictures.volumes import read_case

from tests.conftest import ROOT, succeed
from tests.documents import blocks
from tools import cohorts
from tools.check import check
from tools.datalist import datalist
from tools.patients.phantom import make_patient
from tools.patients.synthetic import write_patient


def of_page(name):
    """The cohort that a page adds to cohorts.yaml."""
    return blocks(ROOT / "docs" / f"{name}.md", "yaml")[0].removeprefix("cohorts:\n")


def added(entry, folder, monkeypatch):
    """A cohort that is added to cohorts.yaml, and an args file of unet3d with this file; tools/ use it, too."""
    text = (ROOT / "bundles/common/cohorts.yaml").read_text(encoding="utf-8")
    before, head, after = text.partition("\ncohorts:\n")
    (folder / "cohorts.yaml").write_text(before + head + entry + after)
    args = ConfigParser.load_config_file(str(ROOT / "bundles/unet3d/args.yaml"))
    args["config_file"][1] = str(folder / "cohorts.yaml")
    (folder / "args.yaml").write_text(yaml.safe_dump(args))
    config = yaml.safe_load(before + head + entry + after)
    known = read_cohorts(config["cohorts"], config["usual"])
    monkeypatch.setattr(cohorts, "_config", lambda: config)
    cohorts.known_cohorts.cache_clear()
    return known[next(iter(yaml.safe_load(entry)))]


@pytest.fixture(autouse=True)
def no_cohort_is_left():
    yield
    cohorts.known_cohorts.cache_clear()


def values(path):
    return set(np.unique(np.asarray(nib.load(path).dataobj)).tolist())


def test_files_of_a_foreign_naming_and_other_label_values(tmp_path, monkeypatch):
    cohort = added(of_page("own-data"), tmp_path, monkeypatch)
    for index in range(5):
        write_patient(tmp_path / "data", f"sub-{index:03}", *make_patient(0, index, [40] * 3, None), cohort)
    written = tmp_path / "data/sub-000"
    assert (written / "sub-000_ce-gd_T1w.nii.gz").is_file()
    assert values(written / "sub-000_label-tumour.nii.gz") == {0, 10, 20, 30}

    assert check("clinic", str(tmp_path / "data"), str(tmp_path / "check"), workers=1) < 2
    settings = {"args_file": tmp_path / "args.yaml", "segmentations": tmp_path / "maps"}
    succeed("training", "unet3d", tmp_path, "clinic", tmp_path / "data", **settings)
    succeed("evaluating", "unet3d", tmp_path, "clinic", tmp_path / "data", **settings)
    recorded = json.loads((tmp_path / "models" / "patients.json").read_text())
    assert all(name.startswith("sub-") for part in recorded.values() for name in part)
    maps = list((tmp_path / "maps").glob("sub-*.nii.gz"))
    assert maps and all(values(path) <= {0, 10, 20, 30} for path in maps)


def test_three_modalities_of_other_names(tmp_path, monkeypatch):
    entry = """  mine:
    files: {DWI: _dwi, T2: _t2, ADC: _adc, label: _seg}
    label_values: [0, 1, 2, 4]
    patient: '(.+)'
    challenge: legacy
"""
    cohort, data = added(entry, tmp_path, monkeypatch), tmp_path / "data"
    for index in range(5):
        images, label = make_patient(0, index, [40] * 3, None)
        images = {"DWI": images["FLAIR"], "T2": images["T2"], "ADC": images["T1ce"]}
        write_patient(data, f"P{index}", images, label, cohort)
    assert check("mine", str(data), str(tmp_path / "check"), workers=1) < 2
    datalist("mine", str(data), str(tmp_path / "list.json"))
    listed = json.loads((tmp_path / "list.json").read_text())
    assert listed["modality"] == {"0": "DWI", "1": "T2", "2": "ADC"} and len(listed["training"][0]["image"]) == 3
    place = "unet3d", tmp_path, "mine", tmp_path / "list.json"
    succeed("training", *place, args_file=tmp_path / "args.yaml", modalities="['ADC', 'DWI', 'T2']")
    for run_id in ("evaluating", "inferring"):
        succeed(run_id, *place, args_file=tmp_path / "args.yaml", report_at_end=True)
    assert len([*(tmp_path / "results" / "segmentations").glob("P*.nii.gz")]) == 5


def test_one_channel_per_file_in_a_folder_of_images(tmp_path, monkeypatch):
    entry = """  flair:
    folders: {image: images, label: labels}
    channels: [FLAIR]
    label_values: [0, 1, 2, 4]
    patient: '(.+)'
    challenge: legacy
"""
    cohort, data = added(entry, tmp_path, monkeypatch), tmp_path / "data"
    for index in range(5):
        write_patient(data, f"P{index}", *make_patient(0, index, [40] * 3, None), cohort)
    assert check("flair", str(data), str(tmp_path / "check"), workers=1) < 2
    place = "unet3d", tmp_path, "flair", data
    succeed("training", *place, args_file=tmp_path / "args.yaml", modalities="['FLAIR']")
    succeed("evaluating", *place, args_file=tmp_path / "args.yaml", report_at_end=True)
    (case,) = find_cases(str(data), cohort, ["FLAIR"]).complete[:1]
    assert read_case(case, None, cohort, ["FLAIR"]).images["FLAIR"].max() > 0


def test_a_raw_folder_of_nnunet(tmp_path, monkeypatch):
    cohort = added(of_page("from-nnunet"), tmp_path, monkeypatch)
    raw = tmp_path / "nnUNet_raw" / "Dataset137_BraTS2021"
    (raw / "labelsTr").mkdir(parents=True)
    for index in range(4):
        case = f"BraTS2021_{index:05}"
        files = write_patient(tmp_path / "made", case, *make_patient(0, index, [40] * 3, None), cohort)
        (raw / "imagesTr").mkdir(exist_ok=True)
        for name, path in files.items():
            path.rename(raw / "labelsTr" / f"{case}.nii.gz" if name == "label" else raw / "imagesTr" / path.name)
    assert (raw / "imagesTr" / "BraTS2021_00000_0003.nii.gz").is_file()

    monkeypatch.chdir(tmp_path)
    exec(blocks(ROOT / "docs/from-nnunet.md", "python")[0], {})
    listed = str(raw / "datalist.json")
    assert check("from_nnunet", listed, str(tmp_path / "check"), workers=1) < 2
    parts = Parts(listed, cohort, list(cohort.modalities), {}, 0, 0.2, 0).by_name  # as a training splits it
    found = [case for part in parts.values() for case in part]
    assert len(found) == 4 and all(len(case.images) == 4 and case.label for case in found)
    assert all(path.endswith(f"_{n:04}.nii.gz") for case in found for n, path in enumerate(case.images))
