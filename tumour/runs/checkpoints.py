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
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tumour.cases.parts import PATIENTS
from tumour.cohort import Cohort
from tumour.errors import InputError, OptionError
from tumour.files import atomic_write, remove_leftovers, save_json, sha256_of
from tumour.maps.aftertreatment import FILE as TREATMENT
from tumour.processes import rank
from tumour.records import read_tensors
from tumour.runs.reading import require_same_reading
from tumour.runs.trained import COMPARED, SETTINGS, history_of, layer_types, require_same, settings_of

BEST, LAST, BEFORE = "model.pt", "last.ckpt", "before-last.ckpt"
OF_WEIGHTS = ("scores.json", "quality.json", TREATMENT)  # what later runs write next to model.pt
MAY_CHANGE = ("patch_size", "window")  # when a training is resumed: larger patches in the last epochs are common
logger = logging.getLogger("bundle")


def save_checkpoint(content: Any, path: Path, previous: Path | None = None) -> None:
    """Write a checkpoint atomically; equal contents give equal files.

    Args:
        content: what is saved.
        path: its file.
        previous: where the file that is replaced is kept.
    """
    with atomic_write(path) as part:
        with open(part, "wb") as file:  # torch stores the name of a path, here that of the temporary file
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())  # else a power failure may leave an empty file
        if previous and path.is_file():
            os.replace(path, previous)


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
        raise OptionError(f"'{path}' does not exist; train first, or give the folder of a checkpoint.")
    try:
        return read_tensors(path)
    except Exception as error:
        kind = type(error).__name__
        raise InputError(f"'{path}' is not a complete checkpoint ({kind}); restore or delete it.") from error


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Load the state dict of a network.

    Raises:
        InputError: as in `read_checkpoint`, or it is something else, such as `last.ckpt`.
    """
    weights = read_checkpoint(path)
    if not isinstance(weights, Mapping) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise InputError(f"'{path}' is not the state dict of a network; give the folder of a model.pt as --ckpt_dir.")
    return dict(weights)


def load_weights(network: nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load weights into a network.

    Args:
        network: the network.
        weights: its state dict.
        path: the file of the weights, for the error message.

    Raises:
        OptionError: they belong to another network.
    """
    expected = network.state_dict()
    differ = [name for name in expected.keys() | weights.keys() if name not in expected or name not in weights]
    differ += [name for name in expected if name not in differ and expected[name].shape != weights[name].shape]
    if differ:
        recorded = settings_of(str(path.parent))
        options = {"size": "size", "norm": "norm", "modalities": "modalities", "activation": "head"}
        names = ["bundle", "recipe", *(option for name, option in options.items() if name not in recorded)]
        raise OptionError(
            f"'{path}' belongs to another network: {len(differ)} of {len(expected)} weights differ in name or shape, "
            f"e.g. '{min(differ)}'. Give the {', '.join(names)} and network_def that it was trained with."
            + (
                f" It is an ensemble: add --+config_file \"['{path.parent}/ensemble.yaml']\"."
                if recorded.get("members")
                else ""
            )
        )
    network.load_state_dict(weights)


def restore(value: Any, saved: Mapping[str, Any]) -> None:
    """Restore the state of a part of a training, but not its settings: those of this run are used from here on.

    A learning rate schedule is repeated up to its step, since its length and its peak may have changed.

    Args:
        value: object with `state_dict` and `load_state_dict`.
        saved: its state dict.
    """
    if isinstance(value, Optimizer):
        value.load_state_dict({"state": saved["state"], "param_groups": value.state_dict()["param_groups"]})
    elif isinstance(value, LRScheduler):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of a schedule that runs ahead of the optimizer
            for _ in range(saved["last_epoch"]):
                value.step()
    else:
        value.load_state_dict(saved)


class LoadWeights:
    """Handler that loads the weights of a network from a file before an evaluator starts.

    Args:
        path: the file of the weights.
        network: the network.
        settings: what gives weights their meaning, in this run; it must be what is recorded next to the file.
        cohorts: all cohorts by name.
        given_by: the setting that names the folder of the file.

    Raises (when the evaluator starts):
        InputError: a setting contradicts the record, or the weights belong to another network.
    """

    def __init__(
        self,
        path: str,
        network: nn.Module,
        settings: Mapping[str, Any],
        cohorts: Mapping[str, Cohort],
        given_by: str = "ckpt_dir",
    ) -> None:
        self.path, self.network, self.given_by = Path(path), network, given_by
        self.settings, self.cohorts = settings, cohorts

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.load)

    def load(self, engine: Engine | None = None) -> None:
        weights = read_weights(self.path)
        if not settings_of(str(self.path.parent)):
            unknown = f"there is no {SETTINGS} next to it to compare {', '.join(COMPARED)} with"
            logger.warning(f"'{self.path}' may mean something else than this run: {unknown}.")
        require_same(self.settings, self.cohorts, self.network, self.path, self.given_by)
        load_weights(self.network, weights, self.path)


