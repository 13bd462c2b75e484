"""Attention blocks for 2-D and 3-D feature maps. The output (B, C, *S) has the shape of the input."""

import torch
from monai.networks.blocks import ChannelSELayer
from monai.networks.layers.factories import Conv
from torch import nn


class SpatialAttention(nn.Module):
    """Scale each voxel by a gate in (0, 1) computed from the channel mean and maximum around it (Woo et al., 2018).

    The gate is the sigmoid of one convolution over the two maps. This is the spatial half of CBAM (arXiv:1807.06521).

    Args:
        spatial_dims: 2 or 3.
        kernel_size: size of the neighbourhood in voxels, odd. The paper uses 7 in 2-D; in 3-D on a CPU, 7 costs as much
            as four convolutions of 16 channels, and 3 as much as one.
    """

    def __init__(self, spatial_dims: int, kernel_size: int = 3) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}.")
        self.score = Conv[Conv.CONV, spatial_dims](2, 1, kernel_size, padding=kernel_size // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = torch.cat((x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)), dim=1)  # (B, 2, *S)
        return x * self.score(pooled).sigmoid()  # (B, C, *S) * (B, 1, *S)


class ChannelAttention(nn.Module):
    """Scale each channel by a gate in (0, 1) computed from its mean and its maximum over space (Woo et al., 2018).

    Mean and maximum pass through one shared two-layer perceptron. This is the channel half of CBAM (arXiv:1807.06521).

    Args:
        channels: channels of the input and output.
        reduction: the hidden layer has `channels // reduction` units, but at least one.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.score = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(2)  # (B, C, voxels)
        gate = (self.score(flat.mean(dim=2)) + self.score(flat.amax(dim=2))).sigmoid()  # (B, C)
        return x * gate.reshape(gate.shape + (1,) * (x.dim() - 2))


def _spatial(spatial_dims: int, channels: int) -> nn.Module:
    return SpatialAttention(spatial_dims)


def _channel(spatial_dims: int, channels: int) -> nn.Module:
    return ChannelSELayer(spatial_dims, channels, r=8)  # squeeze-and-excitation (Hu et al., 2018)


def _cbam(spatial_dims: int, channels: int) -> nn.Module:
    return nn.Sequential(ChannelAttention(channels), SpatialAttention(spatial_dims))  # in the order of the paper


def _none(spatial_dims: int, channels: int) -> nn.Module:
    return nn.Identity()


ATTENTION = {"spatial": _spatial, "channel": _channel, "cbam": _cbam, "none": _none}


def attention_block(name: str, spatial_dims: int, channels: int) -> nn.Module:
    """The attention block called `name` (a key of `ATTENTION`) for feature maps with `channels` channels."""
    if name not in ATTENTION:
        raise ValueError(f"attention must be one of {', '.join(ATTENTION)}, got '{name}'.")
    return ATTENTION[name](spatial_dims, channels)
