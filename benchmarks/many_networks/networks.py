"""Networks built from the config of a bundle, and their training: on a GPU, a step is one CUDA graph."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.metrics import compute_dice
from torch import nn
from tumour.cases.parts import patients
from tumour.files import save_json
from tumour.maps.regions import ToRegionsd
from tumour.runs.checkpoints import BEST, PATIENTS, SETTINGS, save_checkpoint, to_float16

from benchmarks import ours
from benchmarks.many_networks.patches import NUMBERS, Patches
from benchmarks.many_networks.trials import Trial
from benchmarks.many_networks.volumes import Volumes

ROUNDS = 10  # between two looks at the clock, for which the GPU must be waited for


def config_of(trial: Trial, cohort: str, device: torch.device) -> ConfigParser:
    """The config of a trial's bundle with its options."""
    network = "network_def::network"
    settings: dict[str, Any] = {
        "cohort": cohort,
        "device": str(device),
        "size": trial.size,
        "head": f"@heads::{trial.head}",
        "patch_size": [trial.patch] * 3,
        "seed": trial.seed,
        "norm": trial.norm,
    }
    if device.type == "cpu":
        settings["precision"] = "float32"  # a dry run, exact also where the deepest level has few voxels
    if trial.diff:
        settings["network_channels::in"] = "$(len(@modalities) + 1) * @network_shape['stem'] ** 3"
    if trial.deep:
        settings |= {f"{network}::deep_supervision": True, f"{network}::deep_supr_num": 2}
    return ours.config(trial.bundle, **settings)


def flatten_levels(module: nn.Module, given: Any, output: torch.Tensor) -> torch.Tensor:
    """The levels of deep supervision (B, levels, C, *S) as (B * levels, C, *S), which any network accepts."""
    return output.flatten(0, 1) if output.dim() == 6 else output


def start_heads(network: Any, start: Any) -> None:
    """Let the heads of deep supervision begin with the logit `start`, as custom_components.networks.Coarse does."""
    with torch.no_grad():
        for head in network.network.deep_supervision_heads:
            head.conv.conv.bias.unflatten(0, (-1, network.factor**3)).copy_(torch.as_tensor(start).reshape(-1, 1))


