import pytest
import torch
from custom_components.attention import ATTENTION
from custom_components.networks import AttentionGatedUNet, Coarse, GatedUpBlock, NeuroSeg3D
from monai.networks.blocks.dynunet_block import UnetResBlock
from monai.networks.nets import DynUNet
from monai.networks.utils import pixelshuffle, pixelunshuffle

from tests.conftest import BUNDLES, ROOT
from tools.networks import cost
from tools.show import merged

dims = pytest.mark.parametrize("spatial_dims", [2, 3])
SIZE = (32, 16, 24)


def small(network=DynUNet, spatial_dims=3, factor=1, **more):
    block = factor**spatial_dims
    return network(
        spatial_dims=spatial_dims,
        in_channels=4 * block,
        out_channels=3 * block,
        kernel_size=[3] * 3,
        strides=[1, 2, 2],
        upsample_kernel_size=[2] * 2,
        filters=[8, 16, 16],
        **more,
    )


NETWORKS = {
    "plain": DynUNet,
    "gated": AttentionGatedUNet,
    **{name: lambda name=name, **k: NeuroSeg3D(attention=name, **k) for name in ATTENTION},
}


@dims
@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_network_gives_logits_on_the_grid_of_its_input_and_scripts(name, factor, spatial_dims):
    network = Coarse(small(NETWORKS[name], spatial_dims, factor), spatial_dims, factor).eval()
    x = torch.randn(2, 4, *SIZE[:spatial_dims])
    y = network(x)
    assert y.shape == (2, 3, *SIZE[:spatial_dims])
    assert torch.allclose(torch.jit.script(network)(x), y, atol=1e-5)


@dims
@pytest.mark.parametrize("name", list(NETWORKS))
def test_gradients_reach_every_parameter(name, spatial_dims):
    torch.manual_seed(0)
    network = Coarse(small(NETWORKS[name], spatial_dims), spatial_dims)
    network(torch.randn(2, 4, *SIZE[:spatial_dims])).square().mean().backward()
    unreached = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # normalisation removes the bias of the convolution before it, and a ReLU over few hidden units may be 0
    assert [n for n in unreached if not n.endswith("bias") and "fc" not in n and "score" not in n] == []


@dims
def test_coarse_runs_its_network_between_space_to_depth_and_depth_to_space(spatial_dims):
    network = Coarse(small(spatial_dims=spatial_dims, factor=2), spatial_dims, 2).eval()
    x = torch.randn(2, 4, *(size * 2 for size in SIZE[:spatial_dims]))
    inside = network.network(pixelunshuffle(x, spatial_dims, 2))
    assert torch.allclose(network(x), pixelshuffle(inside, spatial_dims, 2), atol=1e-6)


@dims
@pytest.mark.parametrize("start", [-2.0, [-2.0, 0.0, 3.0]])
def test_coarse_starts_with_the_logit_of_each_channel_and_without_a_checkerboard(spatial_dims, start):
    network = Coarse(small(spatial_dims=spatial_dims, factor=2), spatial_dims, 2, start).eval()
    y = network(torch.randn(1, 4, *(size * 2 for size in SIZE[:spatial_dims])))
    assert torch.allclose(y.flatten(2).mean((0, 2)), torch.as_tensor(start).expand(3), atol=0.3)
    blocks = pixelunshuffle(y, spatial_dims, 2).reshape(1, 3, 2**spatial_dims, -1)
    assert torch.allclose(blocks, blocks[:, :, :1].expand_as(blocks), atol=1e-6)


def test_a_closed_gate_blocks_the_skip_connection():
    block = GatedUpBlock(
        2, 16, 8, kernel_size=3, stride=2, upsample_kernel_size=2, norm_name=("INSTANCE", {"affine": True})
    ).eval()
    torch.nn.init.constant_(block.gate.psi[1].bias, -50.0)  # the input of the sigmoid
    below, skip = torch.randn(1, 16, 4, 6), torch.randn(1, 8, 8, 12)
    assert torch.allclose(block(below, skip), block(below, skip * 7 + 3), atol=1e-5)
    torch.nn.init.constant_(block.gate.psi[1].bias, 50.0)
    assert not torch.allclose(block(below, skip), block(below, skip * 7 + 3), atol=1e-1)


def test_only_the_gates_distinguish_the_attention_u_net_from_the_u_net():
    plain, gated = small(), small(AttentionGatedUNet)
    assert {n for n in gated.state_dict() if ".gate." not in n} == set(plain.state_dict())
    assert sum(isinstance(m, GatedUpBlock) for m in gated.upsamples) == 2


def test_neuroseg3d_without_attention_is_the_residual_u_net():
    torch.manual_seed(0)
    ours = small(NeuroSeg3D, attention="none").eval()
    theirs = small(res_block=True).eval()
    for name, parameter in zip(theirs.state_dict(), ours.state_dict().values(), strict=True):
        theirs.state_dict()[name].copy_(parameter)
    x = torch.randn(1, 4, *SIZE)
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)
    assert any(isinstance(module, UnetResBlock) for module in ours.modules())


@dims
def test_dropout_removes_complete_feature_maps(spatial_dims):
    torch.manual_seed(0)
    network = small(NeuroSeg3D, spatial_dims, dropout=0.5)
    maps = network.downsamples[0](torch.randn(4, 8, *SIZE[:spatial_dims])).flatten(2)  # (B, C, voxels)
    dropped = (maps == 0).all(dim=2)
    assert 0.2 < dropped.float().mean() < 0.8
    assert not (maps == 0).any(dim=2)[~dropped].any()
    assert not (network.eval().downsamples[0](torch.randn(4, 8, *SIZE[:spatial_dims])) == 0).flatten(2).all(2).any()


@pytest.mark.parametrize("size", ["fast", "full"])
def test_the_four_networks_have_similar_parameters_and_operations(size):
    costs = [cost(ROOT / "bundles" / bundle / "args.yaml", patch=32, size=size) for bundle in BUNDLES]
    for figures in zip(*costs, strict=True):
        assert max(figures) / min(figures) < 1.5


@pytest.mark.parametrize("bundle", BUNDLES)
def test_fast_has_no_convolution_at_full_resolution_and_full_has_some(bundle):
    for size, most in (("fast", 16), ("full", 32)):
        parser = merged(str(ROOT / "bundles" / bundle / "args.yaml"))
        parser["size"] = size
        network, seen = parser.get_parsed_content("network_def").eval(), []

        def note(module, inputs, output, seen=seen):
            seen.append(output.shape[-1])

        for module in network.modules():
            if isinstance(module, torch.nn.Conv3d):
                module.register_forward_hook(note)
        network(torch.zeros(1, 4, 32, 32, 32))
        assert max(seen) == most


@pytest.mark.parametrize("name", NETWORKS)
def test_checkpointing_changes_neither_output_nor_gradients(name):
    torch.manual_seed(0)
    plain = Coarse(small(NETWORKS[name], 3), 3)
    saving = Coarse(small(NETWORKS[name], 3), 3, checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(2, 4, *SIZE)
    kept = []
    for network in (plain, saving):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept[-1].append(t.numel()) or t, lambda t: t):
            kept.append([])
            y = network(x)
        y.square().mean().backward()
    assert sum(kept[1]) < 0.7 * sum(kept[0])  # what is kept for the backward pass
    for (key, p), q in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-5), key
