"""An objective from published files has the values of the package lpips and of MoCo's features, and says which weights it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from engine.errors import ConfigError
from engine.networks.features import FeatureNet
from engine.refine.build_objective import WeightSource, build_objective, check_objective, describe_weights, loss_gflop
from engine.refine.perceptual import nearest
from engine.refine.weight_files import FILES, sha256_of
from tests.networks.lpips_networks import random_lpips, torchvision_state

LPIPS = (("lpips", 1.0),)
MOCO = (("moco", 1.0),)
PUBLISHED = (("mse", 1.0), ("lpips", 0.8), ("moco", 0.1))
RANDOM = WeightSource(mode="random")


def pair(side: int, *, count: int = 2) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(side)
    films, targets = torch.rand(2, count, 1, side, side, generator=draw) * 2 - 1
    return films.requires_grad_(), targets


def three_planes(gray: Tensor) -> Tensor:
    return gray.expand(-1, 3, -1, -1)


@pytest.fixture(scope="module", params=["alex", "vgg"])
def theirs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureNet, Any, WeightSource]:
    """The package with random convolutions and its own channel weights, and a folder with those convolutions as torchvision's file."""
    network, folder = random_lpips(request.param), tmp_path_factory.mktemp("weights")
    torch.save(torchvision_state(network), folder / FILES[request.param])
    import lpips

    own = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{request.param}.pth"
    network.load_state_dict(torch.load(own, map_location="cpu", weights_only=True), strict=False)
    return request.param, network, WeightSource(folder=str(folder))


@pytest.mark.parametrize("side", [64, 75])
def test_lpips_is_that_of_the_package(theirs: tuple[FeatureNet, Any, WeightSource], side: int) -> None:
    net, network, source = theirs
    objective = build_objective(LPIPS, resolution=side, lpips_net=net, source=source)
    films, targets = pair(side)
    loss, _ = objective(films, objective.features(targets))
    torch.testing.assert_close(loss, network(three_planes(films), three_planes(targets)).flatten(), rtol=1e-5, atol=0)


def test_gradient_of_lpips_is_that_of_the_package(theirs: tuple[FeatureNet, Any, WeightSource]) -> None:
    """In float64, where rounding decides no maximum and no sign."""
    net, network, source = theirs
    term = build_objective(LPIPS, resolution=64, lpips_net=net, source=source).networks["lpips"].double()
    films, targets = (film.detach().double() for film in pair(64, count=1))
    films.requires_grad_()
    (got,) = torch.autograd.grad(term(films, term.features(targets)).sum(), films)
    network.double()
    (expected,) = torch.autograd.grad(network(three_planes(films), three_planes(targets)).sum(), films)
    network.float()
    assert (got - expected).norm() < 1e-5 * expected.norm()


def test_lpips_at_a_smaller_size_is_that_of_averaged_films() -> None:
    small = build_objective(LPIPS, resolution=128, lpips_size=32, source=RANDOM)
    own = build_objective(LPIPS, resolution=32, source=RANDOM)
    films, targets = pair(128)
    loss, _ = small(films, small.features(targets))
    expected, _ = own(F.avg_pool2d(films, 4), own.features(F.avg_pool2d(targets, 4)))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(loss.sum(), films)
    assert gradient.abs().amin((1, 2, 3)).shape == (2,)
    assert gradient.count_nonzero() > gradient.numel() / 2
    for side, size in ((128, 32), (64, 32), (32, 0)):  # a coarser level is never enlarged
        assert small.at(side).networks["lpips"].size == size


def test_moco_is_the_cosine_distance_of_its_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet50()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.normal_(module.bias, 0, 0.1)
    # the published checkpoint: a wrapped query encoder among other things, and values beside the state
    state = {f"module.encoder_q.{name}": value for name, value in network.state_dict().items()}
    state["module.encoder_k.conv1.weight"] = torch.zeros(64, 3, 7, 7)
    state["module.queue"] = torch.zeros(128, 4)
    content = {"epoch": 800, "arch": "resnet50", "state_dict": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.03}]}}
    torch.save(content, tmp_path / FILES["moco"], _use_new_zipfile_serialization=False)

    objective = build_objective(MOCO, resolution=300, source=WeightSource(folder=str(tmp_path)))
    films, targets = pair(300)
    loss, _ = objective(films, objective.features(targets))
    network.fc = nn.Identity()
    network.eval()
    network.double()
    own = [network(three_planes(F.interpolate(film.double() * 0.5 + 0.5, size=224))) for film in (films, targets)]
    expected = 1 - F.cosine_similarity(*own)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-3, atol=0)  # random features of two films hardly differ
    (gradient,) = torch.autograd.grad(loss.sum(), films)
    chosen = F.interpolate(torch.arange(300.0)[None, None], size=224).long().flatten()
    assert gradient[:, :, chosen][..., chosen].count_nonzero() > 0
    assert gradient.count_nonzero() <= 2 * 224 * 224


