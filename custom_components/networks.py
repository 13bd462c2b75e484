"""Networks that MONAI lacks, each MONAI's DynUNet with one thing changed through its hooks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetResBlock, UnetUpBlock
from monai.networks.layers.factories import Dropout
from monai.networks.nets import DynUNet
from monai.networks.nets.attentionunet import AttentionBlock
from monai.networks.utils import pixelshuffle
from torch import nn
from torch.utils.checkpoint import checkpoint

from .attention import attention_block


class GatedUpBlock(UnetUpBlock):
    """MONAI's up block whose skip passes an attention gate, steered by the up-sampled features (Oktay et al., 2018)."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, **kwargs: Any) -> None:
        super().__init__(spatial_dims, in_channels, out_channels, **kwargs)
        self.gate = AttentionBlock(spatial_dims, f_int=max(out_channels // 2, 1), f_g=out_channels, f_l=out_channels)

    def forward(self, inp: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        up = self.transp_conv(inp)
        return self.conv_block(torch.cat((up, self.gate(up, skip)), dim=1))


class AttentionGatedUNet(DynUNet):
    """DynUNet with attention gates on the skips (Oktay et al., 2018, arXiv:1804.03999).

    Takes the arguments of `monai.networks.nets.DynUNet`. MONAI's own AttentionUnet has other blocks and batch
    normalisation; here the gates alone set it apart from the 3D U-Net, so the two can be compared.
    """

    def get_module_list(self, *args: Any, **kwargs: Any) -> nn.ModuleList:
        gated: list[Any] = [GatedUpBlock if argument is UnetUpBlock else argument for argument in args]
        return super().get_module_list(*gated, **kwargs)


class NeuroSeg3D(DynUNet):
    """Residual DynUNet with an attention block after every stage of the encoder.

    Args:
        attention: `spatial` (Woo et al., 2018), `channel` (Hu et al., 2018), `cbam` (Woo et al., 2018) or `none`.
        dropout: probability of dropping a whole feature map after a stage of the encoder (Tompson et al., 2015). The
            dropout of DynUNet itself drops single voxels, and of the logits too.
        res_block: whether the blocks of the encoder are residual.
        kwargs: the other arguments of `monai.networks.nets.DynUNet`.
    """

    def __init__(
        self, *, attention: str = "spatial", dropout: float = 0.0, res_block: bool = True, **kwargs: Any
    ) -> None:
        self.attention, self.drop = attention, dropout  # the hooks below run inside the next line
        super().__init__(res_block=res_block, **kwargs)

    def _attended(self, block: nn.Module, channels: int) -> nn.Module:
        drop = Dropout[Dropout.DROPOUT, self.spatial_dims](self.drop)
        return nn.Sequential(block, attention_block(self.attention, self.spatial_dims, channels), drop)

    def get_input_block(self) -> nn.Module:
        return self._attended(super().get_input_block(), self.filters[0])

    def get_downsamples(self) -> nn.ModuleList:
        blocks = super().get_downsamples()
        return nn.ModuleList(self._attended(b, c) for b, c in zip(blocks, self.filters[1:-1], strict=True))

    def get_bottleneck(self) -> nn.Module:
        return self._attended(super().get_bottleneck(), self.filters[-1])


class Coarse(nn.Module):
    """Run a network at a fraction of the resolution: space to depth before it, depth to space after (Shi et al., 2016).

    With a factor of 2 no convolution works at full resolution and a step costs about an eighth; each coarse voxel still
    sees all its fine ones and answers for each of them. The last layer starts near the same answer for every voxel, one
    that is rarely wrong (Aitken et al., 2017; Lin et al., 2017): training need not first unlearn noise.

    Args:
        network: takes `factor**spatial_dims` times the channels of the input and of the output, and ends in
            `output_block`, as DynUNet does.
        spatial_dims: 2 or 3.
        factor: how many voxels of an edge become one; 1 keeps the network at full resolution.
        start: the logit that every voxel starts with, one for all channels of the output or one for each.
        checkpointing: whether the activations of each block are computed anew in the backward pass (Chen et al., 2016):
            less memory, about a third more time. Not for TorchScript.
    """

    def __init__(
        self,
        network: DynUNet,
        spatial_dims: int,
        factor: int = 1,
        start: float | Sequence[float] = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.spatial_dims = spatial_dims
        self.factor = factor
        for block in network.modules() if checkpointing else []:
            if isinstance(block, UnetBasicBlock | UnetResBlock):
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
        last = network.output_block.conv.conv
        with torch.no_grad():
            last.weight.copy_(0.1 * last.weight[:: factor**spatial_dims].repeat_interleave(factor**spatial_dims, dim=0))
            last.bias.unflatten(0, (-1, factor**spatial_dims)).copy_(torch.as_tensor(start).reshape(-1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, R, *S) of an image (B, C, *S) whose edges are multiples of `factor`."""
        if self.factor == 1:
            return self.network(x)
        fine: list[int] = [x.shape[0], x.shape[1]]
        coarse: list[int] = [x.shape[0], -1]
        order: list[int] = [0, 1]
        for axis in range(self.spatial_dims):
            fine += [x.shape[axis + 2] // self.factor, self.factor]
            coarse += [x.shape[axis + 2] // self.factor]
            order += [3 + 2 * axis]
        order += [2 + 2 * axis for axis in range(self.spatial_dims)]
        y = self.network(x.reshape(fine).permute(order).reshape(coarse))  # (B, C * factor^dims, *S / factor)
        return pixelshuffle(y, self.spatial_dims, self.factor)
