"""Augmented patches as a function of random numbers, so that a CUDA graph can contain it."""

from collections.abc import Sequence

import torch
from torch.nn import functional

from benchmarks.many_networks.trials import Trial
from benchmarks.many_networks.volumes import Volumes

NUMBERS = 80  # uniform random numbers per patch; no use of them shares one with another


class Draws:
    """Passes out the columns of uniform random numbers (B, NUMBERS) one after the other."""

    def __init__(self, numbers: torch.Tensor) -> None:
        self.numbers, self.used = numbers, 0

    def __call__(self, count: int) -> torch.Tensor:
        """The next columns, (B, count)."""
        self.used += count
        return self.numbers.narrow(1, self.used - count, count)

    def volume(self, count: int = 1) -> torch.Tensor:
        """The next columns for an image (B, C, *S): (B, count, 1, 1, 1)."""
        return self(count)[:, :, None, None, None]


def cut(
    volumes: torch.Tensor, labels: torch.Tensor, case: torch.Tensor, matrix: torch.Tensor, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut patches out of volumes; beyond a volume both are 0.

    Args:
        volumes: (N, C, X, Y, Z).
        labels: (N, X, Y, Z).
        case: (B,), the volume of each patch.
        matrix: (B, 3, 4), from the voxel of a patch to that of its volume.
        size: side length of a patch in voxels.

    Returns:
        Image (B, C, size, size, size), trilinear, and label (B, size, size, size), of the nearest voxel.
    """
    if volumes.is_cuda:
        from benchmarks.many_networks import kernels  # needs Triton, which only builds of PyTorch for a GPU bring

        return kernels.cut(volumes, labels, case, matrix, size)
    axes = [torch.arange(size, device=volumes.device).float()] * 3
    voxels = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    at = torch.einsum("bij,xyzj->bxyzi", matrix[:, :, :3], voxels) + matrix[:, None, None, None, :, 3]
    extent = torch.tensor(volumes.shape[2:], device=volumes.device)

    def grid(where: torch.Tensor) -> torch.Tensor:
        return (2 * where / (extent - 1) - 1).flip(-1)

    image = functional.grid_sample(volumes[case].float(), grid(at), align_corners=True)
    nearest = grid((at + 0.5).floor())
    label = functional.grid_sample(labels[case][:, None].float(), nearest, mode="nearest", align_corners=True)
    return image, label[:, 0].round().to(torch.uint8)


def rotations(angles: torch.Tensor) -> torch.Tensor:
    """Matrices (B, 3, 3) that rotate by angles (B, 3) in radians about the three axes, the last one first."""
    turn = torch.eye(3, device=angles.device).repeat(len(angles), 1, 1)
    for axis in range(3):
        one, (i, j) = torch.eye(3, device=angles.device).repeat(len(angles), 1, 1), ((axis + 1) % 3, (axis + 2) % 3)
        one[:, i, i] = one[:, j, j] = angles[:, axis].cos()
        one[:, j, i] = angles[:, axis].sin()
        one[:, i, j] = -one[:, j, i]
        turn = turn @ one
    return turn


class Patches:
    """Patches of some cases, with the augmentation of bundles/common/train.yaml and that of a trial.

    Args:
        volumes: all cases.
        trial: the options.
        members: the indices of the cases to use.
    """

    def __init__(self, volumes: Volumes, trial: Trial, members: Sequence[int]) -> None:
        self.volumes, self.trial = volumes, trial
        self.members = torch.tensor(members, device=volumes.image.device)
        total = volumes.present.cumsum(1)
        self.chances = total / total[:, -1:]  # cumulative, each class of a case equally likely

    def place(self, draw: Draws, on_tumour: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Cases (B,) and matrices (B, 3, 4) for `cut`: centred on a class, rotated, scaled and flipped."""
        size = self.trial.patch
        which, kind, point = draw(3).unbind(1)
        case = self.members[(which * len(self.members)).long().clamp(max=len(self.members) - 1)]
        if on_tumour:
            background = self.chances[case, 0]
            kind = background + kind * (1 - background)
        last = self.chances.shape[1] - 1
        chosen = (kind[:, None] >= self.chances[case]).sum(1).clamp(max=last)
        points = self.volumes.centres.shape[2]
        centre = self.volumes.centres[case, chosen, (point * points).long().clamp(max=points - 1)]
        if not on_tumour:  # the patch stays within its case, as far as the case is large enough
            extent, half = self.volumes.sizes[case], size // 2
            within = torch.minimum(centre.clamp(min=half), extent - half)
            centre = torch.where(extent >= size, within, (extent / 2).floor())
        apply = draw(1) < self.trial.affine
        turn = rotations((draw(3) * 2 - 1) * 0.52 * apply)
        scale = 1 + (0.7 * draw(3) - 0.3) * apply
        flip = 2.0 * (draw(3) < 0.5) - 1
        turn = turn * (scale * flip)[:, None]
        shift = centre - 0.5 - turn.sum(2) * (size - 1) / 2
        return case, torch.cat((turn, shift[:, :, None]), dim=2)

    def cut(self, case: torch.Tensor, matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return cut(self.volumes.image, self.volumes.label, case, matrix, self.trial.patch)

    def __call__(self, numbers: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (B, C, P, P, P), label (B, P, P, P); from uniform numbers (B, NUMBERS) and noise as the image."""
        draw = Draws(numbers)
        image, label = self.cut(*self.place(draw))
        if self.trial.transplant:
            image, label = self.transplanted(image, label, draw)
        if self.trial.cutmix:
            image, label = self.mixed(image, label, draw)
        return self.intensities(image, noise.float(), draw), label

    def transplanted(self, image: torch.Tensor, label: torch.Tensor, draw: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """Copy the tumour of another patient to where this one has healthy brain."""
        case, matrix = self.place(draw, on_tumour=True)
        move = (draw(3) - 0.5) * 0.7 * self.trial.patch
        matrix = torch.cat((matrix[:, :, :3], matrix[:, :, 3:] + move[:, :, None]), dim=2)
        other, tumour = self.cut(case, matrix)
        apply = (draw.volume() < self.trial.transplant)[:, 0]
        where = (tumour > 0) & (label == 0) & (image[:, 0] != 0) & apply
        return torch.where(where[:, None], other, image), torch.where(where, tumour, label)

    def mixed(self, image: torch.Tensor, label: torch.Tensor, draw: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """Copy a box of another patch of the batch (CutMix; Yun et al., 2019)."""
        size = self.trial.patch
        side = torch.arange(size, device=image.device)
        low = draw(3) * 0.5 * size
        high = low + (0.25 + 0.35 * draw(3)) * size
        within = (side >= low[:, :, None]) & (side < high[:, :, None])  # (B, 3, P)
        box = within[:, 0, :, None, None] & within[:, 1, None, :, None] & within[:, 2, None, None, :]
        box = box & (draw.volume() < self.trial.cutmix)[:, 0]
        return torch.where(box[:, None], image.roll(1, 0), image), torch.where(box, label.roll(1, 0), label)

    def intensities(self, image: torch.Tensor, noise: torch.Tensor, draw: Draws) -> torch.Tensor:
        """Noise, blur, low resolution, contrast, brightness, gamma and a dropped channel, each with its probability."""
        wide, channels, space = self.trial.wide, image.shape[1], (1, 2, 3, 4)
        image = image + noise * 0.3 * draw.volume() * (draw.volume() < 0.1 * wide)
        edge = torch.exp(-0.5 / (0.5 + 0.5 * draw.volume()) ** 2)  # of a Gaussian of three voxels, sigma 0.5 to 1
        blur = edge / (1 + 2 * edge) * (draw.volume() < 0.1 * wide)
        for axis in (2, 3, 4):
            image = image + blur * (image.roll(1, axis) + image.roll(-1, axis) - 2 * image)
        if self.trial.lowres:
            low = functional.interpolate(functional.avg_pool3d(image, 2), scale_factor=2, mode="trilinear")
            image = torch.where(draw.volume() < self.trial.lowres, low, image)
        image = image * (1 + 0.3 * (2 * draw.volume(channels) - 1) * (draw.volume() < 0.15 * wide))
        image = image + 0.1 * wide * (2 * draw.volume(channels) - 1) * (draw.volume() < 0.15 * wide)
        apply, gamma = draw.volume() < 0.15 * wide, 0.7 + 0.8 * draw.volume()
        least, most = image.amin(space, keepdim=True), image.amax(space, keepdim=True)
        curved = ((image - least) / (most - least + 1e-7)).clamp(min=0).pow(gamma) * (most - least) + least
        mean, spread = image.mean(space, keepdim=True), image.std(space, keepdim=True)
        curved = (curved - curved.mean(space, keepdim=True)) / (curved.std(space, keepdim=True) + 1e-7) * spread + mean
        image = torch.where(apply, curved, image)
        if self.trial.drop:
            number = (draw(1) * channels).long() == torch.arange(channels, device=image.device)
            image = image * ~(number & (draw(1) < self.trial.drop))[:, :, None, None, None]
        return image