@pytest.mark.parametrize("side", [224, 225, 256, 300, 448, 511, 512, 896, 1000, 1024, 1500, 2048])
def test_nearest_is_that_of_interpolate(side: int) -> None:
    ramp = torch.arange(side, dtype=torch.float32)
    films = (ramp[:, None] * side + ramp)[None, None] / side**2
    assert torch.equal(nearest(films, 224), F.interpolate(films, size=224))


def test_random_weights_come_from_their_seed_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (
        build_objective(LPIPS, resolution=64, source=WeightSource(mode="random", seed=seed)).state_dict() for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_weights_are_described_for_a_fingerprint(theirs: tuple[FeatureNet, Any, WeightSource]) -> None:
    net, _, source = theirs
    assert source.folder is not None
    described = describe_weights((("mse", 1.0), ("lpips", 0.8), ("moco", 0.0)), lpips_net=net, source=source)
    assert described["lpips"].pop("heads").startswith("sha256:")
    assert described == {"lpips": {"net": net, "features": sha256_of(Path(source.folder) / FILES[net])}}
    drawn = describe_weights(PUBLISHED, source=WeightSource(mode="random", seed=7))
    assert drawn["lpips"] == {"net": "alex", "features": "random:7", "heads": "random:7"}
    assert drawn["moco"] == {"net": "resnet50", "features": "random:7"}
    assert describe_weights((("mse", 1.0), ("ssim", 1.0))) == {}


def test_operations_of_a_step() -> None:
    """Published counts, for three planes at 224: AlexNet's convolutions 0.66, VGG-16's 15.3, ResNet-50's 4.1 billion multiply-adds."""
    for loss, net, published in ((LPIPS, "alex", 0.66), (LPIPS, "vgg", 15.3), (MOCO, "alex", 4.1)):
        (cost,) = loss_gflop(loss, 224, lpips_net=net).values()  # type: ignore[arg-type]
        assert cost / 4 == pytest.approx(published, rel=0.05)
    at_full = loss_gflop(PUBLISHED, 1024)
    assert at_full["mse"] == 0
    assert loss_gflop(LPIPS, 1024, lpips_size=256)["lpips"] == loss_gflop(LPIPS, 256)["lpips"] < at_full["lpips"] / 12
    assert 0 < loss_gflop((("ssim", 1.0), ("mse", 0.0)), 1024)["ssim"] < 1


@pytest.mark.parametrize(
    ("loss", "settings", "says"),
    [
        (LPIPS, {"resolution": 16}, "loss term lpips needs films of 31 pixels or more a side, not: 16"),
        (MOCO, {"resolution": 128}, "loss term moco needs films of 224 pixels or more a side, not: 128"),
        (LPIPS, {"resolution": 64, "lpips_size": 48}, "lpips-size must divide the 64 pixels of a film's side: 48"),
        (LPIPS, {"resolution": 64, "lpips_size": 128}, "lpips-size must divide the 64 pixels of a film's side: 128"),
        (LPIPS, {"resolution": 64, "lpips_size": 16}, "lpips-size must be 0 or at least 31 for alex: 16"),
        (LPIPS, {"resolution": 64, "lpips_size": -1}, "lpips-size must be 0 or at least 31 for alex: -1"),
        (LPIPS, {"resolution": 64, "lpips_net": "squeeze"}, "lpips-net must be one of alex, vgg: squeeze"),
        ((("l1", 1.0),), {"resolution": 64}, "unknown term"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(loss: tuple[tuple[str, float], ...], settings: dict[str, Any], says: str) -> None:
    for refuse in (check_objective, build_objective):
        with pytest.raises(ConfigError, match=says) as caught:
            refuse(loss, **settings)
        assert "\n" not in str(caught.value)


def test_a_mode_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="weights must be one of files, download, random: guess"):
        WeightSource(mode="guess")  # type: ignore[arg-type]
