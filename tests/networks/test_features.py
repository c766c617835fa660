"""AlexNet, VGG-16 and ResNet-50 on one gray plane are torchvision's and lpips's networks on three equal planes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from engine.networks import features, resnet50
from engine.networks.features import LEAST_SIDES, FeatureNet, FeatureStack, published_shapes, tap_channels
from engine.networks.gray_stem import GrayStem
from engine.networks.resnet50 import ResNet50Trunk
from tests.networks.lpips_networks import random_lpips, torchvision_state

NETS: tuple[FeatureNet, ...] = ("alex", "vgg")


def films(side: int, *, count: int = 2) -> Tensor:
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(side)) * 2 - 1


def three_planes(gray: Tensor) -> Tensor:
    return gray.expand(-1, 3, -1, -1)


def assert_equal_to(got: Tensor, expected: Tensor, relative: float = 1e-5) -> None:
    """Relative to the largest value: what a convolution's rounding is measured by."""
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= relative * expected.abs().max()


@pytest.fixture(scope="module", params=NETS)
def published(request: pytest.FixtureRequest) -> tuple[Any, FeatureStack]:
    """The package's network with random weights, and ours with the same."""
    theirs = random_lpips(request.param)
    ours = FeatureStack(request.param)
    ours.load_published(torchvision_state(theirs))
    return theirs, ours


@pytest.mark.parametrize("side", [31, 64, 67, 97, 101])
def test_taps_are_those_of_lpips_at_every_pixel(published: tuple[Any, FeatureStack], side: int) -> None:
    """Borders included, where three planes are padded after normalisation: sides that leave each remainder of AlexNet's stride."""
    theirs, ours = published
    gray = films(side)
    expected = theirs.net(theirs.scaling_layer(three_planes(gray)))
    for got, tap in zip(ours(gray), expected, strict=True):
        assert_equal_to(got, tap)


def test_gradients_are_those_of_lpips(published: tuple[Any, FeatureStack]) -> None:
    """In float64, where rounding decides no maximum and no sign."""
    theirs, ours = published[0].double(), published[1].double()
    gray = films(67).double().requires_grad_()
    (got,) = torch.autograd.grad(sum(tap.square().mean() for tap in ours(gray)), gray)
    outputs = theirs.net((three_planes(gray) - theirs.scaling_layer.shift) / theirs.scaling_layer.scale)
    (expected,) = torch.autograd.grad(sum(tap.square().mean() for tap in outputs), gray)
    published[0].float(), published[1].float()
    assert_equal_to(got, expected, 1e-6)  # the folded weights were rounded to float32


def test_names_and_shapes_are_torchvisions(published: tuple[Any, FeatureStack]) -> None:
    theirs, ours = published
    net = ours.net
    with torch.device("meta"):
        network = torchvision.models.alexnet() if net == "alex" else torchvision.models.vgg16()
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items() if name.startswith("features.")}
    assert published_shapes(net) == shapes
    assert tap_channels(net) == tuple(theirs.chns)


@pytest.mark.parametrize("net", NETS)
def test_least_side_is_the_least_that_works(net: FeatureNet) -> None:
    stack = FeatureStack(net)
    assert len(stack(torch.zeros(1, 1, LEAST_SIDES[net], LEAST_SIDES[net]))) == 5
    with pytest.raises(RuntimeError, match="too small"):
        stack(torch.zeros(1, 1, LEAST_SIDES[net] - 1, LEAST_SIDES[net] - 1))


@pytest.mark.parametrize("side", [40, 41, 42, 43])
def test_a_strided_stem_is_the_convolution_itself(side: int) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 5, 11, 4, 2)
    stem = GrayStem(5, kernel=11, stride=4, padding=2, is_normalised=True)
    shift, scale = (0.2, -0.1, 0.4), (0.5, 0.3, 0.2)
    stem.load_published(convolution.weight, convolution.bias, shift=shift, scale=scale)
    gray = films(side)
    normalised = (three_planes(gray) - torch.tensor(shift)[:, None, None]) / torch.tensor(scale)[:, None, None]
    assert_equal_to(stem(gray), convolution(normalised))
    assert stem.out_side(side) == convolution(normalised).shape[-1]


@pytest.fixture(scope="module")
def resnet() -> tuple[nn.Module, ResNet50Trunk]:
    """torchvision's ResNet-50 with random weights and random statistics, and ours with the same."""
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    theirs.fc = nn.Identity()
    ours = ResNet50Trunk()
    ours.load_published(theirs.state_dict())
    return theirs.eval(), ours


@pytest.mark.parametrize("side", [32, 75])
def test_trunk_is_torchvisions_without_its_last_layer(resnet: tuple[nn.Module, ResNet50Trunk], side: int) -> None:
    theirs, ours = resnet
    gray = films(side)
    assert_equal_to(ours(gray), theirs(three_planes(gray)))


def test_trunk_has_torchvisions_names(resnet: tuple[nn.Module, ResNet50Trunk]) -> None:
    theirs, ours = resnet
    shapes = {name: tuple(value.shape) for name, value in theirs.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert ours.published_shapes() == shapes


def counted(network: nn.Module, side: int) -> int:
    """Multiply-adds of the convolutions that run."""
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = module.get_parameter("weight")
        total += weight[0].numel() * output.numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | GrayStem):
            module.register_forward_hook(count)
    with torch.device("meta"):
        network.to("meta")(torch.zeros(1, 1, side, side))
    return total


@pytest.mark.parametrize("side", [64, 224, 1024])
def test_multiply_adds_are_those_that_run(side: int) -> None:
    for net in NETS:
        assert features.multiply_adds(net, side) == counted(FeatureStack(net), side)
    assert resnet50.multiply_adds(side) == counted(ResNet50Trunk(), side)
