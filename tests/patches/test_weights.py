import nibabel as nib
import numpy as np
import pytest
import torch
from tumour.cases.case import Case
from tumour.errors import InputError
from tumour.patches.class_weights import channel_weights

from tests.cohorts import CLASSES, REGIONS, glioma


def test_weights_are_the_inverse_frequency_of_a_channel_in_the_labels(tmp_path):
    cases = []
    for number, counts in enumerate([(90, 1, 7, 2), (70, 3, 23, 4)]):  # of 0, 1, 2 and 4
        label = np.repeat(np.array([0, 1, 2, 4], np.uint8), np.array(counts) * 10).reshape(10, 10, 10)
        nib.save(nib.Nifti1Image(label, np.eye(4)), tmp_path / f"{number}.nii.gz")
        cases.append(Case(f"{number}", f"{number}", (), label=str(tmp_path / f"{number}.nii.gz")))
    weights = channel_weights([], cases, glioma(), {name: [name] for name in CLASSES})
    assert weights.mean().item() == pytest.approx(1)
    assert (weights * torch.tensor([160, 4, 30, 6])).std().item() == pytest.approx(0, abs=1e-4)
    weights = channel_weights([], cases, glioma(), REGIONS)
    assert (weights * torch.tensor([10, 40, 6])).std().item() == pytest.approx(0, abs=1e-4)


def test_given_weights_are_used_and_their_number_is_checked():
    assert channel_weights([1, 2, 3], [], glioma(), REGIONS).tolist() == [1, 2, 3]
    with pytest.raises(InputError, match="channel_weights has 2 values, but the network has the channels"):
        channel_weights([1, 2], [], glioma(), REGIONS)
    with pytest.raises(InputError, match="channel_weights has only zeros, so nothing would be learned"):
        channel_weights([0, 0.0, 0], [], glioma(), REGIONS)
