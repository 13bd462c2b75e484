import logging
from logging.config import fileConfig
from types import SimpleNamespace

import pytest
import torch
from custom_components.losses import DiceBCELoss
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import from_engine
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from monai.transforms import AsDiscreted, Compose
from torch import nn
from tumour.errors import InputError
from tumour.maps.regions import ChannelsToRegionsd
from tumour.records import read_table
from tumour.runs import handlers
from tumour.runs.handlers import (
    ClipGradients,
    LogitsLoss,
    Progress,
    RegionMetric,
    StopWhenStale,
    TrainingLog,
    ValidateEvery,
)

from tests.conftest import ROOT, restored


def stepped(gradient, max_norm=1.0):
    """The change of two weights in one step, given their gradient."""
    network = nn.Linear(2, 1, bias=False)
    before = network.weight.detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    network.weight.grad = torch.tensor([gradient])
    engine = SimpleNamespace(scaler=None, optimizer=optimizer, state=SimpleNamespace(skipped=0, skipped_in_a_row=0))
    ClipGradients(network, max_norm, most_skipped=2).clip(engine)
    optimizer.step()
    return (before - network.weight.detach()).flatten()


def test_long_gradients_are_scaled_to_the_norm_and_short_ones_kept():
    assert torch.allclose(stepped([3.0, 4.0]), torch.tensor([0.6, 0.8]), atol=1e-4)
    assert torch.allclose(stepped([0.3, 0.4]), torch.tensor([0.3, 0.4]), atol=1e-4)


def test_gradients_are_clipped_at_their_own_size_not_at_that_of_the_scaled_loss():
    """A training in float16 scales its loss, here by 1024; clipped at that size, the step would be too short."""
    network, scaler = nn.Linear(2, 1, bias=False), torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = network.weight.detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    scaler.scale((network.weight * torch.tensor([3.0, 4.0])).sum()).backward()
    engine = SimpleNamespace(scaler=scaler, optimizer=optimizer, state=SimpleNamespace(skipped_in_a_row=0))
    ClipGradients(network, 1.0, most_skipped=2).clip(engine)
    scaler.step(optimizer)
    assert torch.allclose(before - network.weight.detach(), torch.tensor([[0.6, 0.8]]), atol=1e-4)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_step_whose_gradient_overflowed_is_skipped(value):
    assert torch.equal(stepped([value, 1.0]), torch.zeros(2))


@pytest.mark.parametrize(("epoch", "patience", "stops"), [(9, 5, False), (10, 5, True), (99, 0, False)])
def test_training_stops_when_the_best_validation_is_patience_epochs_old(epoch, patience, stops):
    validator = SimpleNamespace(state=SimpleNamespace(best_metric_epoch=5, epoch=epoch))
    stopped = []
    engine = SimpleNamespace(state=SimpleNamespace(epoch=epoch), terminate=lambda: stopped.append(True))
    StopWhenStale(validator, patience).stop_if_stale(engine)
    assert bool(stopped) is stops
    validator.state.epoch -= 1  # this epoch was not validated, and a training ends with one that was
    StopWhenStale(validator, patience).stop_if_stale(engine)
    assert len(stopped) == stops


SINGLE = {"background": [0], "necrotic": [1], "oedema": [2]}
BOTH = {"all": [1, 2], "necrotic": [1]}


@pytest.mark.parametrize(
    ("loss", "channels"),
    [(DiceBCELoss(), BOTH), (DiceCELoss(softmax=True, batch=True), SINGLE)],
    ids=["sigmoid", "softmax"],
)
def test_the_loss_of_a_validation_is_that_of_the_logits_and_the_mean_over_patients(loss, channels):
    patients = []
    for size in (4, 5, 6):
        label = torch.zeros(len(channels), size, 5, 4)
        label[0, :2], label[1, 2:] = 1, 1
        patients.append({"image": torch.randn_like(label) * 3, "label": label})
    compared = [AsDiscreted("pred", threshold=0.5), ChannelsToRegionsd("label", channels=channels, regions=BOTH)]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=torch.utils.data.DataLoader(patients, batch_size=1),
        network=nn.Identity(),
        postprocessing=Compose(compared),
        key_val_metric={"loss": LogitsLoss(loss, from_engine(["pred", "label"]))},
    )
    for _ in range(2):  # nothing of the previous validation is left
        evaluator.run()
        one_by_one = [loss(case["image"][None], case["label"][None]) for case in patients]
        assert evaluator.state.metrics["loss"] == pytest.approx(float(sum(one_by_one)) / 3, rel=1e-5)
    assert set(evaluator.state.output[0]["pred"].unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize(("epochs", "interval", "validated"), [(1, 2, [1]), (4, 2, [2, 4]), (5, 3, [3, 5])])
def test_the_last_epoch_is_always_validated(epochs, interval, validated):
    validator = SupervisedEvaluator(torch.device("cpu"), [], nn.Identity(), epoch_length=0)
    seen = []
    validator.run = seen.append
    trainer = Engine(lambda engine, batch: None)
    ValidateEvery(interval, validator).attach(trainer)
    trainer.run([0], max_epochs=epochs)
    assert seen == validated


def test_only_skipped_steps_in_a_row_end_a_training():
    network = nn.Linear(2, 1)
    clip = ClipGradients(network, 1.0, most_skipped=3)
    state = SimpleNamespace(skipped=0, skipped_in_a_row=0, iteration=9, output={"loss": torch.tensor(torch.nan)})
    engine = SimpleNamespace(scaler=None, state=state)

    def step(value):
        network.weight.grad = torch.full((1, 2), value)
        clip.clip(engine)

    for value in (torch.nan, torch.inf, 1.0, torch.nan, torch.inf):
        step(value)
    assert state.skipped == 4
    with pytest.raises(InputError, match=r"step 9: .*last 3 steps \(loss nan\)\. Lower learning_rate"):
        step(torch.nan)


def test_steps_skipped_in_a_row_are_counted_across_a_stop():
    """`Checkpoints` saves what the trainer lists."""
    trainer = SupervisedTrainer(torch.device("cpu"), 1, [], nn.Identity(), None, None)
    ClipGradients(nn.Linear(2, 1), 1.0, most_skipped=3).attach(trainer)
    assert [getattr(trainer.state, name) for name in trainer.state_dict_user_keys] == [0]


def lines_of(caplog, monkeypatch, progress, epochs, steps, seconds):
    """The log of an engine whose first step takes 100 s and each other one some seconds."""
    clock = iter(100 + seconds * n for n in range(epochs * steps))
    now = [0.0]
    engine = Engine(lambda *_: [{"loss": 0.5}])
    engine.data_loader = SimpleNamespace(dataset=range(5))
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: now.__setitem__(0, next(clock)))
    monkeypatch.setattr(handlers.time, "monotonic", lambda: now[0])
    progress.attach(engine)
    monkeypatch.setattr(handlers.logger, "propagate", True)
    with caplog.at_level("INFO"):
        engine.run(range(steps), max_epochs=epochs)
    return [record.message for record in caplog.records if record.name == "bundle"]


