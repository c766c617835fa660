"""FID's InceptionV3 on gray films equals torchvision's network with TensorFlow's pools on three equal planes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import inception
from torchvision.models.inception import Inception3

from engine.networks.inception import NUM_FEATURES, InceptionV3

OWN_POOLS = ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7b", "Mixed_7c")


@pytest.fixture(scope="module")
def published() -> Inception3:
    """torchvision's network with the file's 1008 classes, and weights that keep a signal's size: no two norms alike."""
    network = Inception3(num_classes=1008, aux_logits=False, init_weights=False)
    draw = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.data = torch.randn(module.weight.shape, generator=draw) * (2 / fan_in) ** 0.5
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            size = module.running_mean.shape
            module.weight.data = 0.8 + 0.4 * torch.rand(size, generator=draw)
            module.bias.data = 0.1 * torch.randn(size, generator=draw)
            module.running_mean.copy_(0.1 * torch.randn(size, generator=draw))
            module.running_var.copy_(0.6 + 0.8 * torch.rand(size, generator=draw))
    return network.eval()


@pytest.fixture(scope="module")
def ours(published: Inception3) -> InceptionV3:
    network = InceptionV3()
    network.load_published(published.state_dict())
    return network


def tensorflow_pools(network: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """`network` on `x` with the pools that TensorFlow's graph has, by the block that asks for them."""
    plain, asked = F.avg_pool2d, []

    class Pools:
        """What torchvision's blocks see as torch.nn.functional."""

        def __getattr__(self, name: str) -> object:
            return getattr(F, name)

        def avg_pool2d(self, maps: Tensor, kernel_size: int, stride: int, padding: int) -> Tensor:
            asked.append(maps.shape[1])
            if len(asked) == len(OWN_POOLS):
                return F.max_pool2d(maps, kernel_size, stride, padding)
            return plain(maps, kernel_size, stride, padding, count_include_pad=False)

    monkeypatch.setattr(inception, "F", Pools())
    features = network(x)
    assert asked == [192, 256, 288, 768, 768, 768, 768, 1280, 2048]
    return features  # type: ignore[no-any-return]


def trunk(network: Inception3) -> nn.Module:
    """The network without its last layer, sharing its weights."""
    network.fc = nn.Identity()
    return network


def test_equals_torchvisions_network_with_tensorflows_pools(
    published: Inception3, ours: InceptionV3, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = torch.rand(2, 1, 128, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        got = ours(films)
        planes = (films / 2 + 0.5).expand(-1, 3, -1, -1)  # the usual way: in [0, 1], three planes, 299x299, then 2x - 1
        resized = 2 * F.interpolate(planes, size=(299, 299), mode="bilinear", align_corners=False) - 1
        expected = tensorflow_pools(trunk(published), resized, monkeypatch)
    assert got.shape == (2, NUM_FEATURES)
    assert expected.std() > 0.1  # the signal lives
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_names_and_shapes_are_those_of_the_file(published: Inception3, ours: InceptionV3) -> None:
    state = {name: tuple(value.shape) for name, value in published.state_dict().items()}
    needed = {name: shape for name, shape in state.items() if not name.startswith("fc.") and not name.endswith("num_batches_tracked")}
    assert ours.published_shapes() == needed
    assert ours.published_shapes()["Mixed_7c.branch_pool.conv.weight"] == (192, 2048, 1, 1)


def test_number_of_values(ours: InceptionV3) -> None:
    """Published are 21,785,568 weights and norms of the trunk; folded, each convolution has one value a channel instead of two."""
    shapes = ours.published_shapes()
    learned = sum(torch.Size(shape).numel() for name, shape in shapes.items() if "running" not in name)
    channels = sum(torch.Size(shape).numel() for name, shape in shapes.items() if name.endswith("bn.bias"))
    assert learned == 21_785_568
    ours_plain = sum(parameter.numel() for parameter in ours.parameters())
    gray_stem = ours.Conv2d_1a_3x3.weight.numel()
    assert ours_plain == learned - channels - 32 * 3 * 9 + gray_stem


@pytest.mark.parametrize("side", [8, 299, 400])
def test_any_side_and_no_gradient(ours: InceptionV3, side: int) -> None:
    films = torch.zeros(1, 1, side, side)
    features = ours(films)
    assert features.shape == (1, NUM_FEATURES)
    assert not features.requires_grad
    assert not ours.training
