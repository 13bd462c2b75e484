import json
import os
import signal

import pytest
import torch
from ignite.engine import Engine, Events
from monai.optimizers import WarmupCosineSchedule
from torch import nn
from tumour.errors import InputError
from tumour.runs.checkpoints import Checkpoints, load_weights, read_checkpoint, restore, save_checkpoint, to_float16
from tumour.runs.handlers import StopWhenStale

from tests.conftest import BUNDLES, ROOT
from tools.show import merged

PATIENTS = {"train": ["a"], "validate": ["b"], "test": ["c"]}


class Trainer(Engine):
    """Counts its steps in a weight; the metric of each validation is given."""

    def __init__(
        self,
        folder,
        epochs=3,
        metrics=(0.1, 0.3, 0.2),
        resume=True,
        patients=PATIENTS,
        step=1.0,
        patience=0,
        **settings,
    ):
        self.network = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.network.weight)
        super().__init__(lambda engine, batch: self.network.weight.data.add_(step))
        self.validator = Engine(lambda engine, batch: None)
        self.validator.state.best_metric, self.validator.state.best_metric_epoch = -1, -1
        self.state.max_epochs, self.state.epoch_length = epochs, 4
        self.metrics = metrics
        self.add_event_handler(Events.EPOCH_COMPLETED, self.validate)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        state = {"network": self.network}
        self.saver = Checkpoints(str(folder), state, self.validator, settings, {}, lambda: patients, resume)
        self.saver.attach(self)
        StopWhenStale(self.validator, patience).attach(self)

    def validate(self):
        self.validator.state.epoch = self.state.epoch
        metric = self.metrics[self.state.epoch - 1]
        if metric > self.validator.state.best_metric:
            self.validator.state.best_metric, self.validator.state.best_metric_epoch = metric, self.state.epoch

    def go(self):
        self.run([0] * 4, max_epochs=self.state.max_epochs)
        return self


def weight(path):
    state = torch.load(path, weights_only=True)
    return float(state.get("network", state)["weight"])


def test_the_best_network_is_kept_as_a_plain_state_dict_and_the_last_for_resuming(tmp_path):
    Trainer(tmp_path).go()
    assert weight(tmp_path / "model.pt") == 8  # epoch 2 of 3 was the best, 4 steps each
    assert weight(tmp_path / "last.ckpt") == 12
    assert list(torch.load(tmp_path / "model.pt", weights_only=True)) == ["weight"]
    assert (tmp_path / "patients.json").is_file()


def test_a_resumed_training_continues_and_keeps_its_best_network(tmp_path):
    Trainer(tmp_path, epochs=2).go()
    again = Trainer(tmp_path, epochs=4, metrics=(0.1, 0.3, 0.2, 0.25)).go()
    assert float(again.network.weight) == 16
    assert weight(tmp_path / "model.pt") == 8
    assert again.validator.state.best_metric == 0.3


@pytest.mark.parametrize("bundle", BUNDLES)
def test_float16_weights_in_a_float32_network_give_the_same_label_maps(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    torch.manual_seed(0)
    first, second = (merged(f"bundles/{bundle}/args.yaml").get_parsed_content("network_def").eval() for _ in range(2))
    torch.nn.init.normal_(first.network.output_block.conv.conv.weight, std=2.0)  # label maps with every region
    image = torch.randn(1, 4, 48, 48, 48, generator=torch.manual_seed(1))
    for module in first.modules():
        module.momentum = 1.0  # the statistics of one batch
    first.train()(image)
    first.eval()
    save_checkpoint(to_float16(first.state_dict()), tmp_path / "model.pt")
    load_weights(second, read_checkpoint(tmp_path / "model.pt"), tmp_path / "model.pt")
    save_checkpoint(first.state_dict(), tmp_path / "float32.pt")
    assert (tmp_path / "model.pt").stat().st_size < 0.55 * (tmp_path / "float32.pt").stat().st_size
    with torch.no_grad():
        one, two = (network(image) for network in (first, second))
    assert one.dtype == two.dtype == torch.float32 and 0.1 < (one > 0).float().mean() < 0.9
    assert ((one > 0) == (two > 0)).float().mean() > 0.998


def test_values_too_large_for_float16_are_not_converted():
    weights = {"large": torch.tensor([1.0, -70000.0]), "small": torch.tensor([0.1]), "count": torch.tensor(70000)}
    halves = to_float16(weights)
    assert torch.equal(halves["large"], weights["large"]) and torch.equal(halves["count"], weights["count"])
    assert halves["small"].dtype == torch.float16


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(path.read_bytes()[:99]), lambda path: path.unlink()])
def test_after_a_damaged_checkpoint_training_resumes_from_the_one_before_it(tmp_path, caplog, spoil):
    Trainer(tmp_path).go()
    spoil(tmp_path / "last.ckpt")
    with caplog.at_level("WARNING", "bundle"):
        again = Trainer(tmp_path)
        again.saver.start(again)
    assert again.state.iteration == 8 and float(again.network.weight) == 8
    assert "Resuming from" in caplog.text


