import nibabel as nib
import numpy as np
import pytest
import torch
from monai.losses import DiceLoss, FocalLoss
from tumour.cases.case import Case
from tumour.errors import InputError
from tumour.patches.class_weights import channel_weights

from tests.cohorts import CLASSES, REGIONS, glioma


def cases_with(folder, *labels):
    """Cases whose labels have the values 0, 1, 2 and 4 in these numbers of voxels."""
    for number, counts in enumerate(labels):
        label = np.repeat(np.array([0, 1, 2, 4], np.uint8), np.array(counts) * 10).reshape(10, 10, 10)
        nib.save(nib.Nifti1Image(label, np.eye(4)), folder / f"{number}.nii.gz")
        yield Case(f"{number}", f"{number}", (), label=str(folder / f"{number}.nii.gz"))


def test_weights_are_the_inverse_frequency_of_a_channel_in_the_labels(tmp_path):
    cases = [*cases_with(tmp_path, (90, 1, 7, 2), (70, 3, 23, 4))]
    weights = channel_weights([], cases, glioma(), {name: [name] for name in CLASSES})
    assert weights.mean().item() == pytest.approx(1)
    assert (weights * torch.tensor([160, 4, 30, 6])).std().item() == pytest.approx(0, abs=1e-4)
    weights = channel_weights([], cases, glioma(), REGIONS)
    assert (weights * torch.tensor([10, 40, 6])).std().item() == pytest.approx(0, abs=1e-4)


def test_a_channel_that_no_label_contains_has_the_largest_weight_and_does_not_change_those_of_the_others(tmp_path):
    cases = [*cases_with(tmp_path, (90, 0, 7, 3))]
    channels = {name: [name] for name in CLASSES} | {"unused": []}  # as in unet_dicece_brats2023
    weights = channel_weights([], cases, glioma(), channels)
    assert weights[1] == weights[4] == weights.max() == weights[3]
    present = weights[[0, 2, 3]]
    assert present.mean().item() == pytest.approx(1)
    assert (present * torch.tensor([90, 7, 3])).std().item() == pytest.approx(0, abs=1e-4)
    with pytest.raises(InputError, match="None of the 1 labels contains necrotic or unused; check them"):
        channel_weights([], cases, glioma(), {"necrotic": ["necrotic"], "unused": []})


@pytest.mark.parametrize("loss", [DiceLoss, FocalLoss])
def test_with_computed_weights_a_network_learns_not_to_predict_what_no_label_contains(loss, tmp_path):
    """After a step from a network that predicts everything everywhere, each absent region is less probable."""
    weights = channel_weights([], [*cases_with(tmp_path, (90, 3, 7, 0))], glioma(), REGIONS)
    absent = [*REGIONS].index("ET")
    logits, target = torch.ones(1, 3, 4, 4, 4, requires_grad=True), torch.zeros(1, 3, 4, 4, 4)
    arguments = {"sigmoid": True, "batch": True} if loss is DiceLoss else {}
    loss(weight=weights, **arguments)(logits, target).backward()
    assert logits.grad is not None and (logits.grad[:, absent] > 0).all()


def test_given_weights_are_used_and_their_number_is_checked():
    assert channel_weights([1, 2, 3], [], glioma(), REGIONS).tolist() == [1, 2, 3]
    with pytest.raises(InputError, match="channel_weights has 2 values, but the network has the channels"):
        channel_weights([1, 2], [], glioma(), REGIONS)
    with pytest.raises(InputError, match="channel_weights has only zeros, so nothing would be learned"):
        channel_weights([0, 0.0, 0], [], glioma(), REGIONS)