class Training:
    """The training of one network, with its score on the cases that it is not trained on.

    Args:
        trial: the options.
        cohort: the name of the data set.
        volumes: all cases, normalised as the trial asks.
        test: the indices of the cases that are not for training.
        stream: of CUDA; None on a CPU.
    """

    def __init__(
        self, trial: Trial, cohort: str, volumes: Volumes, test: Sequence[int], stream: torch.cuda.Stream | None
    ) -> None:
        device = volumes.image.device
        self.trial, self.volumes, self.test, self.stream = trial, volumes, list(test), stream
        self.train = [n for n in range(len(volumes.cases)) if n not in self.test]
        self.parser = parser = config_of(trial, cohort, device)
        names = ("network", "loss", "train::inferer", "sliding_window", "train::postprocessing", "head", "modalities")
        self.network, self.loss, self.inferer, self.windows, self.discretise, head, self.modalities = map(
            parser.get_parsed_content, names
        )
        self.warmup = parser.get_parsed_content("warmup")
        self.cohort = parser.get_parsed_content("cohort_def")
        self.target = ToRegionsd("label", head["channels"], self.cohort.classes)
        if trial.deep:
            start_heads(self.network, head["start"])
            self.network.network.register_forward_hook(flatten_levels)
        if device.type == "cuda":
            from benchmarks.many_networks.kernels import replace_norms  # as in patches.cut

            replace_norms(self.network)
        self.network.train()
        self.patches = Patches(volumes, trial, self.train)
        self.numbers = torch.rand(trial.batch, NUMBERS, device=device)
        shape = trial.batch, volumes.image.shape[1], *[trial.patch] * 3
        self.noise = torch.zeros(shape, dtype=torch.float16, device=device)
        self.rate = torch.zeros((), device=device)  # the learning rate, a tensor because a graph keeps numbers
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), self.rate, weight_decay=trial.decay, fused=True, capturable=device.type == "cuda"
        )
        self.mean_loss = torch.zeros((), device=device)
        self.steps = 0
        self.work: Callable[[], None] = self.compute

    def channels(self, image: torch.Tensor) -> torch.Tensor:
        """The input of the network from images (B, C, *S)."""
        if not self.trial.diff:
            return image
        before, after = (self.modalities.index(name) for name in ("T1", "T1ce"))
        return torch.cat((image, (image[:, after] - image[:, before])[:, None]), dim=1)

    def compute(self) -> None:
        """A step from the random numbers in `numbers` and `noise`."""
        self.optimizer.zero_grad(set_to_none=True)
        image, label = self.patches(self.numbers, self.noise)
        target = self.target({"label": label[None]})["label"].transpose(0, 1)  # (B, channels, P, P, P)
        logits = self.inferer(self.channels(image), self.network)
        levels = logits.unflatten(0, (len(target), -1)).unbind(1)
        weights = [0.5**level for level in range(len(levels))]
        loss = sum(w * self.loss(each, target) for w, each in zip(weights, levels, strict=True)) / sum(weights)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.parser["max_gradient_norm"], foreach=True)
        self.optimizer.step()
        self.mean_loss.lerp_(loss.detach(), 0.01)

    def capture(self) -> None:
        """Make the step one CUDA graph, after two steps with a learning rate of 0 in which kernels are chosen."""
        with torch.cuda.stream(self.stream):
            for _ in range(2):
                self.numbers.uniform_()
                self.compute()
        torch.cuda.synchronize()
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            self.compute()
        self.mean_loss.zero_()
        self.work = graph.replay

    def step(self, progress: float) -> None:
        """A step with new random numbers; `progress` from 0 to 1 sets the learning rate."""
        rise = min(1.0, (self.steps + 1) / self.warmup)
        with torch.cuda.stream(self.stream):
            self.numbers.uniform_()  # not in the graph: all graphs share the state of one generator
            self.noise.normal_()
            self.rate.fill_(self.trial.lr * rise * 0.5 * (1 + math.cos(math.pi * progress)))
            self.work()
        self.steps += 1

    def average_loss(self) -> float:
        """The loss of about the last hundred steps."""
        return float(self.mean_loss) / (1 - 0.99**self.steps)

    def save(self, folder: Path) -> None:
        """Write the weights with their settings and patients, as a training of the bundle does."""
        save_checkpoint(to_float16(self.network.state_dict()), folder / BEST)
        save_json(self.parser.get_parsed_content("recorded"), folder / SETTINGS)
        used = {"train": [self.volumes.cases[n] for n in self.train], "validate": []}
        save_json(patients(used, self.cohort), folder / PATIENTS)

    def score(self) -> dict[str, dict[str, float]]:
        """Dice by case and region, of the cases that are not for training."""
        self.network.eval()
        return {self.volumes.cases[n].name: self.dice(n) for n in self.test}

    @torch.no_grad()
    def dice(self, index: int) -> dict[str, float]:
        """Dice of each region in one case, by the sliding window of the bundle; 1 where both masks are empty."""
        image, label = self.volumes.case(index)
        target = self.target({"label": label[None]})["label"]
        logits = self.windows(self.channels(image[None]), self.network)[0]
        masks = self.discretise({"pred": logits, "label": target})
        values = compute_dice(masks["pred"][None], masks["label"][None], ignore_empty=False)[0].tolist()
        return dict(zip(self.cohort.regions, values, strict=True))


def train(trainings: Sequence[Training], seconds: float) -> None:
    """Train all networks in turn until the time is over."""
    on_gpu = trainings[0].stream is not None
    for training in trainings if on_gpu else ():
        training.capture()
    began, rounds, progress = time.perf_counter(), 0, 0.0
    while progress < 1:
        rounds += 1
        for training in trainings:
            while training.steps < rounds * training.trial.rate:
                training.step(progress)
        if rounds % ROUNDS == 0 and on_gpu:
            torch.cuda.synchronize()
        if rounds % ROUNDS == 0 or not on_gpu:
            progress = (time.perf_counter() - began) / seconds
    for training in trainings:
        training.work = training.compute  # frees the memory of the graph
