import math

import pytest
import torch
from custom_components.ensemble import Ensemble
from monai.networks.nets import DynUNet

dims = pytest.mark.parametrize("spatial_dims", [2, 3])
SIZE = (6, 5, 4)


def conv(spatial_dims, scale=1.0):
    layer = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[spatial_dims](4, 3, 1)
    torch.nn.init.normal_(layer.weight, std=scale)
    return layer


def image(spatial_dims):
    return torch.randn(2, 4, *SIZE[:spatial_dims])


@dims
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_the_probabilities_are_the_mean_of_those_of_the_members(spatial_dims, activation):
    members, x = [conv(spatial_dims, scale) for scale in (0.1, 1, 5)], image(spatial_dims)
    probable = {"sigmoid": torch.sigmoid, "softmax": lambda logits: logits.softmax(1)}[activation]
    expected = torch.stack([probable(member(x)) for member in members]).mean(0)
    assert torch.allclose(probable(Ensemble(members, activation)(x)), expected, atol=1e-6)


@dims
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_an_ensemble_of_one_member_is_the_member_bit_for_bit(spatial_dims, activation):
    member, x = conv(spatial_dims, 9.0), image(spatial_dims)
    assert torch.equal(Ensemble([member], activation)(x), member(x))


def test_logits_stay_finite_and_exact_where_a_probability_is_1_in_float32():
    x = torch.full((1, 1, 2, 2), 60.0)
    away = torch.nn.Conv2d(1, 1, 1, bias=False)
    torch.nn.init.constant_(away.weight, -1.0)
    assert torch.allclose(Ensemble([torch.nn.Identity(), torch.nn.Identity()], "sigmoid")(x), x)
    assert torch.allclose(Ensemble([torch.nn.Identity(), away], "sigmoid")(x), torch.zeros_like(x), atol=1e-6)
    third = Ensemble([torch.nn.Identity(), away, away], "sigmoid")(x)  # a probability of 1/3
    assert torch.allclose(third, torch.full_like(x, math.log(0.5)), atol=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_torchscript_computes_the_same_and_gradients_reach_every_member(activation):
    network, x = Ensemble([conv(3), conv(3)], activation), image(3)
    assert torch.allclose(torch.jit.script(network)(x), network(x), atol=1e-6)
    network(x).square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters() if p.dim() > 1)


@dims
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_only_the_final_output_of_deep_supervision_counts_after_training(spatial_dims, activation):
    def supervised():
        return DynUNet(
            spatial_dims, 4, 3, [3] * 3, [1, 2, 2], [2, 2], filters=[8, 8, 8], deep_supervision=True, deep_supr_num=1
        )

    members, x = [supervised(), supervised()], torch.randn(2, 4, *(16, 8, 12)[:spatial_dims])
    network = Ensemble(members, activation)
    assert network(x).shape == (2, 2, 3, *x.shape[2:])  # in training: each output of the members
    dim, probable = (2, torch.softmax) if activation == "softmax" else (None, lambda logits, _: logits.sigmoid())
    outputs = probable(network(x), dim), torch.stack([probable(each(x), dim) for each in members]).mean(0)
    assert torch.allclose(*outputs, atol=1e-6)
    assert network.eval()(x).shape == (2, 3, *x.shape[2:])


@pytest.mark.parametrize(("members", "activation", "part"), [(0, "sigmoid", "members"), (1, "relu", "'relu'")])
def test_wrong_arguments_are_named(members, activation, part):
    with pytest.raises(ValueError, match=part):
        Ensemble([conv(2)] * members, activation)
