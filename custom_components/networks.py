"""Networks that MONAI lacks. Each is MONAI's DynUNet with one change, made through its hooks."""

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
    """MONAI's up block with an attention gate on the skip connection (Oktay et al., 2018).

    The upsampled features are the gating signal.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, **kwargs: Any) -> None:
        super().__init__(spatial_dims, in_channels, out_channels, **kwargs)
        self.gate = AttentionBlock(spatial_dims, f_int=max(out_channels // 2, 1), f_g=out_channels, f_l=out_channels)

    def forward(self, inp: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        up = self.transp_conv(inp)
        return self.conv_block(torch.cat((up, self.gate(up, skip)), dim=1))


class AttentionGatedUNet(DynUNet):
    """DynUNet with attention gates on the skip connections (Oktay et al., 2018, arXiv:1804.03999).

    It takes the arguments of `monai.networks.nets.DynUNet`. MONAI's own AttentionUnet has other blocks and batch
    normalisation; this network differs from the 3D U-Net only in its gates, so the two can be compared.
    """

    def get_module_list(self, *args: Any, **kwargs: Any) -> nn.ModuleList:
        gated: list[Any] = [GatedUpBlock if argument is UnetUpBlock else argument for argument in args]
        return super().get_module_list(*gated, **kwargs)


class NeuroSeg3D(DynUNet):
    """Residual DynUNet with an attention block after every encoder stage.

    Args:
        attention: `spatial` (Woo et al., 2018), `channel` (Hu et al., 2018), `cbam` (Woo et al., 2018) or `none`.
        dropout: probability of dropping a complete feature map after an encoder stage (Tompson et al., 2015). DynUNet's
            own dropout drops single voxels, also those of the logits.
        res_block: whether the encoder blocks are residual.
        kwargs: other arguments of `monai.networks.nets.DynUNet`.
    """

    def __init__(
        self, *, attention: str = "spatial", dropout: float = 0.0, res_block: bool = True, **kwargs: Any
    ) -> None:
        self.attention, self.drop = attention, dropout  # needed by the hooks below, which the next line calls
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
    """Run a network at reduced resolution: space to depth before it, depth to space after it (Shi et al., 2016).

    With a factor of 2 no convolution works at full resolution and a step costs about an eighth. Each coarse voxel
    carries all its fine voxels as channels and predicts each of them. The last layer starts near the constant `start`
    (Aitken et al., 2017; Lin et al., 2017), so training does not begin from noise.

    Args:
        network: has `factor**spatial_dims` times as many input and output channels, and ends with `output_block`, as
            DynUNet does.
        spatial_dims: 2 or 3.
        factor: how many voxels per axis are combined into one; 1 keeps the network at full resolution.
        start: initial logit of every voxel, one value for all output channels or one per channel.
        checkpointing: whether the activations of each block are recomputed in the backward pass (Chen et al., 2016):
            less memory, about a third more time. TorchScript does not support it.
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
        """Logits (B, R, *S) of an image (B, C, *S). Each spatial size must be a multiple of `factor`."""
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
