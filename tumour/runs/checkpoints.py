"""Save and load checkpoints.

`model.pt` is the best network, a plain state dict in float16; `last.ckpt` has everything that is needed to resume.
`before-last.ckpt` is the previous `last.ckpt`, used if `last.ckpt` is corrupt. Neither ends in `.pt`, because MONAI
Label would load the shortest such name in the folder as weights and continue even if they do not fit.
"""

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
from tumour.files import atomic_write, save_json
from tumour.processes import gather, processes, rank

BEST, LAST, BEFORE = "model.pt", "last.ckpt", "before-last.ckpt"
PATIENTS, SETTINGS = "patients.json", "settings.json"
ASK_EVERY = 20  # steps: asking all processes makes each wait for its GPU
logger = logging.getLogger("bundle")


def save_checkpoint(content: Any, path: Path) -> None:
    """Write a checkpoint atomically."""
    with atomic_write(path) as part:
        torch.save(content, part)


def to_float16(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Convert weights to float16 for `model.pt`; it is half as large, and the file that is scored is also released.

    Integers are not converted, nor are tensors with values above 65504, the maximum of float16. All tensors are moved
    to the CPU, so that a machine without a GPU can read them.
    """
    halves: dict[int, torch.Tensor] = {}  # a tensor with two names, as in DynUNet, is stored once
    weights = on_cpu(weights, {})
    for value in weights.values():
        fits = value.is_floating_point() and bool(value.abs().max() <= torch.finfo(torch.float16).max)
        halves.setdefault(id(value), value.half() if fits else value)
    return {name: halves[id(value)] for name, value in weights.items()}


def on_cpu(content: Any, copies: dict[Any, torch.Tensor]) -> Any:
    """Move the tensors of a nested state to the CPU; a tensor with two names stays one tensor."""
    if isinstance(content, torch.Tensor):
        return copies.setdefault((content.data_ptr(), content.shape, content.stride(), content.dtype), content.cpu())
    if isinstance(content, Mapping):
        return {key: on_cpu(value, copies) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(on_cpu(value, copies) for value in content)
    return content


def read_checkpoint(path: Path) -> Any:
    """Load a checkpoint on the CPU, without executing any code that it may contain.

    Raises:
        InputError: the file does not exist, or is not a complete checkpoint.
    """
    if not path.is_file():
        raise InputError(f"'{path}' does not exist; train first, or give the folder of the checkpoint as --ckpt_dir.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        kind = type(error).__name__
        raise InputError(f"'{path}' is not a complete checkpoint ({kind}); restore or delete it.") from error


def load_weights(network: nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load weights into a network.

    Args:
        network: the network.
        weights: its state dict.
        path: the file of the weights, for the error message.

    Raises:
        InputError: the weights belong to another network.
    """
    expected = network.state_dict()
    differ = [name for name in expected.keys() | weights.keys() if name not in expected or name not in weights]
    differ += [name for name in expected if name not in differ and expected[name].shape != weights[name].shape]
    if differ:
        recorded = settings_of(str(path.parent))
        settings = ", ".join(f"{name} {recorded[name]}" for name in ("size", "modalities") if name in recorded)
        raise InputError(
            f"'{path}' belongs to another network: {len(differ)} of {len(expected)} weights differ in name or shape, "
            f"e.g. '{min(differ)}'. Give the bundle, size, modalities and network_def that it was trained with"
            f"{f': {settings}' if settings else ''}."
            + (
                f" It is an ensemble: add --+config_file \"['{path.parent}/ensemble.yaml']\"."
                if recorded.get("members")
                else ""
            )
        )
    network.load_state_dict(weights)


def settings_of(folder: str) -> dict[str, Any]:
    """The recorded settings that the network in a folder was trained with; empty if there is no record."""
    path = Path(folder, SETTINGS)
    return json.loads(path.read_text()) if path.is_file() else {}


class LoadWeights:
    """Handler that loads the weights of a network from a file before an evaluator starts."""

    def __init__(self, path: str, network: nn.Module) -> None:
        self.path, self.network = Path(path), network

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.load)

    def load(self, engine: Engine) -> None:
        load_weights(self.network, read_checkpoint(self.path), self.path)