def hash_of_start(folder: str) -> dict[str, str]:
    """What is recorded of the weights that a training starts from: their hash; nothing without a folder.

    Raises:
        OptionError: the folder has no weights, or those of an ensemble.
    """
    path = Path(folder, BEST)
    if folder and not path.is_file():
        raise OptionError(f"'{path}' does not exist; give the folder of a {BEST} as --start_from.")
    if folder and (members := settings_of(folder).get("members")):
        raise OptionError(
            f"'{folder}' is an ensemble, which cannot be trained further; give the folder of one of its members "
            f"({', '.join(dict.fromkeys(members))}) as --start_from."
        )
    return {"started_from": sha256_of(path)} if folder else {}


def start_from(
    folder: str, ckpt_dir: str, network: nn.Module, settings: Mapping[str, Any], cohorts: Mapping[str, Cohort]
) -> dict[str, str]:
    """Load the weights that a training starts from, unless it starts from random ones.

    Args:
        folder: the folder of the weights; empty for random ones.
        ckpt_dir: the folder of the training.
        network, settings, cohorts: as in `LoadWeights`; the training may have another patch size.

    Returns:
        What a training records of them, as `hash_of_start`.

    Raises:
        InputError: as in `LoadWeights`, or the weights are where the training will write its own.
    """
    started = hash_of_start(folder)
    if not started:
        return started
    if Path(folder).resolve() == Path(ckpt_dir).resolve():
        raise OptionError(f"start_from and ckpt_dir are both '{folder}'; give another --ckpt_dir for the new weights.")
    trained, path = settings_of(folder), Path(folder, BEST)
    alike = {**settings, **{name: trained[name] for name in MAY_CHANGE if name in trained}}
    LoadWeights(str(path), network, alike, cohorts, given_by="start_from").load()
    logger.info(f"starting from '{path}'.")
    return started


