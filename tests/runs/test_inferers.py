"""The precision in which networks are trained."""

import pytest
import torch
from monai.inferers import SimpleInferer
from tumour.errors import OptionError
from tumour.runs.inferers import MixedPrecision, check_sizes

from tests.conftest import BUNDLES, ROOT
from tools.show import merged


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_gradients_of_the_smallest_patches_are_finite_and_repeat_in_bfloat16(bundle, monkeypatch):
    monkeypatch.chdir(ROOT)
    network = merged(f"bundles/{bundle}/args.yaml").get_parsed_content("network_def")
    patch = torch.randn(2, 4, 32, 32, 32)
    infer, seen = MixedPrecision(SimpleInferer(), "cpu", "bfloat16"), []
    for _ in range(4):
        for size in (100, 1000, 5000, 20000, 50000, 200000, 1000000):
            torch.full((size,), torch.nan)  # memory that is used again has any values
        network.zero_grad()
        infer(patch, network).square().mean().backward()
        seen.append(torch.cat([weight.grad.flatten() for weight in network.parameters()]))
    assert all(torch.equal(seen[0], each) for each in seen) and seen[0].isfinite().all()


def test_only_small_patches_that_are_trained_on_a_cpu_are_computed_in_float32():
    seen, layer = [], torch.nn.Conv3d(1, 1, 1)

    def network(x):
        seen.append(layer(x).dtype)
        return x

    def dtype(size, trained):
        with torch.set_grad_enabled(trained):
            MixedPrecision(SimpleInferer(), "cpu", "bfloat16")(torch.ones(1, 1, size, 4, 4), network)
        return seen[-1]

    assert dtype(32, trained=True) is torch.float32
    assert dtype(48, trained=True) is dtype(32, trained=False) is torch.bfloat16


def test_a_side_is_a_multiple_of_what_the_network_halves_it_by_and_at_least_two_of_them():
    check_sizes({"patch_size": [32, 48, 64], "window": [96, 96, 32]}, 16)
    for wrong in ([16, 32, 32], [32, 32, 40]):
        with pytest.raises(
            OptionError, match=r"window is \[.*\]; its side lengths must be multiples of 16 and at least 32"
        ):
            check_sizes({"patch_size": [32, 32, 32], "window": wrong}, 16)
