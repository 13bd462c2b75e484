"""What a GPU needs of the code, shown on a CPU by stand-ins."""

import logging
from types import SimpleNamespace

import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Invertd, ToDeviced
from torch import nn
from tumour import processes
from tumour.errors import InputError
from tumour.runs import devices
from tumour.runs.checkpoints import load_weights, on_cpu, to_float16

from tests.conftest import BUNDLES, ROOT
from tools.show import merged


class OnGpu(torch.Tensor):
    """A tensor that says it is on a GPU until `cpu` is called."""

    @property
    def device(self):
        return torch.device("cuda", 0)

    def cpu(self):
        return self.as_subclass(torch.Tensor).clone()


def gpu_tensor():
    return torch.ones(3).as_subclass(OnGpu)


def test_checkpoints_of_a_gpu_are_written_for_a_machine_without_one():
    shared = gpu_tensor()
    state = {"network": {"a": shared, "b": shared}, "optimizer": {"state": {0: {"step": gpu_tensor()}}, "lr": [1.0]}}
    moved = on_cpu(state, {})
    assert moved["network"]["a"] is moved["network"]["b"]
    assert moved["optimizer"]["state"][0]["step"].device.type == "cpu" and moved["optimizer"]["lr"] == [1.0]
    assert on_cpu({"a": gpu_tensor()}, {})["a"].device.type == "cpu"


def test_a_tensor_of_two_names_is_stored_once_in_float16():
    weight = torch.ones(4)
    weights = to_float16({"a": weight, "b": weight})
    assert weights["a"] is weights["b"] and weights["a"].dtype is torch.float16


@pytest.fixture
def one_gpu(monkeypatch):
    """A machine with one GPU, and `started(n)`, which makes this process the last of n that torchrun started."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.delenv("LOCAL_RANK", raising=False)

    def started(number):
        monkeypatch.setenv("LOCAL_RANK", str(number - 1))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(number))

    return started


def test_several_processes_share_a_gpu_where_no_gradients_are_exchanged(one_gpu, monkeypatch):
    one_gpu(3)
    assert processes.own_device() == torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert processes.own_device() == torch.device("cuda", 0)
    one_gpu(2)
    assert processes.own_device() == torch.device("cuda", 1)
    for overlay in ("multi_gpu_evaluate", "multi_gpu_infer"):
        assert backend(overlay) == "gloo"


def backend(overlay):
    (join, _) = ConfigParser.load_config_file(ROOT / f"bundles/common/{overlay}.yaml")["+initialize"]
    return join["backend"]


def test_a_training_process_without_a_gpu_of_its_own_is_refused_in_one_sentence(one_gpu):
    with pytest.raises(InputError, match="The multi_gpu configs need torchrun"):
        processes.own_device()
    one_gpu(2)
    with pytest.raises(InputError, match=r"started 2 processes, but .* 1 GPU\(s\); start 1"):
        processes.join(processes.own_device(), backend("multi_gpu_train"))


def test_the_log_names_the_device_and_a_gpu_that_pytorch_cannot_use(monkeypatch, caplog):
    with caplog.at_level(logging.INFO, "bundle"):
        monkeypatch.setattr(devices, "has_nvidia_gpu", lambda: False)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
        devices.log_device("cpu", "bfloat16")
        assert "running on cpu with 1 thread, in bfloat16" in caplog.text and "NVIDIA" not in caplog.text
        monkeypatch.setattr(devices, "has_nvidia_gpu", lambda: True)
        devices.log_device("cpu", "float32")
        assert "an NVIDIA GPU that PyTorch cannot use" in caplog.text
        card = SimpleNamespace(name="NVIDIA H100", total_memory=85e9)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
        devices.log_device("cuda", "bfloat16")
        assert "running on NVIDIA H100 with 85 GB, in bfloat16" in caplog.text


def test_a_compiled_network_trains_the_weights_that_any_network_can_load(tmp_path):
    network = nn.Linear(2, 1)
    compiled = devices.on_device(network, "cpu", compile=True)
    assert any(name.startswith("_orig_mod") for name in compiled.state_dict())
    load_weights(nn.Linear(2, 1), network.state_dict(), tmp_path / "model.pt")
    assert devices.on_device(network, "cpu", compile=False) is network


@pytest.mark.parametrize("bundle", BUNDLES)
def test_weights_are_loaded_into_the_network_itself_and_never_into_its_wrapper(bundle):
    config = merged(f"bundles/{bundle}/args.yaml").get()
    handlers = [*config["handlers"], *config["evaluate"]["handlers"], *config["fit"]["evaluator"]["val_handlers"]]
    loading = [each for each in handlers if each["_target_"].endswith("LoadWeights")]
    assert len(loading) == 3 and all(each["network"] == "@network_def" for each in loading)
    (saving,) = [each for each in config["train"]["handlers"] if each["_target_"].endswith("Checkpoints")]
    assert saving["state"]["network"] == "@network_def"


def test_several_devices_train_a_compiled_network_if_asked(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network: nn.Sequential(network))
    parser = merged(f"bundles/{BUNDLES[0]}/args.yaml", "bundles/common/multi_gpu_train.yaml")
    parser.update({"device": "cpu", "compile": True})
    network = parser.get_parsed_content("network::module")
    assert isinstance(network, nn.Sequential) and network[0] is parser.get_parsed_content("network_def")


@pytest.mark.parametrize("device", ["mps", "cuda", "cpu"])
def test_probabilities_leave_a_device_without_float64_before_they_are_resampled_in_it(device):
    parser = merged(f"bundles/{BUNDLES[0]}/args.yaml")
    parser["device"] = device
    first, *rest = parser.get_parsed_content("own_grid")
    assert type(first) is (ToDeviced if device == "mps" else Invertd)
    if rest:
        assert first.converter.device == "cpu" and type(rest[0]) is Invertd


@pytest.mark.parametrize("kind", ["mps", "xpu", "cuda"])
def test_another_accelerator_has_the_defaults_of_a_gpu(kind):
    parser = merged(f"bundles/{BUNDLES[0]}/args.yaml")
    parser["device_type"] = kind
    assert parser.get_parsed_content("epochs") == 200 and parser.get_parsed_content("patch_size") == [128] * 3
