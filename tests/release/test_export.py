"""Exported networks compute what PyTorch computes."""

import json
import tempfile
import zipfile

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from tumour.errors import InputError

from tests.conftest import BUNDLES, REAL
from tools.release import export
from tools.show import merged

pytestmark = pytest.mark.usefixtures("at_the_root")

COHORT = "brats2021"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Checkpoints whose label maps contain every class, by bundle."""

    def path(bundle):
        torch.manual_seed(0)
        network = merged(f"bundles/{bundle}/args.yaml").get_parsed_content("network_def")
        torch.nn.init.normal_(network.network.output_block.conv.conv.weight, std=2.0)
        target = tmp_path_factory.mktemp(bundle) / "model.pt"
        torch.save(network.state_dict(), target)
        return target

    return path


def label_map(bundle, network, data, folder, patch=32):
    """The label map of the first patient, with the reading, windows and after-treatment of the bundle."""
    parser = merged(f"bundles/{bundle}/args.yaml")
    settings = {"cohort": COHORT, "dataset_dir": str(data), "output_dir": str(folder), "precision": "float32"}
    parser.update(settings | {"patch_size": [patch] * 3})
    item = parser.get_parsed_content("preprocessing")(parser.get_parsed_content("scans").complete[0].item())
    with torch.no_grad():
        item["pred"] = parser.get_parsed_content("inferer")(item["image"][None], network)[0]
    parser.get_parsed_content("postprocessing")(item)
    return np.asarray(nib.load(folder / "segmentations" / f"{item['case']}.nii.gz").dataobj)


def exported(bundle, format, weights, tmp_path):
    message = export.export(bundle, format, str(tmp_path / "out"), str(weights))
    assert "MB" in message and "PyTorch" in message
    return next((tmp_path / "out").iterdir())


@pytest.mark.parametrize("bundle", BUNDLES)
def test_torchscript_gives_the_same_label_map_and_contains_the_configs(bundle, weights, patients, tmp_path):
    checkpoint = weights(bundle)
    path = exported(bundle, "torchscript", checkpoint, tmp_path)
    with zipfile.ZipFile(path) as archive:
        extra = {name.rsplit("/", 1)[1]: archive.read(name) for name in archive.namelist() if "/extra/" in name}
    assert json.loads(extra["inference.json"])["run"] and json.loads(extra["metadata.json"])["version"]
    export.unpack(bundle, checkpoint, tmp_path / "bundle")
    data = patients(COHORT)
    ours = label_map(bundle, export.network_of(tmp_path / "bundle"), data, tmp_path / "a")
    theirs = label_map(bundle, export.read_torchscript(path), data, tmp_path / "b")
    assert set(np.unique(ours)) == {0, 1, 2, 4} and np.mean(ours == theirs) >= 0.999


ONE_FAST = [pytest.param(b, marks=[] if b == "neuroseg3d" else pytest.mark.slow) for b in BUNDLES]


@pytest.mark.parametrize("bundle", ONE_FAST)
def test_onnx_gives_the_same_label_map_for_any_patch(bundle, weights, patients, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    checkpoint = weights(bundle)
    path = exported(bundle, "onnx", checkpoint, tmp_path)
    export.unpack(bundle, checkpoint, tmp_path / "bundle")
    network, onnx = export.network_of(tmp_path / "bundle"), export.read_onnx(path)
    image = torch.randn(1, 4, 32, 48, 64)  # neither batch nor size of the export
    with torch.no_grad():
        assert export.difference(network(image), onnx(image)) < 1e-4
    ours, theirs = (
        label_map(bundle, n, patients(COHORT), tmp_path / name) for n, name in ((network, "a"), (onnx, "b"))
    )
    assert set(np.unique(ours)) == {0, 1, 2, 4} and np.mean(ours == theirs) >= 0.999


@pytest.mark.parametrize("format", export.FORMATS)
def test_a_network_of_two_modalities_is_exported_and_no_temporary_file_stays(format, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    parser = merged("bundles/unet3d/args.yaml")
    parser["modalities"] = ["T1ce", "FLAIR"]
    torch.save(parser.get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
    (tmp_path / "settings.json").write_text('{"modalities": ["T1ce", "FLAIR"], "norm": "batch"}')
    path = exported("unet3d", format, tmp_path / "model.pt", tmp_path)
    with torch.no_grad():
        assert export.FORMATS[format][1](path)(torch.zeros(1, 2, 32, 32, 32)).shape == (1, 3, 32, 32, 32)
    assert list(scratch.glob("tmp*")) == []  # PyTorch keeps a cache of another name


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real patients of ../shared/data are not on this machine")
def test_onnx_segments_a_real_scan_as_pytorch_does(weights, tmp_path):
    pytest.importorskip("onnxruntime")
    checkpoint = weights("neuroseg3d")
    onnx = export.read_onnx(exported("neuroseg3d", "onnx", checkpoint, tmp_path))
    export.unpack("neuroseg3d", checkpoint, tmp_path / "bundle")
    networks = {"a": export.network_of(tmp_path / "bundle"), "b": onnx}
    data = REAL / "BraTS2021"
    ours, theirs = (label_map("neuroseg3d", n, data, tmp_path / a, 96) for a, n in networks.items())
    assert set(np.unique(ours)) == {0, 1, 2, 4} and np.mean(ours == theirs) >= 0.999


def test_an_export_with_other_logits_is_not_written(weights, tmp_path, monkeypatch):
    write, read, ending = export.FORMATS["torchscript"]
    wrong = lambda path: lambda image: read(path)(image) * 1.01  # noqa: E731
    monkeypatch.setitem(export.FORMATS, "torchscript", (write, wrong, ending))
    with pytest.raises(InputError, match="from PyTorch; nothing is written"):
        export.export(BUNDLES[0], "torchscript", str(tmp_path), str(weights(BUNDLES[0])))
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_format_or_missing_weights_give_one_clear_sentence(tmp_path):
    with pytest.raises(InputError, match="format must be one of torchscript, onnx; it is 'h5'"):
        export.export(BUNDLES[0], "h5", str(tmp_path))
    with pytest.raises(InputError, match="does not exist; train first"):
        export.export(BUNDLES[0], "onnx", str(tmp_path), str(tmp_path / "none.pt"))


def test_without_a_gpu_the_tensorrt_config_runs_pytorch():
    parser = merged(f"bundles/{BUNDLES[0]}/args.yaml")
    parser.update(ConfigParser.load_config_file("bundles/common/inference_trt.yaml") | {"device": "cpu"})
    with torch.no_grad():
        assert parser.get_parsed_content("network")(torch.zeros(1, 4, 32, 32, 32)).shape == (1, 3, 32, 32, 32)