def test_a_training_begins_with_what_it_will_do_and_soon_says_how_long_it_takes(caplog, monkeypatch):
    validator = SimpleNamespace(data_loader=SimpleNamespace(dataset=range(2)), state=SimpleNamespace(metrics={}))
    lines = lines_of(caplog, monkeypatch, Progress(validator=validator), epochs=4, steps=50, seconds=8.0)
    # the first step is over at 100 s; after three more, 24 s, 196 of 200 steps are left: 196 x 8 s
    assert lines == [
        "training on 5 cases, validating on 2: 4 epochs of 50 steps.",
        "about 26 minutes for 196 more steps.",
    ]


@pytest.mark.parametrize(
    ("total", "seconds", "more"), [(50, 1.0, []), (100, 30.0, ["about 49 minutes for 98 more cases."])]
)
def test_the_time_is_given_only_where_it_is_long(caplog, monkeypatch, total, seconds, more):
    progress = Progress(unit="case", total=total, work="scoring")
    lines = lines_of(caplog, monkeypatch, progress, epochs=1, steps=total, seconds=seconds)
    assert lines == [f"scoring {total} cases.", *more]


def test_the_line_of_an_epoch_says_how_long_the_others_will_take(caplog, monkeypatch, tmp_path):
    validator = SimpleNamespace(state=SimpleNamespace(epoch=0, metrics={}))
    log = TrainingLog(str(tmp_path), validator, SimpleNamespace(param_groups=[{"lr": 0.1}]))
    lines = lines_of(caplog, monkeypatch, log, epochs=5, steps=2, seconds=40.0)
    # the epochs are over at 140, 220, 300, 380 and 460 s
    left = ["9 minutes", "6 minutes", "3 minutes", "2 minutes"]
    assert lines == [f"epoch {n}/5: loss 0.5000, about {time} left" for n, time in enumerate(left, 1)] + [
        "epoch 5/5: loss 0.5000"
    ]


def test_training_csv_has_the_mean_of_the_finite_losses_and_loses_the_rows_of_epochs_that_are_repeated(tmp_path):
    log = TrainingLog(
        str(tmp_path),
        SimpleNamespace(state=SimpleNamespace(epoch=0, metrics={})),
        SimpleNamespace(param_groups=[{"lr": 0}]),
    )
    losses = iter([1.0, 4.0, torch.nan, 2.0, 2.0, 5.0])
    engine = Engine(lambda *_: [{"loss": next(losses)}])
    log.attach(engine)
    engine.run(range(3), max_epochs=2)
    assert read_table(tmp_path / "training.csv")[["epoch", "loss"]].to_numpy().tolist() == [[1, 2.5], [2, 3]]
    log.open(done=1)  # as a training that was stopped in the second epoch
    assert [(row["epoch"], row["loss"]) for row in log.rows] == [(1, 2.5)]


def test_the_log_does_not_announce_an_error_that_is_printed_anyway(capsys):
    def fail(*_):
        raise InputError("a sentence.")

    with restored():
        fileConfig(ROOT / "bundles/common/logging.conf", disable_existing_loggers=False)
        with pytest.raises(InputError, match="a sentence."):
            Engine(fail).run([1])
        logging.getLogger("bundle").info("a line")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("INFO a line")


@pytest.mark.parametrize(("every", "steps"), [(1, [1, 2, 3, 4, 5]), (3, [1, 4])])
@pytest.mark.parametrize("regions", [["WT"], ["TC", "WT"]])
def test_a_metric_of_some_steps_is_their_mean_in_every_epoch(every, steps, regions):
    """The Dice of the first region is 1 in the steps that are named and else 0; that of another is always 0."""

    def step(engine, batch):
        shape = len(regions), 2, 2, 2
        pred = torch.zeros(shape)
        pred[0] = float(batch in steps)
        return [{"pred": pred, "label": torch.ones(shape)}]

    engine = Engine(step)
    RegionMetric(DiceMetric(reduction="mean_batch", ignore_empty=False), regions, every).attach(engine, "dice")
    of_each = {f"dice_{name}": float(name == regions[0]) for name in regions}
    assert engine.run(range(1, 6), max_epochs=2).metrics == {"dice": 1 / len(regions), **of_each}
