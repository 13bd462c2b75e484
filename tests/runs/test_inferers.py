"""The precision in which networks are trained, and the windows in which they segment."""

import pytest
import torch
from monai.inferers import SimpleInferer
from tumour.runs.inferers import FittedWindows, MixedPrecision

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


class Doubled(torch.nn.Module):
    """Doubles each voxel, and remembers the sizes that it was given."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, image):
        self.sizes.append(tuple(image.shape))
        return 2 * image


@pytest.mark.parametrize(
    ("scan", "window", "count"),
    [
        ((70, 100, 40), (96, 64, 64), 3),  # rounded up to 32; 100 is more than the largest, 64: three windows by half
        ((96, 64, 33), (96, 64, 64), 1),
        ((20, 30, 64), (32, 32, 64), 1),  # smaller than the smallest
    ],
)
def test_a_window_is_as_large_as_the_scan_within_its_limits(scan, window, count):
    network, image = Doubled(), torch.randn(1, 2, *scan)
    fitted = FittedWindows((32, 32, 32), (96, 64, 128), 32, sw_batch_size=1, overlap=0.5, mode="gaussian")
    torch.testing.assert_close(fitted(image, network), 2 * image)
    assert network.sizes == [(1, 2, *window)] * count


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize(
    ("options", "smallest", "largest"),
    [
        ({}, [96, 96, 96], [160, 192, 160]),
        ({"patch_size": [192, 192, 192]}, [192, 192, 192], [192, 192, 192]),
        ({"norm": "instance"}, [96, 96, 96], [96, 96, 96]),  # whose answer depends on the size of the window
        ({"norm": "instance", "window": [64, 64, 64]}, [64, 64, 64], [64, 64, 64]),
    ],
)
def test_windows_grow_to_a_brain_only_by_batch_normalisation(bundle, options, smallest, largest, monkeypatch):
    monkeypatch.chdir(ROOT)
    parser = merged(f"bundles/{bundle}/args.yaml")
    parser.update({"device": "cpu", "uses_weights": False, **options})
    windows = parser.get_parsed_content("sliding_window").inferer.inferer
    assert (list(windows.smallest), list(windows.largest), windows.step) == (smallest, largest, 32)
