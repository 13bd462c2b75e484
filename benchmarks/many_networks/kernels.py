"""Triton kernels for a GPU: normalisation in training, and cutting patches out of volumes.

PyTorch's own normalisation of 3-D features uses one block of threads per channel and so leaves most of a large GPU
idle. Here each row (one channel of one sample) is divided into parts: one kernel sums each part, the next adds these
sums and normalises.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import nn

BLOCK = 1024  # voxels that a program handles at a time


@triton.jit
def sum_parts(x, g, out, N, P, LOOP: tl.constexpr, BLOCK: tl.constexpr, WITH_G: tl.constexpr):
    """The sums of x and x², or with g those of g and g·x, of one part of one row."""
    row = tl.program_id(0)
    part = tl.program_id(1)
    first = tl.zeros((BLOCK,), tl.float32)
    second = tl.zeros((BLOCK,), tl.float32)
    base = row.to(tl.int64) * N
    for i in range(LOOP):
        at = (part * LOOP + i) * BLOCK + tl.arange(0, BLOCK)
        v = tl.load(x + base + at, mask=at < N, other=0).to(tl.float32)
        if WITH_G:
            w = tl.load(g + base + at, mask=at < N, other=0).to(tl.float32)
            first += w
            second += w * v
        else:
            first += v
            second += v * v
    tl.store(out + (row * P + part) * 2, tl.sum(first))
    tl.store(out + (row * P + part) * 2 + 1, tl.sum(second))


@triton.jit
def sum_row(parts, row, B: tl.constexpr, C, P, PP: tl.constexpr, BATCH: tl.constexpr):
    """Both sums of a row, or with BATCH those of its channel over the batch."""
    p = tl.arange(0, PP)
    a = 0.0
    b = 0.0
    if BATCH:
        for i in tl.static_range(B):
            at = ((i * C + row % C) * P + p) * 2
            a += tl.sum(tl.load(parts + at, mask=p < P, other=0))
            b += tl.sum(tl.load(parts + at + 1, mask=p < P, other=0))
    else:
        at = (row * P + p) * 2
        a += tl.sum(tl.load(parts + at, mask=p < P, other=0))
        b += tl.sum(tl.load(parts + at + 1, mask=p < P, other=0))
    return a, b


@triton.jit
def normalise_forward(
    x, parts, weight, bias, y, stats, running_mean, running_var, N, B: tl.constexpr, C, P, eps, momentum,
    LOOP: tl.constexpr, BLOCK: tl.constexpr, PP: tl.constexpr, BATCH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    part = tl.program_id(1)
    c = row % C
    a, b = sum_row(parts, row, B, C, P, PP, BATCH)
    n = N * 1.0
    if BATCH:
        n = n * B
    mean = a / n
    var = tl.maximum(b / n - mean * mean, 0.0)
    inverse = 1.0 / tl.sqrt(var + eps)
    scale = tl.load(weight + c) * inverse
    shift = tl.load(bias + c) - mean * scale
    if part == 0:
        tl.store(stats + row * 2, mean)
        tl.store(stats + row * 2 + 1, inverse)
        if BATCH:
            if row < C:
                old = tl.load(running_mean + c)
                tl.store(running_mean + c, old + momentum * (mean - old))
                old = tl.load(running_var + c)
                tl.store(running_var + c, old + momentum * (var * n / (n - 1) - old))
    base = row.to(tl.int64) * N
    for i in range(LOOP):
        at = (part * LOOP + i) * BLOCK + tl.arange(0, BLOCK)
        v = tl.load(x + base + at, mask=at < N, other=0).to(tl.float32)
        tl.store(y + base + at, (v * scale + shift).to(y.dtype.element_ty), mask=at < N)


@triton.jit
def normalise_backward(
    x, g, parts, weight, stats, dx, dparameters, N, B: tl.constexpr, C, P,
    LOOP: tl.constexpr, BLOCK: tl.constexpr, PP: tl.constexpr, BATCH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    part = tl.program_id(1)
    sum_g, sum_gx = sum_row(parts, row, B, C, P, PP, BATCH)
    n = N * 1.0
    if BATCH:
        n = n * B
    mean = tl.load(stats + row * 2)
    inverse = tl.load(stats + row * 2 + 1)
    dot = inverse * (sum_gx - mean * sum_g)  # the sum of g · normalised x
    if part == 0:
        tl.store(dparameters + row * 2, dot)
        tl.store(dparameters + row * 2 + 1, sum_g)
    a = tl.load(weight + row % C) * inverse
    b = -a * inverse * dot / n
    k = -a * sum_g / n - b * mean
    base = row.to(tl.int64) * N
    for i in range(LOOP):
        at = (part * LOOP + i) * BLOCK + tl.arange(0, BLOCK)
        v = tl.load(x + base + at, mask=at < N, other=0).to(tl.float32)
        w = tl.load(g + base + at, mask=at < N, other=0).to(tl.float32)
        tl.store(dx + base + at, (a * w + b * v + k).to(dx.dtype.element_ty), mask=at < N)


def plan(x: torch.Tensor) -> tuple[int, int, int, int, int, int]:
    """Of features (B, C, *S): B, C, voxels per row, blocks per part, parts, and parts rounded up to a power of two."""
    voxels, loop = x[0, 0].numel(), 1
    while loop * BLOCK * 32 < voxels and loop < 64:
        loop *= 2
    parts = triton.cdiv(voxels, loop * BLOCK)
    return x.shape[0], x.shape[1], voxels, loop, parts, triton.next_power_of_2(parts)


class Normalise(torch.autograd.Function):
    """Batch or instance normalisation of (B, C, *S) with weight and bias, in training."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Any, weight: Any, bias: Any, mean: Any, var: Any, eps: float, momentum: float, batch: bool
    ) -> Any:
        x = x.contiguous()
        B, C, N, LOOP, P, PP = plan(x)
        parts = torch.empty(B * C, P, 2, device=x.device)
        stats = torch.empty(B * C, 2, device=x.device)
        y = torch.empty_like(x)
        sum_parts[B * C, P](x, x, parts, N, P, LOOP=LOOP, BLOCK=BLOCK, WITH_G=False)
        normalise_forward[B * C, P](
            x, parts, weight, bias, y, stats, mean, var, N, B, C, P, eps, momentum,
            LOOP=LOOP, BLOCK=BLOCK, PP=PP, BATCH=batch,
        )  # fmt: skip
        ctx.save_for_backward(x, weight, stats)
        ctx.batch = batch
        return y

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:  # type: ignore[override]
        x, weight, stats = ctx.saved_tensors
        g = g.contiguous()
        B, C, N, LOOP, P, PP = plan(x)
        parts = torch.empty(B * C, P, 2, device=x.device)
        dparameters = torch.empty(B * C, 2, device=x.device)
        dx = torch.empty_like(x)
        sum_parts[B * C, P](x, g, parts, N, P, LOOP=LOOP, BLOCK=BLOCK, WITH_G=True)
        normalise_backward[B * C, P](
            x, g, parts, weight, stats, dx, dparameters, N, B, C, P, LOOP=LOOP, BLOCK=BLOCK, PP=PP, BATCH=ctx.batch
        )
        d = dparameters[:C] if ctx.batch else dparameters.view(B, C, 2).sum(0)
        return dx, d[:, 0], d[:, 1], None, None, None, None, None