def test_a_finished_training_is_not_trained_again(tmp_path):
    Trainer(tmp_path).go()
    assert float(Trainer(tmp_path).go().network.weight) == 12


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(("step", "kept"), [(6, 4), (8, 8)])
def test_a_training_that_a_signal_ends_repeats_an_epoch_that_was_not_complete(number, code, step, kept, tmp_path):
    before = signal.getsignal(number)
    trainer = Trainer(tmp_path)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=step), lambda: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as stop:
        trainer.go()
    assert stop.value.code == code and signal.getsignal(number) == before  # so a second one ends the process
    assert weight(tmp_path / "last.ckpt") == kept
    again = Trainer(tmp_path).go()
    assert float(again.network.weight) == 12 and again.state.iteration == 12


@pytest.mark.parametrize(("resume", "how"), [(True, "again"), (False, "without --resume False")])
def test_a_stopped_training_says_which_command_resumes_it(resume, how, tmp_path, caplog):
    trainer = Trainer(tmp_path, resume=resume)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=6), lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(SystemExit), caplog.at_level("INFO", "bundle"):
        trainer.go()
    assert f"run the same command {how} to resume" in caplog.text


def fail():
    raise RuntimeError("a worker is gone")


@pytest.mark.parametrize(("stopped", "error"), [(True, SystemExit), (False, RuntimeError)])
def test_workers_that_the_same_signal_ends_are_no_error(stopped, error, tmp_path):
    trainer = Trainer(tmp_path)
    if stopped:
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=6), lambda: os.kill(os.getpid(), signal.SIGTERM))
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=6), fail)
    with pytest.raises(error):
        trainer.go()


class Killed(BaseException):
    """The end of a process."""


@pytest.mark.parametrize("count", range(1, 12))  # three epochs, of which two have a best network of three files
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_training_stopped_between_any_two_writes_never_replaces_a_network_by_a_worse_one(
    count, when, tmp_path, monkeypatch
):
    """The second run has other weights and metrics in the same epochs, as on a GPU."""
    plain, calls = os.replace, []

    def replace(source, target):
        calls.append(target)
        if len(calls) == count and when == "before":
            raise Killed
        plain(source, target)
        if len(calls) == count:
            raise Killed

    def score(steps):
        return first[round(steps / 4)] if steps % 4 == 0 else second[round(steps / 4.5)]

    first, second = (0.0, 0.1, 0.5, 0.2), (0.0, 0.05, 0.3, 0.4)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(Killed):
            Trainer(tmp_path, metrics=first[1:]).go()
    best = tmp_path / "model.pt"
    before = score(weight(best)) if best.exists() else 0
    Trainer(tmp_path, metrics=second[1:], step=1.125).go()
    last = read_checkpoint(tmp_path / "last.ckpt")
    assert last["engine"]["iteration"] == 12 and (tmp_path / "before-last.ckpt").is_file()
    assert score(weight(best)) >= before
    assert best.exists() and json.loads((tmp_path / "patients.json").read_text()) == PATIENTS


def test_a_deleted_best_network_is_selected_again(tmp_path, caplog):
    Trainer(tmp_path, epochs=3, metrics=(0.1, 0.9, 0.2)).go()
    (tmp_path / "model.pt").unlink()
    with caplog.at_level("WARNING", "bundle"):
        Trainer(tmp_path, epochs=5, metrics=(0.1, 0.9, 0.2, 0.4, 0.3), patience=2).go()
    assert weight(tmp_path / "model.pt") == 16 and "model.pt' is missing" in caplog.text


