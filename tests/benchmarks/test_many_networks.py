"""Many networks are trained at once; on a CPU without graphs. The kernels for a GPU are compared with PyTorch."""

import copy
import importlib
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from tumour.errors import InputError
from tumour.runs.checkpoints import load_weights, read_checkpoint

from benchmarks import ours
from benchmarks.many_networks import __main__ as command
from benchmarks.many_networks.networks import Training
from benchmarks.many_networks.patches import NUMBERS, Draws, Patches, cut, rotations
from benchmarks.many_networks.trials import Trial, read_trials
from benchmarks.many_networks.volumes import Volumes, read
from benchmarks.patients import cases_of

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it when it is imported
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # of the kernels
pytestmark = pytest.mark.usefixtures("at_the_root")
CPU = torch.device("cpu")
REGIONS = {"TC", "WT", "ET"}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def volumes(patients):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[2])
        folder = patients("brats2021")
        return read(ours.config("unet3d", device="cpu"), cases_of("brats2021", str(folder)), CPU)


def test_cases_are_read_as_by_the_bundle(volumes, patients):
    assert len(volumes.cases) == 6 and volumes.image.dtype == torch.float16
    for n in range(6):
        image, label = volumes.case(n)
        assert image.shape[1:] == label.shape and set(label.unique().tolist()) <= {0, 1, 2, 3}
        for channel in image:
            assert abs(channel[channel != 0].mean()) < 0.02 and abs(channel[channel != 0].std() - 1) < 0.02
        for c in range(4):
            assert volumes.present[n, c] == (label == c).any()
            if volumes.present[n, c]:
                assert (label[tuple(volumes.centres[n, c].long().T)] == c).all()


def test_robust_normalisation_has_median_0_and_the_interquartile_range_of_a_normal_distribution(volumes):
    image = volumes.robust().image[0, 2].float()
    low, middle, high = torch.quantile(image[volumes.image[0, 2] != 0], torch.tensor([0.25, 0.5, 0.75]))
    assert abs(middle) < 0.01 and high - low == pytest.approx(1.349, abs=0.01)


def test_a_patch_without_augmentation_is_a_box_of_its_case(volumes):
    """Also where the patch is larger than the case, which then is in its middle and surrounded by zeros."""
    patches = Patches(volumes, Trial(patch=32, affine=0.0), [3])
    numbers = torch.full((1, NUMBERS), 0.75)
    numbers[:, 10:13] = 0.25  # not flipped
    image, label = patches(numbers, torch.zeros(1, 4, 32, 32, 32))
    case, matrix = patches.place(Draws(numbers))
    assert case.item() == 3 and torch.equal(matrix[0, :, :3], torch.eye(3))
    whole, classes = volumes.case(3)
    low = (matrix[0, :, 3]).tolist()
    assert all(value == int(value) for value in low)
    for axis, (start, size) in enumerate(zip(low, classes.shape, strict=True)):
        first = max(int(start), 0)
        last = min(int(start) + 32, size)
        classes = classes.narrow(axis, first, last - first)
        whole = whole.narrow(axis + 1, first, last - first)
        label = label.narrow(axis + 1, first - int(start), last - first)
        image = image.narrow(axis + 2, first - int(start), last - first)
    assert torch.equal(label[0], classes) and torch.allclose(image[0], whole, atol=1e-5)


def test_rotations_turn_each_axis_and_keep_lengths():
    quarter = rotations(torch.eye(3) * torch.pi / 2).round()
    assert torch.equal(quarter[0] @ torch.tensor([0.0, 1, 0]), torch.tensor([0.0, 0, 1]))
    assert torch.equal(quarter[1] @ torch.tensor([0.0, 0, 1]), torch.tensor([1.0, 0, 0]))
    assert torch.equal(quarter[2] @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]))
    turn = rotations(torch.rand(5, 3))
    assert torch.allclose(turn @ turn.transpose(1, 2), torch.eye(3).expand(5, 3, 3), atol=1e-6)


