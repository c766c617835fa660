"""Each published layout, built with random weights, gives the same films and codes after import as its documented forward pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models import resnet50

from engine.networks.importers.checkpoint import read_checkpoint
from engine.networks.importers.imported_network import ImportedNetwork
from engine.networks.registry import build_network
from engine.networks.resnet50 import ResNet50Trunk
from tests.networks.published_layouts import (
    CODE_SIZE,
    WIDTHS,
    SegalGenerator,
    ZooGenerator,
    karras_arrays,
    karras_films,
    lightning_file,
    save_zoo,
    weber_codes,
    weber_file,
    without_modules,
    zoo_config,
)

Z = torch.randn(3, CODE_SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


def built(network: ImportedNetwork) -> torch.nn.Module:
    assert network.role in ("generator", "encoder")
    net = build_network(network.role, network.network, network.settings).eval()
    net.load_state_dict(network.state)
    return net


@torch.no_grad()
def films_of(network: ImportedNetwork) -> Tensor:
    assert network.role == "generator"
    return built(network)(Z.unsqueeze(1))


@torch.no_grad()
def gray_of(net: Callable[[Tensor], Tensor], *, is_unit: bool) -> Tensor:
    """The mean of the colours of the documented pass, in float64, in [-1, 1]."""
    films = net.double()(Z.double()).mean(1, keepdim=True)
    return (2 * films - 1 if is_unit else films).float()


def assert_same(got: Tensor, wanted: Tensor) -> None:
    assert wanted.std() > 0.1
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("colours", [1, 3])
def test_segals_generator_alone(colours: int, tmp_path: Path) -> None:
    net = SegalGenerator(colours=colours)
    torch.save({"state_dict": net.state_dict(), "settings": {"z_dim": CODE_SIZE, "leakiness": 0.2}}, tmp_path / "g.pt")
    found = read_checkpoint(tmp_path / "g.pt")
    assert (found.layout, found.network, found.is_average) == ("segal", "pggan", None)
    assert found.settings == {
        "channels": list(WIDTHS),
        "code_size": CODE_SIZE,
        "norm_after_linear": False,
        "output_range": "unit",
        "leak": 0.2,
    }
    assert found.facts == {"colours": colours}
    assert_same(films_of(found), gray_of(net, is_unit=True))


@pytest.mark.parametrize("has_average", [True, False])
def test_segals_training_file_gives_the_average_where_there_is_one(has_average: bool, tmp_path: Path) -> None:
    generator, shadow = SegalGenerator(), SegalGenerator()
    torch.save(lightning_file(generator, shadow if has_average else None), tmp_path / "all.pth")
    found = read_checkpoint(tmp_path / "all.pth")
    assert found.is_average is has_average
    films = films_of(found)
    assert_same(films, gray_of(shadow if has_average else generator, is_unit=True))
    other = gray_of(generator if has_average else shadow, is_unit=True)
    assert (films - other).abs().max() > 0.1


@pytest.mark.parametrize("widths", [(8,), (8, 16), (24, 24, 16, 16, 16)])
def test_sizes_come_from_the_shapes(widths: tuple[int, ...], tmp_path: Path) -> None:
    net = SegalGenerator(widths)
    torch.save({"state_dict": net.state_dict()}, tmp_path / "g.pt")
    found = read_checkpoint(tmp_path / "g.pt")
    assert found.settings["channels"] == list(widths)
    assert_same(films_of(found), gray_of(net, is_unit=True))


def test_segals_own_size_is_understood(tmp_path: Path) -> None:
    """Names, shapes and count of the published generator; its numbers are one number, repeated."""
    with torch.device("meta"):
        net = SegalGenerator((512, 512, 512, 512, 256, 128, 64, 32, 16), 512)
    assert sum(p.numel() for p in net.parameters()) == 23_086_795
    assert len(net.state_dict()) == 57


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("has_modules", [True, False], ids=["new names", "old names"])
@pytest.mark.parametrize("has_average", [True, False], ids=["average", "plain"])
def test_the_zoos_generator(is_zip: bool, has_modules: bool, has_average: bool, tmp_path: Path) -> None:
    net, average = ZooGenerator(leak=0.3), ZooGenerator(leak=0.3)
    names = dict if has_modules else without_modules
    content = {"netG": names(net.state_dict()), "netD": {"decisionLayer.module.weight": torch.zeros(1, 8)}}
    content |= {"avgG": names(average.state_dict())} if has_average else {}
    save_zoo(tmp_path / "zoo.pth", content, zoo_config(leakyReluLeak=0.3), is_zip=is_zip)
    found = read_checkpoint(tmp_path / "zoo.pth")
    assert (found.layout, found.is_average) == ("pytorch_GAN_zoo", has_average)
    assert (found.settings["norm_after_linear"], found.settings["output_range"], found.settings["leak"]) == (True, "signed", 0.3)
    assert_same(films_of(found), gray_of(average if has_average else net, is_unit=False))


@pytest.mark.parametrize("is_fused", [True, False], ids=["fused", "nearest"])
@pytest.mark.parametrize(("prefix", "suffix", "is_average"), [("", "", None), ("Gs/", ":0", True), ("G/", "", False)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["plain", "compressed"])
def test_karras_variables(
    is_fused: bool, prefix: str, suffix: str, is_average: bool | None, save: Callable[..., None], tmp_path: Path
) -> None:
    arrays = karras_arrays(is_fused=is_fused)
    save(tmp_path / "gs.npz", **{f"{prefix}{name}{suffix}": array for name, array in arrays.items()})
    found = read_checkpoint(tmp_path / "gs.npz")
    assert (found.layout, found.is_average) == ("karras", is_average)
    assert (found.settings["norm_after_linear"], found.settings["output_range"]) == (True, "signed")
    wanted = karras_films(arrays, Z.numpy()).mean(axis=1, keepdims=True)
    assert_same(films_of(found), torch.from_numpy(wanted).float())


def test_karras_average_comes_before_the_generator_itself(tmp_path: Path) -> None:
    arrays, other = karras_arrays(is_fused=True), karras_arrays(is_fused=False)
    named = {f"G/{name}": array for name, array in other.items()} | {f"Gs/{name}": array for name, array in arrays.items()}
    np.savez(tmp_path / "all.npz", **named, **{"D/FromRGB_lod0/weight": np.zeros((1, 1, 3, 4), np.float32)})
    wanted = karras_films(arrays, Z.numpy()).mean(axis=1, keepdims=True)
    assert_same(films_of(read_checkpoint(tmp_path / "all.npz")), torch.from_numpy(wanted).float())


@pytest.mark.parametrize(("depths", "widths"), [((1, 2), (8, 16)), ((1, 1, 2, 1), (4, 8, 8, 12))])
def test_webers_encoder(depths: tuple[int, ...], widths: tuple[int, ...], tmp_path: Path) -> None:
    content = weber_file(depths, widths)
    torch.save(content, tmp_path / "convnext_fine.pt")
    found = read_checkpoint(tmp_path / "convnext_fine.pt")
    assert (found.role, found.layout, found.network) == ("encoder", "weber", "convnext")
    assert found.settings == {"depths": list(depths), "widths": list(widths), "code_size": CODE_SIZE, "in_channels": 1}
    films = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.no_grad():
        codes = built(found)(films)
    assert_same(codes.squeeze(1), weber_codes(content, ((films + 1) / 2).expand(-1, 3, -1, -1).double()).float())


def test_only_prefixes_in_front_are_taken_off(tmp_path: Path) -> None:
    """Segal's names have `.module.` within, which Weber's code removed wherever it stood."""
    content = weber_file()
    content["model"] = {name.removeprefix("module."): value for name, value in content["model"].items()}  # one process
    content["ep"] = content.pop("step")
    torch.save(content, tmp_path / "convnext_boot.pt")
    assert read_checkpoint(tmp_path / "convnext_boot.pt").layout == "weber"


def test_mocos_features(tmp_path: Path) -> None:
    net = resnet50(num_classes=128).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
    state = {f"module.encoder_q.{name}": value for name, value in net.state_dict().items()}
    state["module.queue"] = torch.zeros(128, 8)
    torch.save({"epoch": 800, "arch": "resnet50", "state_dict": state, "optimizer": {}}, tmp_path / "moco.pth.tar")
    found = read_checkpoint(tmp_path / "moco.pth.tar")
    assert (found.role, found.layout, found.network) == ("features", "moco-v2", "resnet50")
    trunk = ResNet50Trunk()
    trunk.load_published(found.state)
    net.fc = torch.nn.Identity()
    films = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(trunk(films), net(films.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_half_and_double_weights_are_read(tmp_path: Path) -> None:
    for dtype in (torch.float16, torch.float64):
        net = SegalGenerator().to(dtype)
        torch.save({"state_dict": net.state_dict()}, tmp_path / "g.pt")
        found = read_checkpoint(tmp_path / "g.pt")
        assert all(value.dtype == torch.float32 for value in found.state.values())
        assert_same(films_of(found), gray_of(net, is_unit=True))
