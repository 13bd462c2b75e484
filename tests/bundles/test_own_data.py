"""Data that is not BraTS: the cohorts of docs/own-data.md and docs/from-nnunet.md, used as these pages say."""

import json

import nibabel as nib
import numpy as np
import pytest
import yaml
from monai.bundle import ConfigParser
from tumour.cases.parts import Parts
from tumour.cohort import read_cohorts

from tests.conftest import ROOT, succeed
from tests.documents import blocks
from tools import cohorts
from tools.check import check
from tools.patients.phantom import make_patient
from tools.patients.synthetic import write_patient


def added(page, folder, monkeypatch):
    """The cohort that a page adds to cohorts.yaml, and an args file of unet3d with this file; tools/ use it, too."""
    entry = blocks(ROOT / "docs" / f"{page}.md", "yaml")[0].removeprefix("cohorts:\n")
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
    cohort = added("own-data", tmp_path, monkeypatch)
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


def test_a_raw_folder_of_nnunet(tmp_path, monkeypatch):
    cohort = added("from-nnunet", tmp_path, monkeypatch)
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
