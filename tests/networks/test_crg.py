"""The encoder of the cyclic reverse generator: ResNet-101's counts and arithmetic, denormalisation by its equation, and its codes."""

import numpy as np
import pytest
import torch
from torchvision.models.resnet import Bottleneck, ResNet

from engine.errors import CodecError
from engine.networks.crg import CrgEncoder, CrgSettings, ResNetBranch, SpatialDenorm

TINY = {"blocks": (1, 2), "widths": (3, 4), "stem": 2, "hidden": 5, "code_size": 6}
RESNET_101 = 44_549_160  # as published, with the last layer of 1000 classes and three planes


def tiny(**changes):
    torch.manual_seed(0)
    return CrgEncoder(CrgSettings(**{**TINY, **changes}))


def films(count, side, seed=1):
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def count(module):
    return sum(value.numel() for value in module.parameters())


def test_branches_are_resnet_101_on_one_plane():
    with torch.device("meta"):
        net = CrgEncoder(CrgSettings())
        maps = net.features(torch.empty(1, 1, 128, 128))
    branch = RESNET_101 - (2048 + 1) * 1000 - 2 * 64 * 7 * 7
    assert [count(net.first), count(net.second)] == [branch, branch]
    assert count(net.merge) == (2048 * 9 + 1) * 128 + 2 * (128 * 9 + 1) * 2048
    assert count(net) == 93_118_976 == 2 * branch + count(net.merge) + (2048 + 1) * 512
    stages = [(64, 32), (256, 32), (512, 16), (1024, 8), (2048, 4)]
    assert [tuple(each.shape[1:]) for each in maps] == [(width, side, side) for width, side in [*stages, *stages, (2048, 4)]]
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in net.first.modules()) - 4 + 1 == 101  # shortcuts out, last layer in


def test_a_branch_computes_what_torchvisions_resnet_does():
    torch.manual_seed(0)
    published = ResNet(Bottleneck, [1, 2, 1, 1])
    branch = ResNetBranch(CrgSettings(blocks=(1, 2, 1, 1)))
    state = dict(zip(branch.state_dict(), published.state_dict().values(), strict=False))
    assert len(state) == len(published.state_dict()) - 2  # all but the last layer, in the same order
    first = next(iter(state))
    state[first] = state[first].sum(dim=1, keepdim=True)
    branch.load_state_dict(state)
    pixels = films(3, 64)
    found = list(branch.stages_of(pixels))[1:]
    p = published
    expected = [p.maxpool(p.relu(p.bn1(p.conv1(pixels.expand(-1, 3, -1, -1)))))]
    for stage in (p.layer1, p.layer2, p.layer3, p.layer4):
        expected.append(stage(expected[-1]))
    for ours, theirs in zip(found, expected[1:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("stem", "side"), [(1, 16), (2, 8), (4, 4)])
@pytest.mark.parametrize(("grid", "layers"), [(1, 1), (2, 4)])
def test_codes_and_features(stem, side, grid, layers):
    net = tiny(stem=stem, grid=grid, layers=layers)
    codes, maps = net.coded(films(2, 16))
    assert codes.shape == (2, layers, 6) == (2, *net.code_shape)
    branch = [((3, side) if not at else (4 * width, side >> at - 1)) for at, width in enumerate((3, 3, 4))]
    assert [tuple(each.shape[1:]) for each in maps] == [(width, r, r) for width, r in [*branch, *branch, (16, side // 2)]]
    assert net.head.in_features == 16 * grid**2
    net.eval()
    assert torch.equal(net(films(2, 16)), net.coded(films(2, 16))[0])
    assert net(films(1, 24)).shape == (1, layers, 6)


def test_denormalisation_is_its_equation():
    torch.manual_seed(1)
    layer = SpatialDenorm(3, 2, 4).double()
    x, other = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 2, 4, 4, dtype=torch.float64)

    def convolved(image, conv):
        weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
        padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
        made = np.empty((len(image), len(weight), *image.shape[2:]))
        for n, o, y, x in np.ndindex(made.shape):
            made[n, o, y, x] = (padded[n, :, y : y + 3, x : x + 3] * weight[o]).sum() + bias[o]
        return made

    hidden = np.maximum(convolved(other.numpy(), layer.shared), 0)
    scale, shift = convolved(hidden, layer.scale), convolved(hidden, layer.shift)
    expected = np.empty(x.shape)
    for c in range(3):
        values = x[:, c].numpy()
        expected[:, c] = (values - values.mean()) / np.sqrt(values.var() + 1e-5) * (1 + scale[:, c]) + shift[:, c]
    np.testing.assert_allclose(layer(x, other).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


def test_both_branches_make_the_code():
    net = tiny()
    net(films(4, 16)).square().sum().backward()
    for branch in (net.first, net.second):
        assert branch.stem[0].weight.grad.abs().max() > 0
    assert net.merge.scale.weight.grad.abs().max() > 0


def test_codes_of_a_judged_encoder_do_not_depend_on_the_batch():
    net = tiny()
    pixels = films(4, 16)
    net(pixels)
    assert (net(pixels)[:1] - net(pixels[:2])[:1]).abs().max() > 1e-3  # while it trains they do
    net.eval()
    torch.testing.assert_close(net(pixels)[:1], net(pixels[:1]), rtol=1e-4, atol=1e-5)


def test_fresh_codes_lie_around_the_mean_code():
    net, mean = tiny(layers=2), torch.arange(12.0).reshape(2, 6) + 10
    net.start_at(mean)
    codes = net(films(8, 16))
    assert (codes - mean).abs().max() < 1
    assert codes.std(dim=0).min() > 0


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"blocks": (1,)}, r"as many blocks as widths, 6 at most: \(1,\), \(3, 4\)"),
        ({"blocks": (1, 0)}, r"blocks must be 1 to 100 in each stage: \(1, 0\)"),
        ({"widths": (3, 0)}, "widths must be 1 to 8192"),
        ({"code_size": 0}, "widths must be 1 to 8192"),
        ({"stem": 3}, "stem must be one of 1, 2, 4: 3"),
        ({"grid": 0}, "grid must be 1 to 16: 0"),
        ({"layers": 0}, "layers must be 1 to 64: 0"),
    ],
)
def test_senseless_settings_are_refused(wrong, line):
    with pytest.raises(CodecError, match=line):
        tiny(**wrong)
