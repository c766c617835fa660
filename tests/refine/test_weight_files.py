"""Weights are found where a user names them or torch.hub keeps them; what is missing or no plain tensors is one clear line."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from engine.errors import ConfigError
from engine.networks.features import published_shapes, tap_channels
from engine.refine import weight_files
from engine.refine.build_objective import WeightSource, build_objective, describe_weights
from engine.refine.weight_files import FILES, download_network, find_lpips_heads, find_network, random_weights, read_weights

SHAPES = {"features.0.weight": (4, 3, 3, 3), "features.0.bias": (4,)}


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch.hub keeps what it downloaded, of this test alone."""
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_a_named_folder_goes_before_the_hub(tmp_path: Path, hub: Path) -> None:
    (hub / FILES["alex"]).touch()
    assert find_network("alex", None) == hub / FILES["alex"]
    assert find_network("alex", str(tmp_path)) == hub / FILES["alex"]
    (tmp_path / "alexnet-owt-7be5be79.safetensors").touch()
    assert find_network("alex", str(tmp_path)) == tmp_path / "alexnet-owt-7be5be79.safetensors"
    (tmp_path / "moco_v2_800ep_pretrain.safetensors").touch()
    assert find_network("moco", str(tmp_path)).suffix == ".safetensors"


@pytest.mark.parametrize("network", ["alex", "vgg", "moco"])
def test_missing_weights_are_one_line_that_helps(network: str, tmp_path: Path, hub: Path) -> None:
    loss = (("moco", 1.0),) if network == "moco" else (("lpips", 1.0),)
    source, net = WeightSource(folder=str(tmp_path)), "vgg" if network == "vgg" else "alex"
    for act in (
        lambda: build_objective(loss, resolution=224, lpips_net=net, source=source),  # type: ignore[arg-type]
        lambda: describe_weights(loss, lpips_net=net, source=source),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError) as caught:
            act()
        text = str(caught.value)
        assert text.endswith(f": {FILES[network]}")
        for part in (str(tmp_path), str(hub), "--weights", "--loss mse=1"):
            assert part in text
        assert "\n" not in text


def test_nothing_is_downloaded_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The publisher is a folder here, and torch.hub fetches from it as from any other."""
    publisher, target = tmp_path / "publisher", tmp_path / "weights"
    publisher.mkdir()
    (publisher / "moco.tar").write_bytes(b"weights")
    (publisher / "alex.pth").write_bytes(b"not those whose digest begins with 7be5be79")
    urls = {"moco": (publisher / "moco.tar").as_uri(), "alex": (publisher / "alex.pth").as_uri(), "vgg": (publisher / "none").as_uri()}
    monkeypatch.setattr(weight_files, "_URLS", urls)
    with pytest.raises(ConfigError, match="were not found"):
        find_network("moco", str(target))
    assert not target.exists()
    assert download_network("moco", str(target)).read_bytes() == b"weights"
    (publisher / "moco.tar").unlink()
    assert download_network("moco", str(target)) == target / FILES["moco"]  # it is there
    for network, why in (("alex", "invalid hash value"), ("vgg", "urlopen error")):
        with pytest.raises(ConfigError, match=why) as caught:
            download_network(network, str(target))
        assert str(caught.value).endswith(urls[network])
        assert not (target / FILES[network]).exists()


def test_lpips_heads_come_with_the_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for net in ("alex", "vgg"):
        shapes = {f"lin{tap}.model.1.weight": (1, channels, 1, 1) for tap, channels in enumerate(tap_channels(net))}
        assert all((head >= 0).all() for head in read_weights(find_lpips_heads(net), shapes).values())
    monkeypatch.setattr(weight_files, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the weights of an installed package.*: lpips \(alex.pth\)"):
        find_lpips_heads("alex")


def test_finding_heads_does_not_import_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name == "lpips" or name.startswith("lpips.")]:
        monkeypatch.delitem(sys.modules, name)
    find_lpips_heads("alex")
    assert "lpips" not in sys.modules


@pytest.mark.parametrize("prefix", ["", "module.encoder_q.", "net.slice1."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_published_names_and_formats_are_read(prefix: str, suffix: str, tmp_path: Path) -> None:
    state = random_weights(SHAPES, 0)
    names = {name: prefix + (name.removeprefix("features.") if prefix.startswith("net") else name) for name in state}
    path = tmp_path / f"weights{suffix}"
    content = {names[name]: value for name, value in state.items()}
    if suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save({"state_dict": content, "epoch": 3} if prefix else content, path)
    read = read_weights(path, SHAPES)
    assert list(read) == list(SHAPES)
    assert all(torch.equal(read[name], state[name]) for name in state)


class Harmful:
    """Stands for any class: unpickling it would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, ("must-not-exist",)  # pragma: no cover


@pytest.mark.parametrize("kind", ["class", "pickle", "cut off", "empty", "text", "safetensors", "no dictionary"])
def test_what_is_no_plain_tensors_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "class":
        torch.save({"config": Harmful(), **random_weights(SHAPES, 0)}, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"config": Harmful()}))
    elif kind == "cut off":
        torch.save(random_weights(SHAPES, 0), path)
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "no dictionary":
        torch.save([1, 2], path)
    else:
        path.write_bytes(b"" if kind == "empty" else b"<html>not found</html>")
    with pytest.raises(ConfigError, match=r"weights file (is damaged|has no tensor)") as caught:
        read_weights(path, SHAPES)
    assert str(caught.value).endswith(f": {path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("features.0.weight", None, "has no tensor features.0.weight of shape 4x3x3x3"),
        ("features.0.weight", torch.zeros(4, 1, 3, 3), "has no tensor features.0.weight of shape 4x3x3x3"),
        ("features.0.bias", torch.full((4,), torch.nan), "no finite numbers in features.0.bias"),
        ("features.0.bias", torch.zeros(4, dtype=torch.int64), "no finite numbers in features.0.bias"),
    ],
)
def test_a_file_of_another_network_is_refused(name: str, value: torch.Tensor | None, says: str, tmp_path: Path) -> None:
    state = {**random_weights(SHAPES, 0), name: value}
    torch.save({key: tensor for key, tensor in state.items() if tensor is not None}, tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match=says):
        read_weights(tmp_path / "weights.pth", SHAPES)


def test_random_weights_keep_a_signals_size() -> None:
    state = random_weights(published_shapes("alex"), 0)
    for name, value in state.items():
        fan_in = value[0].numel()
        expected = (2 / fan_in) ** 0.5 if name.endswith("weight") else 0.1
        assert 0.7 * expected < value.std() < 1.3 * expected