def test_the_best_network_that_was_not_written_is_taken_from_the_last_checkpoint(tmp_path):
    Trainer(tmp_path, epochs=2).go()
    for name in ("model.pt", "patients.json"):
        (tmp_path / name).unlink()
    Trainer(tmp_path, epochs=3, patients=PATIENTS | {"train": ["a", "d"]}).go()
    assert weight(tmp_path / "model.pt") == 8
    assert json.loads((tmp_path / "patients.json").read_text()) == PATIENTS  # of this network, not of later ones


def test_a_training_that_stopped_without_improvement_is_not_continued(tmp_path):
    settings = {"epochs": 9, "metrics": (0.1, 0.3, 0.2, 0.1, 0.1, 0.9, 0.9, 0.9, 0.9), "patience": 2}
    assert Trainer(tmp_path, **settings).go().state.epoch == 4
    assert float(Trainer(tmp_path, **settings).go().network.weight) == 16
    assert Trainer(tmp_path, **settings | {"patience": 4}).go().state.epoch == 9


def test_the_scale_of_float16_losses_and_the_skipped_steps_are_resumed(tmp_path):
    trainer = Trainer(tmp_path)
    trainer.state_dict_user_keys.append("skipped_in_a_row")
    trainer.state.skipped_in_a_row = 7
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=3.0)
    trainer.go()
    again = Trainer(tmp_path)
    again.state_dict_user_keys.append("skipped_in_a_row")
    again.go()
    assert again.scaler.get_scale() == 3 and again.state.skipped_in_a_row == 7


MOVED = [
    {"train": ["a"], "validate": ["b", "d"], "test": ["c"]},
    {"train": ["b"], "validate": [], "test": ["c"]},
    {"train": ["d"], "validate": ["b"], "test": ["a", "c"]},
]


@pytest.mark.parametrize("patients", MOVED)
def test_other_patients_to_select_on_or_trained_ones_to_test_on_are_refused(patients, tmp_path):
    Trainer(tmp_path).go()
    with pytest.raises(InputError, match="trained with other patients: [abd] is .*restore the data.*--ckpt_dir"):
        Trainer(tmp_path, epochs=4, patients=patients).go()


def test_patients_added_to_or_removed_from_the_training_part_are_all_recorded(tmp_path):
    Trainer(tmp_path, epochs=2).go()
    Trainer(tmp_path, metrics=(0.1, 0.3, 0.4), patients=PATIENTS | {"train": ["d"]}).go()
    assert json.loads((tmp_path / "patients.json").read_text()) == PATIENTS | {"train": ["a", "d"]}


def test_a_checkpoint_of_another_version_or_program_is_refused_in_one_sentence(tmp_path):
    for content in ({"network": {}, "settings": {}, "iteration": 4, "best": [0.1, 1]}, {"engine": {}}, ["engine"], 1):
        save_checkpoint(content, tmp_path / "last.ckpt")
        with pytest.raises(InputError, match="written by another version.*--resume False"):
            Trainer(tmp_path).go()


def schedule_of(length, rate=0.1, decay=0.01):
    weights = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(weights.parameters(), lr=rate, weight_decay=decay)
    return weights, optimizer, WarmupCosineSchedule(optimizer, warmup_steps=3, t_total=length)


def rates(optimizer, scheduler, steps):
    seen = []
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        seen.append(optimizer.param_groups[0]["lr"])
    return seen


@pytest.mark.parametrize(("length", "rate"), [(20, 0.1), (40, 0.1), (20, 0.02), (12, 0.1)])
def test_a_resumed_schedule_is_that_of_the_new_length_and_rate(length, rate):
    weights, optimizer, scheduler = schedule_of(20)
    weights(torch.ones(1, 2)).sum().backward()
    rates(optimizer, scheduler, 10)
    saved = optimizer.state_dict(), scheduler.state_dict()
    _, again, resumed = schedule_of(length, rate, decay=0.5)
    restore(again, saved[0])
    restore(resumed, saved[1])
    assert again.param_groups[0]["weight_decay"] == 0.5
    first = again.state_dict()["state"][0], saved[0]["state"][0]
    assert all(torch.equal(first[0][name], first[1][name]) for name in ("exp_avg", "exp_avg_sq", "step"))
    left = rates(again, resumed, length - 10)
    _, fresh, whole = schedule_of(length, rate)
    assert left == rates(fresh, whole, length)[10:] and left == sorted(left, reverse=True) and left[-1] == 0


