"""Checkpoints: `model.pt` is the best network, a plain state dict in float16; `last.ckpt` is all that resuming needs.

`before-last.ckpt` is the `last.ckpt` of the save before, for the day that a disk damages the other. Neither ends in
`.pt`: MONAI Label takes the shortest such name in the folder for the weights, and runs on where they do not fit.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn
from tumour.errors import InputError
from tumour.files import save_json, whole
from tumour.processes import gather, rank

BEST, LAST, BEFORE = "model.pt", "last.ckpt", "before-last.ckpt"
PATIENTS, SETTINGS = "patients.json", "settings.json"
logger = logging.getLogger("bundle")


def save_whole(content: Any, path: Path) -> None:
    """Write a checkpoint so that it is there whole or not at all."""
    with whole(path) as part:
        torch.save(content, part)


def half(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights in float16, as `model.pt` keeps them: what is scored and shipped is the same file, of half the size.

    A tensor with a value over 65504, the largest of float16, stays as it is; so do integers.
    """
    halves: dict[Any, torch.Tensor] = {}  # a tensor of two names, as DynUNet has them, is stored once
    for value in weights.values():
        fits = value.is_floating_point() and bool(value.abs().max() <= torch.finfo(torch.float16).max)
        halves.setdefault((value.data_ptr(), value.shape), value.half() if fits else value)
    return {name: halves[value.data_ptr(), value.shape] for name, value in weights.items()}


