"""Ignite handlers that MONAI lacks: metrics, gradient clipping, the training log and the progress bar."""

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.metrics import Loss
from ignite.metrics.metric import MetricUsage
from monai.engines.utils import IterationEvents
from monai.handlers import IgniteMetricHandler, ValidationHandler, from_engine
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from tumour.errors import InputError
from tumour.files import save_text
from tumour.processes import gather, processes, rank
from tumour.records import csv_text, read_table

ADVICE = "Lower learning_rate, or give --precision float32; --resume False starts again."
MEASURED = 20  # seconds of work from which the time of a run is estimated
logger = logging.getLogger("bundle")


class RegionMetric(IgniteMetricHandler):
    """Write a MONAI metric to `engine.state.metrics`: `NAME` is the mean over regions, `NAME_REGION` one region.

    Args:
        metric_fn: MONAI metric with `reduction="mean_batch"`. Use `ignore_empty=False`; otherwise false positives in
            patients without a region are ignored.
        regions: names of the channels.
        every: the metric is of every such step of an epoch, from the first on.
    """

    def __init__(self, metric_fn: Any, regions: Sequence[str], every: int = 1) -> None:
        super().__init__(metric_fn=metric_fn, output_transform=from_engine(["pred", "label"]), save_details=False)
        self.regions, self.every = list(regions), every

    def iteration_completed(self, engine: Any) -> None:
        if (engine.state.iteration - 1) % engine.state.epoch_length % self.every == 0:
            super().iteration_completed(engine)

    def completed(self, engine: Engine, name: str) -> None:
        values = torch.as_tensor(self.compute()).reshape(-1)  # MONAI returns a number if there is one region
        engine.state.metrics[name] = float(values.mean())
        for region, value in zip(self.regions, values, strict=True):
            engine.state.metrics[f"{name}_{region}"] = float(value)


class LogitsLoss(Loss):
    """Ignite's mean loss over patients, computed from the logits.

    It is computed after the forward pass, because the postprocessing for the other metrics turns logits into masks.
    """

    def attach(self, engine: Engine, name: str, usage: str | MetricUsage | None = None) -> None:
        logits = MetricUsage(Events.EPOCH_STARTED, Events.EPOCH_COMPLETED, IterationEvents.FORWARD_COMPLETED)
        super().attach(engine, name, usage or logits)


class ClipGradients:
    """Clip the norm of all gradients together; a step with a norm that is not finite is skipped.

    A patch with only background has no variance, so normalising it at every level can make gradients overflow.
    `engine.state.skipped` counts the skipped steps of an epoch. Attach this handler before the validation and the
    checkpoints, so that no network with weights that are not finite is validated or saved.

    Args:
        network: the network that is trained.
        max_norm: maximum L2 norm.
        most_skipped: the training stops after this number of skipped steps in a row.
    """

    def __init__(self, network: nn.Module, max_norm: float, most_skipped: int) -> None:
        self.network, self.max_norm, self.most_skipped = network, max_norm, most_skipped

    def attach(self, engine: Engine) -> None:
        engine.state_dict_user_keys.append("skipped_in_a_row")  # saved for resuming
        engine.state.skipped_in_a_row = 0
        engine.add_event_handler(Events.EPOCH_STARTED, self.start_epoch)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.clip)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.require_finite_weights)

    def start_epoch(self, engine: Any) -> None:
        engine.state.skipped = 0

    def clip(self, engine: Any) -> None:
        if engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm)
        if torch.isfinite(norm):
            engine.state.skipped_in_a_row = 0
            return
        self.network.zero_grad()  # sets the gradients to None, so the optimizer changes nothing
        engine.state.skipped += 1
        engine.state.skipped_in_a_row += 1
        if engine.state.skipped_in_a_row >= self.most_skipped:
            loss = float(engine.state.output["loss"])
            raise InputError(
                f"The training stops at step {engine.state.iteration}: the gradient was not finite in the last "
                f"{engine.state.skipped_in_a_row} steps (loss {loss:g}). {ADVICE}"
            )

    def require_finite_weights(self, engine: Any) -> None:
        if not all(value.isfinite().all() for value in self.network.state_dict().values()):
            raise InputError(
                f"The training stops after epoch {engine.state.epoch}: weights of the network are not finite. {ADVICE}"
            )