def test_equal_checkpoints_are_equal_files(tmp_path):
    content = {"a": torch.ones(3)}
    save_checkpoint(content, tmp_path / "one.pt")
    save_checkpoint(content, tmp_path / "other.pt")
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "other.pt").read_bytes()


def test_a_training_with_other_settings_is_refused_with_both_values(tmp_path):
    Trainer(tmp_path, cohort="brats2018", fold=0).go()
    with pytest.raises(
        InputError, match="with cohort = brats2018, but cohort is now brats2021; set it back.*--ckpt_dir"
    ):
        Trainer(tmp_path, cohort="brats2021", fold=0).go()


def test_a_training_may_be_resumed_with_another_patch_size(tmp_path):
    """As the shipped weights were; the record is that of the patches that the best network saw last."""
    Trainer(tmp_path, epochs=1, patch_size=[64], cohort="msd", spacing=[1, 1, 1]).go()
    Trainer(tmp_path, epochs=2, patch_size=[96], cohort="msd", spacing=[1, 1, 1]).go()
    assert json.loads((tmp_path / "settings.json").read_text())["patch_size"] == [96]
    with pytest.raises(InputError, match="with spacing = .1, 1, 1., but spacing is now .2, 2, 2."):
        Trainer(tmp_path, epochs=3, patch_size=[96], cohort="msd", spacing=[2, 2, 2]).go()


def test_an_after_treatment_stays_until_the_network_that_it_was_fitted_to_is_replaced(tmp_path):
    path = tmp_path / "after_treatment.json"
    Trainer(tmp_path, epochs=1, metrics=(0.5,)).go()
    path.write_text("{}")
    Trainer(tmp_path, epochs=2, metrics=(0.5, 0.4)).go()
    assert path.exists()
    Trainer(tmp_path, epochs=3, metrics=(0.5, 0.4, 0.6)).go()
    assert not path.exists()


def test_a_new_training_moves_the_old_checkpoints_aside(tmp_path):
    Trainer(tmp_path).go()
    (tmp_path / "after_treatment.json").write_text("{}")  # fitted to these weights
    Trainer(tmp_path, epochs=1, resume=False).go()
    assert [path.parent.name for path in tmp_path.rglob("after_treatment.json")] == ["before-1"]
    Trainer(tmp_path, epochs=1, resume=False).go()
    assert weight(tmp_path / "last.ckpt") == 4
    assert weight(tmp_path / "before-1" / "last.ckpt") == 12
    assert weight(tmp_path / "before-2" / "last.ckpt") == 4


def test_with_a_client_that_loads_the_weights_nothing_is_resumed_or_moved_aside(tmp_path):
    Trainer(tmp_path).go()
    assert float(Trainer(tmp_path, metrics=(0.1,) * 3, resume=None).go().network.weight) == 12
    assert weight(tmp_path / "model.pt") == 4 and not (tmp_path / "before-1").exists()


def test_a_failed_write_does_not_change_the_old_file(tmp_path):
    path = tmp_path / "last.ckpt"
    save_checkpoint({"a": 1}, path)
    with pytest.raises(Exception, match="pickle|local object"):
        save_checkpoint({"a": lambda: None}, path)
    assert read_checkpoint(path) == {"a": 1}


def test_a_missing_truncated_or_foreign_checkpoint_gives_one_clear_sentence(tmp_path):
    path = tmp_path / "model.pt"
    with pytest.raises(InputError, match="does not exist; train first"):
        read_checkpoint(path)
    save_checkpoint(nn.Linear(100, 100).state_dict(), path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="is not a complete checkpoint"):
        read_checkpoint(path)
    (tmp_path / "settings.json").write_text('{"size": "full", "fold": 0, "modalities": ["T1", "FLAIR"]}')
    with pytest.raises(
        InputError, match="Give the bundle, recipe, norm, head and network_def that it was trained with.$"
    ):
        load_weights(nn.Linear(3, 2), nn.Linear(4, 2).state_dict(), path)  # what is recorded was compared before
    (tmp_path / "settings.json").unlink()
    with pytest.raises(
        InputError, match="another network: 1 of 2 weights differ.*'weight'.*size, norm, modalities, head"
    ):
        load_weights(nn.Linear(3, 2), nn.Linear(4, 2).state_dict(), path)
