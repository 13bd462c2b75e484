import json

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn
from tumour.errors import InputError
from tumour.runs.checkpoints import Checkpoints, load_weights, read_checkpoint, save_checkpoint, to_float16

from tests.conftest import BUNDLES, ROOT
from tools.show import merged


class Trainer(Engine):
    """Counts its steps in a weight; the metric of each validation is given."""

    def __init__(self, folder, epochs=3, metrics=(0.1, 0.3, 0.2), resume=True, **settings):
        self.network = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.network.weight)
        super().__init__(lambda engine, batch: self.network.weight.data.add_(1))
        self.validator = Engine(lambda engine, batch: None)
        self.validator.state.best_metric, self.validator.state.best_metric_epoch = -1, -1
        self.state.max_epochs, self.state.epoch_length = epochs, 4
        self.metrics = metrics
        self.add_event_handler(Events.EPOCH_COMPLETED, self.validate)
        patients = {"train": ["a"], "validate": ["b"], "test": ["c"]}
        saver = Checkpoints(str(folder), {"network": self.network}, self.validator, settings, lambda: patients, resume)
        saver.attach(self)
        self.saver = saver

    def validate(self):
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
    save_checkpoint(to_float16(first.state_dict()), tmp_path / "model.pt")
    load_weights(second, read_checkpoint(tmp_path / "model.pt"), tmp_path / "model.pt")
    save_checkpoint(first.state_dict(), tmp_path / "float32.pt")
    assert (tmp_path / "model.pt").stat().st_size < 0.55 * (tmp_path / "float32.pt").stat().st_size
    with torch.no_grad():
        one, two = (
            network(torch.randn(1, 4, 48, 48, 48, generator=torch.manual_seed(1))) for network in (first, second)
        )
    assert one.dtype == two.dtype == torch.float32 and 0.1 < (one > 0).float().mean() < 0.9
    assert ((one > 0) == (two > 0)).float().mean() > 0.999


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
        again.saver.load(again)
    assert again.state.iteration == 8 and float(again.network.weight) == 8
    assert "Resuming from" in caplog.text


def test_a_finished_training_is_not_trained_again(tmp_path):
    Trainer(tmp_path).go()
    assert float(Trainer(tmp_path).go().network.weight) == 12


def test_a_signal_ends_the_training_after_the_step_and_saves_a_complete_checkpoint(tmp_path):
    trainer = Trainer(tmp_path)
    trainer.add_event_handler(Events.ITERATION_STARTED(once=6), lambda: trainer.saver.note_signal(2, None))
    with pytest.raises(SystemExit) as stop:
        trainer.go()
    assert stop.value.code == 130
    assert weight(tmp_path / "last.ckpt") == 6
    again = Trainer(tmp_path).go()
    assert float(again.network.weight) == 12 and again.state.iteration == 12


def test_a_signal_at_the_end_of_an_epoch_keeps_its_validation(tmp_path):
    trainer = Trainer(tmp_path)
    trainer.add_event_handler(Events.ITERATION_STARTED(once=8), lambda: trainer.saver.note_signal(15, None))
    with pytest.raises(SystemExit) as stop:
        trainer.go()
    assert stop.value.code == 143
    assert weight(tmp_path / "model.pt") == weight(tmp_path / "last.ckpt") == 8


def test_a_training_with_other_settings_is_refused_with_both_values(tmp_path):
    Trainer(tmp_path, cohort="brats2018", fold=0).go()
    with pytest.raises(InputError, match="with cohort = brats2018, but cohort is now brats2021.*--ckpt_dir"):
        Trainer(tmp_path, cohort="brats2021", fold=0).go()


def test_a_training_may_be_resumed_with_another_patch_size_and_from_version_0_1(tmp_path):
    """As the shipped weights were; the record is that of the patches that the best network saw last."""
    Trainer(tmp_path, epochs=1, patch_size=[64], cohort="msd").go()
    Trainer(tmp_path, epochs=2, patch_size=[96], cohort="msd", spacing=[1, 1, 1]).go()
    assert json.loads((tmp_path / "settings.json").read_text())["patch_size"] == [96]
    with pytest.raises(InputError, match="with spacing = .1, 1, 1., but spacing is now .2, 2, 2."):
        Trainer(tmp_path, epochs=3, patch_size=[96], cohort="msd", spacing=[2, 2, 2]).go()


def test_a_new_training_moves_the_old_checkpoints_aside(tmp_path):
    Trainer(tmp_path).go()
    Trainer(tmp_path, epochs=1, resume=False).go()
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
    with pytest.raises(Exception, match="pickle"):
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
    with pytest.raises(InputError, match="Give the bundle, recipe, head and network_def that it was trained with.$"):
        load_weights(nn.Linear(3, 2), nn.Linear(4, 2).state_dict(), path)  # what is recorded was compared before
    (tmp_path / "settings.json").unlink()
    with pytest.raises(InputError, match="another network: 1 of 2 weights differ.*'weight'.*size, modalities, head"):
        load_weights(nn.Linear(3, 2), nn.Linear(4, 2).state_dict(), path)