class ValidateEvery(ValidationHandler):
    """MONAI's handler that validates every `interval` epochs, and after the last epoch in any case."""

    def attach(self, engine: Engine) -> None:
        def due(engine: Engine, epoch: int) -> bool:
            return epoch % self.interval == 0 or epoch == engine.state.max_epochs

        engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=due), self)


class StopWhenStale:
    """End the training when the key metric has not improved for `patience` epochs.

    The handler keeps no counter, so a resumed training stops at the same epoch as an uninterrupted one. Attach it after
    the checkpoints.

    Args:
        validator: evaluator with the key metric.
        patience: number of epochs; 0 never stops.
    """

    def __init__(self, validator: Engine, patience: int) -> None:
        self.validator, self.patience = validator, patience

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.stop_if_stale)  # a training that was stopped for it is resumed
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.stop_if_stale)

    def stop_if_stale(self, engine: Engine) -> None:
        best = max(self.validator.state.best_metric_epoch, 0)
        validated = self.validator.state.epoch == engine.state.epoch  # the last epoch always is
        if self.patience and validated and engine.state.epoch - best >= self.patience:
            logger.info(f"the validation has not improved for {self.patience} epochs: stopping.")
            engine.terminate()


def in_words(seconds: float) -> str:
    """An estimated time of a minute or more."""
    minutes = round(seconds / 60)
    return f"about {minutes} minute{'s' * (minutes != 1)}" if minutes < 120 else f"about {seconds / 3600:.1f} hours"