def read_checkpoint(path: Path) -> Any:
    """What a checkpoint holds, on the CPU; nothing in it can run code."""
    if not path.is_file():
        raise InputError(f"'{path}' is not there; train first, or name the folder of the checkpoint by --ckpt_dir.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        kind = type(error).__name__
        raise InputError(f"'{path}' is not a whole checkpoint ({kind}); restore or delete it.") from error


def fill(network: nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load weights, or say in one sentence that they belong to another network."""
    own = network.state_dict()
    differ = [name for name in own.keys() | weights.keys() if name not in own or name not in weights]
    differ += [name for name in own if name not in differ and own[name].shape != weights[name].shape]
    if differ:
        known = settings_of(str(path.parent))
        told = ", ".join(f"{name} {known[name]}" for name in ("size", "modalities") if name in known)
        its_own = f": {told}" if told else ""
        raise InputError(
            f"'{path}' is of another network: {len(differ)} of {len(own)} weights differ in name or shape, as "
            f"'{min(differ)}'. Give the bundle, size, modalities and network_def that it was trained with{its_own}."
        )
    network.load_state_dict(weights)


def settings_of(folder: str) -> dict[str, Any]:
    """The settings that the network in a folder was trained with, as far as they are recorded there."""
    path = Path(folder, SETTINGS)
    return json.loads(path.read_text()) if path.is_file() else {}


class LoadWeights:
    """Handler that fills the network from `model.pt` before an evaluator starts."""

    def __init__(self, path: str, network: nn.Module) -> None:
        self.path, self.network = Path(path), network

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.load)

    def load(self, engine: Engine) -> None:
        fill(self.network, read_checkpoint(self.path), self.path)


class Checkpoints:
    """Handler that saves the best network and the last state every epoch, and goes on from the last state.

    Attach it to the trainer after the validation handler. Ctrl-C (or SIGTERM, as clusters send) ends the training
    after the step at hand with a whole checkpoint; a second Ctrl-C ends it at once, with that of the last epoch.

    Args:
        folder: where `model.pt` and `last.ckpt` lie.
        state: what resuming needs, by name: objects with `state_dict` and `load_state_dict`, `network` among them.
        validator: evaluator whose key metric says which network is best.
        settings: what must be the same for a resumed training to be the same training; kept beside `model.pt`.
        patients: gives the patients of each part of the data, kept next to `model.pt` so that no test uses the others.
        resume: whether to go on from `last.ckpt` where there is one; if not, older files are moved aside. None:
            neither, for a client that loads `model.pt` itself, and goes on using it until there is another.
    """

    def __init__(
        self,
        folder: str,
        state: Mapping[str, Any],
        validator: Engine,
        settings: Mapping[str, Any],
        patients: Callable[[], Mapping[str, Sequence[str]]],
        resume: bool | None = True,
    ) -> None:
        self.folder, self.state, self.validator = Path(folder), dict(state), validator
        self.settings, self.patients, self.resume = json.loads(json.dumps(settings)), patients, resume
        self.stopped_by = self.leaving_by = 0
        self.previous: dict[int, Any] = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.stop_if_asked)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)
        engine.add_event_handler(Events.COMPLETED, self.release_signals)

    def start(self, engine: Engine) -> None:
        if engine.state.iteration or self.resume is None:
            pass  # a client that trains round after round hands in the weights to go on from
        elif not self.resume:
            self.move_aside()
        elif (self.folder / LAST).is_file() or (self.folder / BEFORE).is_file():
            self.load(engine)
        if threading.current_thread() is threading.main_thread():  # a client's thread gets no signals
            self.previous = {n: signal.signal(n, self.note_signal) for n in (signal.SIGINT, signal.SIGTERM)}

    def load(self, engine: Any) -> None:
        path = self.folder / LAST
        try:
            saved = read_checkpoint(path)
        except InputError as error:
            path = self.folder / BEFORE
            if not path.is_file():
                raise
            saved = read_checkpoint(path)
            logger.warning(f"{error} Going on from the one before it.")
        for name, value in self.settings.items():
            if saved["settings"].get(name) != value:
                raise InputError(
                    f"'{path}' is of a training with {name} = {saved['settings'].get(name)}, not {value}. Name another "
                    "folder by --ckpt_dir, or --resume False to start anew (the old files are moved aside)."
                )
        fill(self.state["network"], saved["network"], path)
        for name, value in self.state.items():
            if name != "network":
                value.load_state_dict(saved[name])
        engine.state.iteration = saved["iteration"]
        engine.state.epoch = saved["iteration"] // engine.state.epoch_length
        self.validator.state.best_metric, self.validator.state.best_metric_epoch = saved["best"]
        torch.manual_seed(saved["iteration"] + rank())  # else the crops of the first epochs would come again
        if engine.state.epoch >= engine.state.max_epochs:
            logger.info(f"'{path}' has all {engine.state.max_epochs} epochs; name more by --epochs to train on.")
        else:
            logger.info(f"going on from '{path}' at epoch {engine.state.epoch + 1}.")

    def move_aside(self) -> None:
        names = (BEST, LAST, BEFORE, PATIENTS, SETTINGS)
        old = [self.folder / name for name in names if (self.folder / name).is_file()]
        if old and not rank():
            number = 1
            while (aside := self.folder / f"before-{number}").exists():
                number += 1
            aside.mkdir()
            for path in old:
                path.rename(aside / path.name)
            logger.info(f"moved the checkpoints of an earlier training to '{aside}'.")

    def save(self, engine: Engine) -> None:
        if self.validator.state.best_metric_epoch == engine.state.epoch and not rank():
            save_json(self.patients(), self.folder / PATIENTS)
            save_json(self.settings, self.folder / SETTINGS)
            save_whole(half(self.state["network"].state_dict()), self.folder / BEST)
        self.save_last(engine)
        if self.asked_to_stop():
            self.leave(engine)

    def save_last(self, engine: Engine) -> None:
        content = {name: value.state_dict() for name, value in self.state.items()}
        best = [float(self.validator.state.best_metric), self.validator.state.best_metric_epoch]
        content |= {"iteration": engine.state.iteration, "best": best, "settings": self.settings}
        if rank():
            return
        if (self.folder / LAST).is_file():
            os.replace(self.folder / LAST, self.folder / BEFORE)
        save_whole(content, self.folder / LAST)

    def note_signal(self, number: int, frame: Any) -> None:
        if self.stopped_by:
            self.release_signals()
            raise KeyboardInterrupt
        self.stopped_by = number
        logger.info("stopping after this step; once more to stop at once.")

    def stop_if_asked(self, engine: Any) -> None:
        if engine.state.iteration % engine.state.epoch_length and self.asked_to_stop():  # at an epoch's end `save` asks
            self.save_last(engine)
            self.leave(engine)

    def asked_to_stop(self) -> bool:
        """Whether any process got a signal: all leave after the same step."""
        # apart from stopped_by, or this process's own first signal would count as its second
        self.leaving_by = max(gather([self.stopped_by]))
        return self.leaving_by > 0

    def leave(self, engine: Engine) -> None:
        self.release_signals()
        logger.info(f"stopped at step {engine.state.iteration}; the same command goes on from there.")
        gather([])  # torchrun ends all when one leaves: the checkpoint must be written by now
        raise SystemExit(128 + self.leaving_by)

    def release_signals(self, engine: Engine | None = None) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