def test_a_transplanted_tumour_is_put_into_healthy_brain_only(volumes):
    patches = Patches(volumes, Trial(patch=32, affine=0.0, transplant=1.0), [0, 1, 2])
    gained = 0
    torch.manual_seed(0)
    for _ in range(8):
        numbers = torch.rand(4, NUMBERS)
        draw = Draws(numbers)
        image, label = patches.cut(*patches.place(draw))
        new, more = patches.transplanted(image, label, draw)
        changed = (more != label)[:, None].expand_as(image)
        assert torch.equal(new[~changed], image[~changed]) and (label[more != label] == 0).all()
        assert (image[:, 0][more != label] != 0).all()
        gained += int((more != label).sum())
    assert gained


def test_no_random_number_is_used_twice_and_there_are_enough(volumes):
    trial = Trial(patch=32, affine=0.5, transplant=0.5, cutmix=0.5, lowres=0.5, drop=0.5, wide=2.0)
    image, label = Patches(volumes, trial, [0, 1])(torch.rand(2, NUMBERS), torch.randn(2, 4, 32, 32, 32))
    assert image.isfinite().all() and label.max() <= 3
    draw = Draws(torch.arange(5.0)[None])
    assert draw(2).tolist() == [[0, 1]] and draw(3).tolist() == [[2, 3, 4]]
    with pytest.raises((RuntimeError, IndexError)):
        draw(1)


@pytest.mark.parametrize("name", read_trials(command.TRIALS))
def test_every_trial_takes_a_step_with_each_of_its_options(name, volumes):
    trial = replace(read_trials(command.TRIALS)[name], patch=32)
    training = Training(trial, "brats2021", volumes.robust() if trial.data == "robust" else volumes, [0, 1], None)
    before = {key: value.clone() for key, value in training.network.named_parameters()}
    training.step(0.0)
    same = [key for key, value in training.network.named_parameters() if torch.equal(value, before[key])]
    assert not same and training.average_loss() > 0 and training.train == [2, 3, 4, 5]
    norm = nn.InstanceNorm3d if trial.norm == "instance" else nn.BatchNorm3d
    assert any(type(module) is norm for module in training.network.modules())
    training.network.eval()
    assert training.dice(0).keys() == REGIONS


def test_each_network_is_written_as_the_bundle_reads_it_before_any_is_scored(patients, tmp_path, monkeypatch):
    trials, output = tmp_path / "trials.yaml", tmp_path / "out"
    trials.write_text(
        yaml.safe_dump({"all": {"patch": 32, "bundle": "neuroseg3d"}, "trials": {"a": {}, "b": {"rate": 0.5}}})
    )
    score, written = Training.score, []
    monkeypatch.setattr(Training, "score", lambda self: written.append(len([*output.rglob("model.pt")])) or score(self))
    text = command.main(
        str(patients("brats2021")), output=str(output), trials=str(trials), seconds=0.1, everyone=True, device="cpu"
    )
    assert written == [6] * 6  # two trials, each of two folds and of all patients
    record, tested = json.loads((output / "scores.json").read_text()), []
    assert [line.split(" | ")[0] for line in text.splitlines()[2:]] == ["| a", "| b"]
    for part in ("fold0", "fold1", "all"):
        folder = output / "a" / part
        assert (folder / "model.pt").stat().st_size < 12e6  # in float16, a tensor of two names once
        recorded = ours.config("neuroseg3d", device="cpu", uses_weights=True, ckpt_dir=str(folder))
        load_weights(recorded.get_parsed_content("network_def"), read_checkpoint(folder / "model.pt"), folder)
        assert json.loads((folder / "settings.json").read_text())["window"] == [32, 32, 32]
        used = json.loads((folder / "patients.json").read_text())
        assert len(used["train"]) == (6 if part == "all" else 3) and not used["validate"]
        tested += [name for name in record["a"]["dice"] if name not in used["train"]]
    assert sorted(tested) == sorted(record["a"]["dice"]) and len(tested) == 6
    assert record["a"]["dice"].keys() == record["b"]["dice"].keys()
    steps = [record[name]["networks"]["fold0"]["steps"] for name in "ab"]
    assert steps[1] == math.ceil(steps[0] / 2) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norms": "batch"}, "Trial 'x' has an unknown option 'norms'; the nearest is norm"),
        ({"norm": "group"}, "norm of trial 'x' must be batch or instance; it is 'group'"),
        ({"patch": 96.5}, "patch of trial 'x' must be of type int; it is 96.5"),
    ],
)
def test_a_wrong_option_is_named(options, message, tmp_path):
    path = tmp_path / "trials.yaml"
    path.write_text(yaml.safe_dump({"trials": {"x": options}}))
    with pytest.raises(InputError, match=message):
        read_trials(str(path))
    with pytest.raises(InputError, match="does not exist"):
        read_trials(str(tmp_path / "none.yaml"))


