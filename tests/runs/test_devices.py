"""What a GPU needs of the code, shown on a CPU by stand-ins."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from tumour import processes
from tumour.errors import InputError
from tumour.runs import devices
from tumour.runs.checkpoints import load_weights, on_cpu, to_float16

from tests.conftest import BUNDLES
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


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "The multi_gpu configs need torchrun"),
        (
            {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
            r"started 2 processes, but .* 1 GPU\(s\); start 1",
        ),
    ],
)
def test_a_process_without_a_gpu_of_its_own_is_refused_in_one_sentence(environment, message, monkeypatch):
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match=message):
        processes.own_device()


def test_the_log_names_the_device_and_a_gpu_that_pytorch_cannot_use(monkeypatch, caplog):
    with caplog.at_level(logging.INFO, "bundle"):
        monkeypatch.setattr(devices, "has_nvidia_gpu", lambda: False)
        devices.log_device("cpu", "bfloat16")
        assert "running on cpu with" in caplog.text and "bfloat16" in caplog.text and "NVIDIA" not in caplog.text
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


@pytest.mark.parametrize("kind", ["mps", "xpu", "cuda"])
def test_another_accelerator_has_the_defaults_of_a_gpu(kind):
    parser = merged(f"bundles/{BUNDLES[0]}/args.yaml")
    parser["device_type"] = kind
    assert parser.get_parsed_content("epochs") == 200 and parser.get_parsed_content("patch_size") == [128] * 3