class Checkpoints:
    """Handler that saves the state of the training and the best network after every epoch, and resumes from the state.

    Attach it to the trainer after the validation handler. A training that is stopped repeats the epoch in which it was
    stopped: an epoch depends only on the state before it, on the seed and on the number of the epoch (see
    `tumour.runs.seeding`), so in float32 on one machine a resumed training equals one without a stop.

    Ctrl-C (or SIGTERM, which clusters send) ends the training before the next step; an epoch without steps left is
    validated and saved first. A second Ctrl-C ends it immediately.

    Args:
        folder: folder of `model.pt` and `last.ckpt`.
        state: objects with `state_dict` and `load_state_dict` by name, which are saved for resuming; `network` is one.
        validator: evaluator whose key metric selects the best network.
        settings: settings that must not change when training is resumed; written next to `model.pt`.
        fixed: further settings that must not change. All others may: their new values are used from the next epoch on.
        patients: returns the patients of each part of the data; written next to `model.pt`, so that evaluation can
            leave out those used for training or model selection.
        resume: whether to resume from `last.ckpt` if it exists; if it does not, or if False, older files are moved to a
            subfolder. None does neither, for clients that load `model.pt` themselves and use it until a better one is
            saved.
        seen: returns the range of each measure of the training cases.
        before: the history of the weights that the training starts from; written next to `model.pt` together with that
            of this training, so that cases outside of all ranges and other data sets are noticed.

    Raises (when training starts):
        InputError: the checkpoint is incomplete, belongs to another network, or has other settings or patients.
    """

    def __init__(
        self,
        folder: str,
        state: Mapping[str, Any],
        validator: Engine,
        settings: Mapping[str, Any],
        fixed: Mapping[str, Any],
        patients: Callable[[], Mapping[str, Sequence[str]]],
        resume: bool | None = True,
        seen: Callable[[], Mapping[str, Sequence[float]]] = dict,
        before: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.state, self.validator = Path(folder), dict(state), validator
        self.settings, self.fixed = (json.loads(json.dumps(each)) for each in (settings, fixed))
        self.patients, self.seen, self.before, self.resume = patients, seen, before or {}, resume
        self.stopped_by = 0
        self.previous: dict[int, Any] = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_STARTED, self.stop_if_asked)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.stop_if_asked)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)
        engine.add_event_handler(Events.COMPLETED, self.release_signals)

    def start(self, engine: Engine) -> None:
        self.used = {name: list(part) for name, part in self.patients().items()}
        if not rank():
            for name in (BEST, LAST, PATIENTS, SETTINGS):
                remove_leftovers(self.folder / name)
        if engine.state.iteration or self.resume is None:
            pass  # clients that train in rounds pass the weights to start from
        elif self.resume and ((self.folder / LAST).is_file() or (self.folder / BEFORE).is_file()):
            self.load(engine)
        else:
            self.move_aside()
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
        self.require_same(saved, path)
        load_weights(self.state["network"], saved["network"], path)
        for name, value in self.state.items():
            if name != "network":
                restore(value, saved[name])
        if saved["scaler"] and getattr(engine, "scaler", None) is not None:
            engine.scaler.load_state_dict(saved["scaler"])
        for name in ("iteration", *engine.state_dict_user_keys):
            setattr(engine.state, name, saved["engine"][name])
        engine.state.epoch = engine.state.iteration // engine.state.epoch_length
        validated = self.validator.state
        validated.best_metric, validated.best_metric_epoch, validated.epoch = saved["best"]
        if validated.best_metric_epoch == engine.state.epoch:
            self.save_best(saved["settings"], saved["patients"])  # in case that the training was stopped before it did
        elif validated.best_metric_epoch > 0 and not (self.folder / BEST).is_file():
            validated.best_metric, validated.best_metric_epoch = -1, engine.state.epoch  # patience begins here
            logger.warning(f"'{self.folder / BEST}' is missing; the best network is selected from the next epochs.")
        if engine.state.epoch >= engine.state.max_epochs:
            logger.info(f"'{path}' already has {engine.state.epoch} epochs; to continue, give a larger --epochs.")
        else:
            logger.info(f"resuming from '{path}' at epoch {engine.state.epoch + 1}.")

    def require_same(self, saved: Mapping[str, Any], path: Path) -> None:
        """Refuse a checkpoint that this training cannot continue; add the patients that it has used."""
        otherwise = "Give another --ckpt_dir, or --resume False to start again (older files are moved to a subfolder)."
        parts = {*self.state, "engine", "scaler", "best", "settings", "fixed", "patients"}
        if not isinstance(saved, Mapping) or not parts <= saved.keys():
            raise InputError(f"'{path}' was written by another version and cannot be resumed. {otherwise}")
        if saved["settings"].get("started_from") != self.settings.get("started_from"):
            others = f"'{path}' started from other weights, or from random ones"
            raise OptionError(f"{others}; set start_from back. {otherwise}")
        for name, value in (self.settings | self.fixed).items():
            before = (saved["settings"] | saved["fixed"]).get(name)
            if name == "reading":
                require_same_reading(before, value, path)
            elif name not in MAY_CHANGE and before != value:
                raise OptionError(
                    f"'{path}' was trained with {name} = {before}, but {name} is now {value}; set it back. {otherwise}"
                )
        trained, selected = saved["patients"]["train"], saved["patients"]["validate"]
        moved = {*selected} ^ {*self.used["validate"]} or {*trained} & {*self.used["test"]}
        if moved:
            raise InputError(
                f"'{path}' was trained with other patients: {min(moved)} is now in another part or missing, "
                f"because patients were added or removed; restore the data. {otherwise}"
            )
        self.used["train"] = sorted({*trained, *self.used["train"]})

    def move_aside(self) -> None:
        names = (LAST, BEFORE, BEST, PATIENTS, SETTINGS, *OF_WEIGHTS)
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
        best = self.validator.state.best_metric_epoch == engine.state.epoch
        if best and not rank():
            (self.folder / TREATMENT).unlink(missing_ok=True)  # fitted to the network that is replaced
        self.save_last(engine)  # first: if the training is stopped here, the best network is in it
        if best:
            self.save_best(self.settings, self.used)

    def save_best(self, settings: Mapping[str, Any], patients: Mapping[str, Sequence[str]]) -> None:
        if not rank():
            save_json(patients, self.folder / PATIENTS)
            history = history_of(self.before, {**settings, "seen": self.seen()})
            found = {"layers": layer_types(self.state["network"]), **history}
            save_json({**settings, **found}, self.folder / SETTINGS)
            save_checkpoint(to_float16(self.state["network"].state_dict()), self.folder / BEST)

    def save_last(self, engine: Any) -> None:
        if rank():
            return
        validated, scaler = self.validator.state, getattr(engine, "scaler", None)
        content = {name: value.state_dict() for name, value in self.state.items()}
        content |= {
            "engine": {name: getattr(engine.state, name) for name in ("iteration", *engine.state_dict_user_keys)},
            "scaler": scaler.state_dict() if scaler is not None else {},
            "best": [float(validated.best_metric), validated.best_metric_epoch, validated.epoch],
            "settings": self.settings,
            "fixed": self.fixed,
            "patients": self.used,
        }
        save_checkpoint(on_cpu(content, {}), self.folder / LAST, self.folder / BEFORE)

    def note_signal(self, number: int, frame: Any) -> None:
        self.stopped_by = number
        self.release_signals()
        again = "without --resume False" if self.resume is False else "again"
        logger.info(f"stopping; run the same command {again} to resume after the last completed epoch.")

    def stop_if_asked(self, engine: Engine, error: BaseException | None = None) -> None:
        if self.stopped_by:  # an error may then be due to workers or processes that the signal has ended
            raise SystemExit(128 + self.stopped_by)
        if error is not None:
            raise error

    def release_signals(self, engine: Engine | None = None) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