class FastBatchNorm(nn.BatchNorm3d):
    """BatchNorm3d by the kernels of this file while it trains."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        state = self.running_mean, self.running_var, self.eps, self.momentum
        return Normalise.apply(x, self.weight, self.bias, *state, True)


class FastInstanceNorm(nn.InstanceNorm3d):
    """InstanceNorm3d with weight and bias by the kernels of this file."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Normalise.apply(x, self.weight, self.bias, x, x, self.eps, 0.0, False)


def replace_norms(module: nn.Module) -> None:
    """Replace PyTorch's normalisations in a network; the names and values of its weights stay."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm3d:
            fast: nn.Module = FastBatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
        elif type(child) is nn.InstanceNorm3d and child.affine:
            fast = FastInstanceNorm(child.num_features, eps=child.eps, affine=True)
        else:
            replace_norms(child)
            continue
        fast.load_state_dict(child.state_dict())
        setattr(module, name, fast.to(child.weight.device))


@triton.jit
def cut_kernel(volumes, labels, case, matrix, image, label, X, Y, Z, P, C: tl.constexpr, BLOCK: tl.constexpr):
    b = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    n = P * P * P
    ok = at < n
    i = (at // (P * P)).to(tl.float32)
    j = ((at // P) % P).to(tl.float32)
    k = (at % P).to(tl.float32)
    m = matrix + b * 12
    x = tl.load(m) * i + tl.load(m + 1) * j + tl.load(m + 2) * k + tl.load(m + 3)
    y = tl.load(m + 4) * i + tl.load(m + 5) * j + tl.load(m + 6) * k + tl.load(m + 7)
    z = tl.load(m + 8) * i + tl.load(m + 9) * j + tl.load(m + 10) * k + tl.load(m + 11)
    x0 = tl.floor(x)
    y0 = tl.floor(y)
    z0 = tl.floor(z)
    dx = x - x0
    dy = y - y0
    dz = z - z0
    xi = x0.to(tl.int32)
    yi = y0.to(tl.int32)
    zi = z0.to(tl.int32)
    which = tl.load(case + b).to(tl.int64)
    one = X * Y * Z
    for c in tl.static_range(C):
        total = tl.zeros((BLOCK,), tl.float32)
        base = volumes + (which * C + c) * one
        for corner in tl.static_range(8):
            xa = xi + (corner // 4)
            ya = yi + (corner // 2) % 2
            za = zi + corner % 2
            wx = dx if corner // 4 == 1 else 1 - dx
            wy = dy if (corner // 2) % 2 == 1 else 1 - dy
            wz = dz if corner % 2 == 1 else 1 - dz
            inside = ok & (xa >= 0) & (xa < X) & (ya >= 0) & (ya < Y) & (za >= 0) & (za < Z)
            total += wx * wy * wz * tl.load(base + (xa * Y + ya) * Z + za, mask=inside, other=0).to(tl.float32)
        tl.store(image + (b * C + c).to(tl.int64) * n + at, total, mask=ok)
    xa = tl.floor(x + 0.5).to(tl.int32)
    ya = tl.floor(y + 0.5).to(tl.int32)
    za = tl.floor(z + 0.5).to(tl.int32)
    inside = ok & (xa >= 0) & (xa < X) & (ya >= 0) & (ya < Y) & (za >= 0) & (za < Z)
    value = tl.load(labels + which * one + (xa * Y + ya) * Z + za, mask=inside, other=0)
    tl.store(label + b.to(tl.int64) * n + at, value, mask=ok)


def cut(
    volumes: torch.Tensor, labels: torch.Tensor, case: torch.Tensor, matrix: torch.Tensor, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `patches.cut`, by one kernel."""
    batch, channels, shape = len(case), volumes.shape[1], volumes.shape[2:]
    image = torch.empty(batch, channels, size, size, size, device=volumes.device)
    label = torch.empty(batch, size, size, size, dtype=torch.uint8, device=volumes.device)
    cut_kernel[batch, triton.cdiv(size**3, BLOCK)](
        volumes, labels, case, matrix.contiguous(), image, label, *shape, size, C=channels, BLOCK=BLOCK
    )
    return image, label