class Checkpoints:
    """Handler that saves the best network and the state of the training after every epoch, and resumes from the state.

    Attach it to the trainer after the validation handler. Ctrl-C (or SIGTERM, which clusters send) ends the training
    after the current step and saves a complete checkpoint. A second Ctrl-C ends it immediately; then the checkpoint of
    the last epoch remains.

    Args:
        folder: folder of `model.pt` and `last.ckpt`.
        state: objects with `state_dict` and `load_state_dict` by name, which are saved for resuming; `network` is one.
        validator: evaluator whose key metric selects the best network.
        settings: settings that must not change when training is resumed; written next to `model.pt`.
        patients: returns the patients of each part of the data; written next to `model.pt`, so that evaluation can
            leave out those used for training or model selection.
        resume: whether to resume from `last.ckpt` if it exists; if False, older files are moved to a subfolder. None
            does neither, for clients that load `model.pt` themselves and use it until a better one is saved.

    Raises (when training starts):
        InputError: the checkpoint is incomplete, belongs to another network or has other settings.
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
            pass  # clients that train in rounds pass the weights to start from
        elif not self.resume:
            self.move_aside()
        elif (self.folder / LAST).is_file() or (self.folder / BEFORE).is_file():
            self.load(engine)
        if threading.current_thread() is threading.main_thread():  # only the main thread receives signals
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
            logger.warning(f"{error} Resuming from '{path}' instead.")
        for name, value in self.settings.items():
            if saved["settings"].get(name) != value:
                raise InputError(
                    f"'{path}' was trained with {name} = {saved['settings'].get(name)}, but {name} is now {value}. "
                    "Give another --ckpt_dir, or --resume False to start again (older files are moved to a subfolder)."
                )
        load_weights(self.state["network"], saved["network"], path)
        for name, value in self.state.items():
            if name != "network":
                value.load_state_dict(saved[name])
        engine.state.iteration = saved["iteration"]
        engine.state.epoch = saved["iteration"] // engine.state.epoch_length
        self.validator.state.best_metric, self.validator.state.best_metric_epoch = saved["best"]
        torch.manual_seed(saved["iteration"] + rank())  # otherwise the crops of the first epochs would be repeated
        if engine.state.epoch >= engine.state.max_epochs:
            logger.info(f"'{path}' already has {engine.state.max_epochs} epochs; to continue, give a larger --epochs.")
        else:
            logger.info(f"resuming from '{path}' at epoch {engine.state.epoch + 1}.")

    def move_aside(self) -> None:
        names = (BEST, LAST, BEFORE, PATIENTS, SETTINGS)
        old = [self.folder / name for name in names if (self.folder / name).is_file()]
        if old and not rank():
            number = 1
            while (target := self.folder / f"before-{number}").exists():
                number += 1
            target.mkdir()
            for path in old:
                path.rename(target / path.name)
            logger.info(f"moved the checkpoints of an earlier training to '{target}'.")

    def save(self, engine: Engine) -> None:
        if self.validator.state.best_metric_epoch == engine.state.epoch and not rank():
            save_json(self.patients(), self.folder / PATIENTS)
            save_json(self.settings, self.folder / SETTINGS)
            save_checkpoint(to_float16(self.state["network"].state_dict()), self.folder / BEST)
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
        save_checkpoint(on_cpu(content, {}), self.folder / LAST)

    def note_signal(self, number: int, frame: Any) -> None:
        if self.stopped_by:
            self.release_signals()
            raise KeyboardInterrupt
        self.stopped_by = number
        logger.info("stopping after this step; press Ctrl-C again to stop immediately.")

    def stop_if_asked(self, engine: Any) -> None:
        step = engine.state.iteration % engine.state.epoch_length  # at an epoch's end `save` asks
        if step and (processes() == 1 or step % ASK_EVERY == 0) and self.asked_to_stop():
            self.save_last(engine)
            self.leave(engine)

    def asked_to_stop(self) -> bool:
        """Whether any process received a signal; all processes stop after the same step."""
        # not in stopped_by: otherwise the first signal to this process would count as the second
        self.leaving_by = max(gather([self.stopped_by]))
        return self.leaving_by > 0

    def leave(self, engine: Engine) -> None:
        self.release_signals()
        logger.info(f"stopped at step {engine.state.iteration}; run the same command again to resume.")
        gather([])  # wait for the checkpoint: torchrun stops all processes when one exits
        raise SystemExit(128 + self.leaving_by)

    def release_signals(self, engine: Engine | None = None) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
