from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tools.handlers import ClipGradients, StopWhenStale


def stepped(gradient, max_norm=1.0):
    """How far one step moves two weights, given their gradient."""
    network = nn.Linear(2, 1, bias=False)
    before = network.weight.detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    network.weight.grad = torch.tensor([gradient])
    ClipGradients(network, max_norm).clip(SimpleNamespace(scaler=None, optimizer=optimizer))
    optimizer.step()
    return (before - network.weight.detach()).flatten()


def test_long_gradients_are_scaled_to_the_norm_and_short_ones_kept():
    assert torch.allclose(stepped([3.0, 4.0]), torch.tensor([0.6, 0.8]), atol=1e-4)
    assert torch.allclose(stepped([0.3, 0.4]), torch.tensor([0.3, 0.4]), atol=1e-4)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_step_whose_gradient_overflowed_is_skipped(value):
    assert torch.equal(stepped([value, 1.0]), torch.zeros(2))


@pytest.mark.parametrize(("epoch", "patience", "stops"), [(9, 5, False), (10, 5, True), (99, 0, False)])
def test_training_stops_when_the_best_validation_is_patience_epochs_old(epoch, patience, stops):
    validator = SimpleNamespace(state=SimpleNamespace(best_metric_epoch=5))
    stopped = []
    engine = SimpleNamespace(state=SimpleNamespace(epoch=epoch), terminate=lambda: stopped.append(True))
    StopWhenStale(validator, patience).stop_if_stale(engine)
    assert bool(stopped) is stops
