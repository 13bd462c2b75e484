"""A release in an empty folder, run by processes that cannot import from this repository."""

import json
import subprocess
import sys
import venv

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import BUNDLES, ROOT, succeed
from tests.home import Home
from tools.release import pack as release
from tools.release.verify import TRAINING
from tools.show import merged

SEVERAL = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle"]


def live(home, tmp_path):
    """What a user does with a release: each command succeeds and writes what it promises."""
    where = home.python_runs("-c", "import tumour, custom_components as c; print(tumour.__file__, c.__file__)")
    assert where.count(str(home.folder)) == 2  # not those of this repository

    mlflow = home.python_runs("-c", "from importlib.util import find_spec; print(find_spec('mlflow'))")
    tracked = mlflow.strip() != "None"
    home.run(["training"], "train", **({"tracking": "mlflow"} if tracked else {}), **TRAINING)
    assert (home.folder / "eval" / "mlruns.db").is_file() == tracked
    home.run([], "evaluate", cwd=tmp_path)
    alone = pd.read_csv(home.folder / "eval" / "scores" / "scores.csv")

    home.run(["evaluating"], "evaluate", "multi_gpu_evaluate", launch=SEVERAL, output_dir=tmp_path / "two")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "two" / "scores" / "scores.csv"), alone)

    layers = "augment_on_device", "multi_gpu_train"
    home.run(["training"], "train", *layers, launch=SEVERAL, ckpt_dir=tmp_path / "two", **TRAINING)
    weights = torch.load(tmp_path / "two" / "model.pt", weights_only=True)
    assert weights.keys() == torch.load(home.folder / "models" / "model.pt", weights_only=True).keys()


def test_a_release_works_without_the_repository(twelve, tmp_path):
    live(Home("neuroseg3d", sys.executable, tmp_path, twelve), tmp_path)


def test_the_same_weights_give_the_same_label_maps_as_in_the_checkout(twelve, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    torch.manual_seed(0)
    network = merged("bundles/neuroseg3d/args.yaml").get_parsed_content("network_def")
    torch.nn.init.normal_(network.network.output_block.conv.conv.weight, std=2.0)  # label maps with every class
    (tmp_path / "models").mkdir()
    torch.save(network.state_dict(), tmp_path / "models" / "model.pt")
    succeed("inferring", "neuroseg3d", tmp_path, "brats2021", twelve)
    home = Home("neuroseg3d", sys.executable, tmp_path, twelve)
    home.run([], "inference", cwd=tmp_path, ckpt_dir=tmp_path / "models", patch_size=[32, 32, 32])
    ours, theirs = tmp_path / "results" / "segmentations", home.folder / "eval" / "segmentations"
    assert len(list(ours.glob("*.nii.gz"))) == 12
    seen = set()
    for path in ours.glob("*.nii.gz"):
        first, second = np.asarray(nib.load(path).dataobj), np.asarray(nib.load(theirs / path.name).dataobj)
        assert np.array_equal(first, second)
        seen |= set(np.unique(first))
    assert seen == {0, 1, 2, 4}


@pytest.fixture(scope="session")
def fresh(tmp_path_factory):
    """An interpreter with the packages that the metadata of a release requires, and no others."""
    listed = release.metadata(BUNDLES[0])
    names = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    pins = {name: listed[key] for name, key in names.items()} | listed["required_packages_version"]
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    packages = [f"{name}=={version}" for name, version in pins.items()]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return str(python)


@pytest.mark.slow
@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_release_works_with_only_the_packages_of_its_metadata(bundle, fresh, twelve, tmp_path):
    home = Home(bundle, fresh, tmp_path, twelve)
    live(home, tmp_path)
    home.run([], "inference", "inference_trt")
    for path in sorted(ROOT.glob("bundles/common/recipes/*.yaml")):
        settings = {key: value for key, value in TRAINING.items() if key != "resume"}
        cohort = json.loads((home.folder / f"configs/{path.stem}.json").read_text()).get("cohort", "brats2021")
        if cohort == "brats2021":
            home.run([], "train", path.stem, ckpt_dir=tmp_path / path.stem, **settings)
            home.run([], "inference", path.stem, ckpt_dir=tmp_path / path.stem)