class TrainingLog:
    """Log each epoch as a row of `training.csv`, as points of TensorBoard curves and as a line of the log.

    A resumed training continues the same file; rows of epochs that are trained again are replaced. Attach it after the
    validation handler.

    Args:
        folder: folder for `training.csv` and the TensorBoard events.
        validator: evaluator whose metrics are logged together with those of the training.
        optimizer: the optimizer whose learning rate is logged.
    """

    def __init__(self, folder: str, validator: Engine, optimizer: torch.optim.Optimizer) -> None:
        self.folder, self.validator, self.optimizer = Path(folder), validator, optimizer
        self.board: SummaryWriter | None = None

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add_loss)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def open(self, done: int) -> None:
        """Open the files and continue after the given number of epochs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict] = []
        if (self.folder / "training.csv").is_file():
            log = read_table(self.folder / "training.csv", ["epoch"])
            self.rows = log[log["epoch"] <= done].to_dict("records")
        self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=done + 1)

    def start_epoch(self, engine: Engine) -> None:
        if self.board is None and not rank():  # in `start` the checkpoint might not be loaded yet
            self.started, self.done = time.monotonic(), engine.state.epoch - 1
            self.open(self.done)
        self.losses: list[float] = []
        self.began, self.seconds = time.monotonic(), 0.0

    def add_loss(self, engine: Any) -> None:
        self.losses.append(float(engine.state.output[0]["loss"]))
        self.seconds = time.monotonic() - self.began  # only of training: validation follows the last step

    def write(self, engine: Engine) -> None:
        losses = [loss for loss in gather(self.losses) if math.isfinite(loss)]  # steps of others are skipped
        if rank():
            return
        assert self.board is not None  # opened when the epoch started
        epoch, max_epochs = engine.state.epoch, engine.state.max_epochs or 0
        row: dict[str, Any] = {"epoch": epoch, "seconds": round(self.seconds, 2)}
        row["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        row["loss"] = sum(losses) / len(losses) if losses else math.nan
        row["skipped"] = skipped = getattr(engine.state, "skipped", 0)
        row |= engine.state.metrics
        validated = self.validator.state.epoch == epoch
        row |= {f"validate_{n}": value if validated else math.nan for n, value in self.validator.state.metrics.items()}
        for name, value in row.items():
            if name != "epoch" and not math.isnan(value):
                part, _, metric = ("train_loss" if name == "loss" else name).partition("_")
                shared = metric == "loss" or f"train_{metric}" in row  # training and validation in one chart
                self.board.add_scalar(f"{metric}/{part}" if shared else name, value, epoch)
        self.board.flush()
        self.rows.append(row)
        save_text(csv_text(self.rows), self.folder / "training.csv")
        text = f"epoch {epoch}/{max_epochs}: loss {row['loss']:.4f}"
        if validated:
            metrics = {n: value for n, value in self.validator.state.metrics.items() if n.startswith(("loss", "dice"))}
            text += ", validation " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        left = (time.monotonic() - self.started) / (epoch - self.done) * (max_epochs - epoch)
        logger.info(text + (f", {in_words(left)} left" if left >= 60 else ""))
        if skipped:
            logger.warning(
                f"epoch {epoch}: {skipped} of {engine.state.epoch_length} steps skipped (gradient not finite)."
            )


class Progress:
    """Log what will be done, and how long it takes as soon as that can be measured; show a progress bar.

    The bar has loss, last validation Dice and remaining time. Without a terminal it is not shown.

    Args:
        unit: name of one step.
        total: number of steps; None: the number of epochs times their length.
        validator: evaluator of a training, whose last Dice is shown.
        work: what is done with each case if it is not a training.
    """

    def __init__(
        self, unit: str = "step", total: int | None = None, validator: Any = None, work: str = "using"
    ) -> None:
        self.unit, self.total, self.validator, self.work = unit, total, validator, work

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.step)
        engine.add_event_handler(Events.COMPLETED, self.close)

    def start(self, engine: Any) -> None:
        total = engine.state.max_epochs * engine.state.epoch_length if self.total is None else self.total
        plan = self.plan(engine, total)
        if not rank():
            logger.info(plan)
        self.measured_from: float | None = None
        self.announced = bool(rank())
        silent = True if rank() else None
        self.bar = tqdm(total=total, initial=engine.state.iteration, unit=self.unit, disable=silent, dynamic_ncols=True)

    def plan(self, engine: Any, total: int) -> str:
        """What this run will do."""
        if self.validator is None:
            return f"{self.work} {total:,} {self.unit}{'s' * (total != 1)}."
        train, validate = (sum(gather([len(each.data_loader.dataset)])) for each in (engine, self.validator))
        epochs = engine.state.max_epochs
        steps = f"{epochs} epoch{'s' * (epochs != 1)} of {engine.state.epoch_length} steps"
        done = engine.state.iteration // engine.state.epoch_length
        return f"training on {train} cases, validating on {validate}: {steps}{f', {done} epochs done' * bool(done)}."

    def announce(self, done: int) -> None:
        """Log once how long the rest will take; the first step is slower than the others and does not count."""
        now = time.monotonic()
        if self.measured_from is None:
            self.measured_from, self.measured_at = now, done
        elif now - self.measured_from >= MEASURED:
            self.announced = True
            left = self.bar.total // (processes() if self.total else 1) - done  # each process has its share of cases
            seconds = left * (now - self.measured_from) / (done - self.measured_at)
            if seconds >= 60:
                logger.info(f"{in_words(seconds)} for {left:,} more {self.unit}s.")

    def step(self, engine: Any) -> None:
        if not self.announced:
            self.announce(engine.state.iteration)
        output: dict[str, Any] = next(iter(engine.state.output), {})  # none if the case was left out
        if "loss" in output:
            shown = {"loss": f"{float(output['loss']):.3f}"}
            if self.validator is not None and "dice" in self.validator.state.metrics:
                shown["dice"] = f"{self.validator.state.metrics['dice']:.3f}"
            self.bar.set_postfix(shown, refresh=False)
        self.bar.update()

    def close(self, engine: Engine) -> None:
        self.bar.close()
