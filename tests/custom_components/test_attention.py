import pytest
import torch
from custom_components.attention import ATTENTION, ChannelAttention, SpatialAttention, attention_block

SIZE = (6, 5, 4)  # odd and unequal, so that mixed-up axes are noticed
dims = pytest.mark.parametrize("spatial_dims", [2, 3])
names = pytest.mark.parametrize("name", list(ATTENTION))


def features(spatial_dims, channels=8):
    return torch.rand(2, channels, *SIZE[:spatial_dims]) * 9 + 1


@dims
def test_spatial_attention_gives_all_channels_of_a_voxel_the_same_gate(spatial_dims):
    x = features(spatial_dims)
    gate = SpatialAttention(spatial_dims)(x) / x
    assert torch.allclose(gate, gate[:, :1].expand_as(gate), atol=1e-5)
    assert gate.flatten(2).std(dim=2).min() > 1e-4  # and voxels differ


@dims
def test_spatial_attention_is_the_convolution_of_mean_and_maximum_over_channels(spatial_dims):
    x, block = features(spatial_dims), SpatialAttention(spatial_dims, kernel_size=1)
    weight, bias = block.score.weight.flatten(), block.score.bias
    expected = x * torch.sigmoid(weight[0] * x.mean(1, True) + weight[1] * x.max(1, True).values + bias)
    assert torch.allclose(block(x), expected, atol=1e-5)


@dims
def test_spatial_attention_depends_only_on_voxels_within_its_kernel(spatial_dims):
    x = features(spatial_dims)
    moved = x.clone()
    moved[(slice(None), slice(None), *(-1,) * spatial_dims)] += 5
    block = SpatialAttention(spatial_dims, kernel_size=3)
    changed = (block(x) - block(moved)).abs().sum(dim=(0, 1)) > 1e-6
    near = torch.zeros_like(changed)
    near[(slice(-2, None),) * spatial_dims] = True
    assert changed.any() and not (changed & ~near).any()


def test_spatial_attention_refuses_an_even_kernel():
    with pytest.raises(ValueError, match="kernel_size must be odd, got 4"):
        SpatialAttention(3, kernel_size=4)


@dims
def test_channel_attention_gives_every_voxel_of_a_channel_the_same_gate(spatial_dims):
    x = features(spatial_dims)
    gate = (ChannelAttention(8, reduction=1)(x) / x).flatten(2)  # (B, C, voxels)
    assert torch.allclose(gate, gate[..., :1].expand_as(gate), atol=1e-5)
    assert gate[..., 0].std(dim=1).min() > 1e-4  # and channels differ


@dims
def test_channel_attention_adds_the_scores_of_mean_and_maximum(spatial_dims):
    x, block = features(spatial_dims), ChannelAttention(8, reduction=2)
    axes = tuple(range(2, x.dim()))
    gate = torch.sigmoid(block.score(x.mean(axes)) + block.score(x.amax(axes)))
    assert torch.allclose(block(x), x * gate.reshape(2, 8, *[1] * spatial_dims), atol=1e-5)


@dims
def test_cbam_attends_channels_first_then_space(spatial_dims):
    x, block = features(spatial_dims), attention_block("cbam", spatial_dims, 8)
    assert [type(part) for part in block] == [ChannelAttention, SpatialAttention]
    assert torch.allclose(block(x), block[1](block[0](x)))


@dims
@names
def test_every_attention_keeps_the_shape_and_scripts(name, spatial_dims):
    x, block = features(spatial_dims, 16), attention_block(name, spatial_dims, 16).eval()
    assert block(x).shape == x.shape
    assert torch.allclose(torch.jit.script(block)(x), block(x), atol=1e-6)


@dims
@names
def test_gradients_reach_every_parameter_of_an_attention(name, spatial_dims):
    torch.manual_seed(0)
    block = attention_block(name, spatial_dims, 64)  # 8 hidden units: not all of them dead
    x = features(spatial_dims, 64).requires_grad_()
    block(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in [x, *block.parameters()])


def test_an_unknown_attention_is_refused_with_the_list_of_known_names():
    with pytest.raises(ValueError, match="spatial, channel, cbam, none, got 'spatail'"):
        attention_block("spatail", 3, 8)