@pytest.fixture
def kernels():
    """The Triton kernels; on a CPU they are interpreted."""
    pytest.importorskip("triton", reason="triton is not installed; PyTorch's builds for CUDA bring it")
    return importlib.import_module("benchmarks.many_networks.kernels")


@pytest.mark.parametrize("norm", [nn.BatchNorm3d, nn.InstanceNorm3d])
@pytest.mark.parametrize("shape", [(2, 3, 8, 16, 20), (3, 5, 4, 4, 4)])
def test_the_norms_of_the_kernels_are_those_of_pytorch(norm, shape, kernels):
    torch.manual_seed(0)
    theirs = nn.Sequential(norm(shape[1], affine=True)).to(DEVICE)
    nn.init.normal_(theirs[0].weight)
    nn.init.normal_(theirs[0].bias)
    ours = copy.deepcopy(theirs)
    kernels.replace_norms(ours)
    assert type(ours[0]).__name__.startswith("Fast") and ours.state_dict().keys() == theirs.state_dict().keys()
    x, gradient = torch.randn(shape, device=DEVICE) * 2 + 1, torch.randn(shape, device=DEVICE)
    found = []
    for network in (theirs, ours):
        given = x.clone().requires_grad_()
        result = network(given)
        result.backward(gradient)
        running = [network[0].running_mean, network[0].running_var] if norm is nn.BatchNorm3d else []
        found.append([result, given.grad, network[0].weight.grad, network[0].bias.grad, *running])
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=2e-4)
    assert torch.allclose(theirs.eval()(x), ours.eval()(x), atol=2e-4)


def test_the_patches_of_the_kernel_are_those_of_pytorch(kernels):
    torch.manual_seed(0)
    image = torch.randn(3, 4, 12, 10, 14).half()
    label = torch.randint(0, 4, (3, 12, 10, 14), dtype=torch.uint8)
    matrix = torch.randn(2, 3, 4) * 0.3 + torch.eye(3, 4)
    matrix[:, :, 3] += 2.3
    case = torch.tensor([2, 0])
    given = image, label, case, matrix
    found = kernels.cut(*(each.to(DEVICE) for each in given), 8)
    for a, b in zip(cut(*given, 8), found, strict=True):
        assert torch.allclose(a.float(), b.cpu().float(), atol=1e-4)


def test_a_graph_of_a_step_would_not_wait_for_the_cpu(volumes, monkeypatch):
    """Shown by tensors without values: reading one in Python is an error."""
    meta = Volumes(
        volumes.cases,
        *(each.to("meta") for each in (volumes.image, volumes.label, volumes.sizes, volumes.centres, volumes.present)),
    )
    trial = Trial(patch=32, transplant=0.5, cutmix=0.5, lowres=0.5, drop=0.5)
    monkeypatch.setattr(
        "benchmarks.many_networks.patches.cut",
        lambda image, label, case, matrix, size: (
            torch.empty(len(case), 4, size, size, size, device="meta"),
            torch.empty(len(case), size, size, size, dtype=torch.uint8, device="meta"),
        ),
    )
    patches = Patches(meta, trial, [0, 1])
    image, label = patches(torch.rand(2, NUMBERS, device="meta"), torch.randn(2, 4, 32, 32, 32, device="meta"))
    assert image.is_meta and label.is_meta
