"""A network that averages the predictions of others."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional


class Ensemble(nn.Module):
    """Average the probabilities of several networks; the output are logits, as of one network.

    The average is computed from logarithms, so it is exact where a probability is 0 or 1 in float32. One member gives
    its own logits, bit for bit.

    Args:
        members: networks with the same input and output. Members with deep supervision are averaged output by output.
        activation: `sigmoid` for channels that overlap, `softmax` for channels that exclude each other.

    Raises:
        ValueError: there is no member, or `activation` is neither of the two.
    """

    def __init__(self, members: Sequence[nn.Module], activation: str) -> None:
        super().__init__()
        if not members:
            raise ValueError("members is empty; an ensemble needs one network or more.")
        if activation not in ("sigmoid", "softmax"):
            raise ValueError(f"activation must be sigmoid or softmax; it is '{activation}'.")
        self.members = nn.ModuleList(members)
        self.exclusive = activation == "softmax"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, R, *S) of an image (B, C, *S)."""
        outputs: list[torch.Tensor] = []
        for member in self.members:
            outputs.append(member(x))
        if len(outputs) == 1:
            return outputs[0]
        logits = torch.stack(outputs).float()  # (N, B, R, *S)
        if self.exclusive:
            return functional.log_softmax(logits, dim=1 - x.dim()).logsumexp(0) - math.log(len(outputs))
        # -softplus(-x) is logsigmoid(x), which an ONNX file computes as log(sigmoid(x)): minus infinity below -100
        return (-functional.softplus(-logits)).logsumexp(0) - (-functional.softplus(logits)).logsumexp(0)
