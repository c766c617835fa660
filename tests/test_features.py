"""The network that `--features` names: a classifier directory or Inception's file, and one line for anything else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.classify.classifier import load_classifier
from engine.errors import CodecError, ConfigError
from engine.features import load_features
from engine.frechet import INCEPTION_FILE, Fid
from engine.networks.inception import InceptionV3
from engine.refine.weight_files import random_weights
from tests.small_classifier import write_classifier


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("features") / "classifier")


def test_a_classifier_gives_what_its_last_layer_sees(classifier: Path) -> None:
    network, judge = load_features(classifier), load_classifier(classifier)
    films = torch.rand(3, 1, 16, 16) * 2 - 1
    assert torch.equal(network.features(films).cpu(), judge.features(films))
    assert network.features(films).shape == (3, network.dim)
    assert network.recipe == judge.recipe
    assert network.told() == {"name": "tiny", "sha256": judge.digest, "dim": network.dim}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / INCEPTION_FILE
    state = random_weights(InceptionV3().published_shapes(), 0)
    torch.save({name: value.abs() + 0.5 if name.endswith("running_var") else value for name, value in state.items()}, path)
    return path


def test_inception_is_that_of_fid_by_file_and_by_folder(weights: Path) -> None:
    fid, films = Fid(str(weights)), torch.rand(1, 1, 32, 32) * 2 - 1
    for path in (weights, weights.parent):
        network = load_features(path)
        assert (network.name, network.digest, network.dim) == ("inception", fid.digest, 2048)
        assert torch.equal(network.features(films).cpu(), fid.features(films))


def test_what_is_no_network_is_one_line(classifier: Path, small_codec: Path, tmp_path: Path) -> None:
    for place, said in (
        (tmp_path / "gone", "there is no such file or directory"),
        (tmp_path, "holds neither"),
        (small_codec, "holds neither"),
    ):
        with pytest.raises(ConfigError, match=rf"^--features takes a classifier directory .*{INCEPTION_FILE}.*{said}: {place}$"):
            load_features(place)
    with pytest.raises(ConfigError, match=r"^--judge takes"):
        load_features(tmp_path / "gone", flag="--judge")
    other = tmp_path / "alexnet.pth"
    torch.save({"features.0.weight": torch.zeros(3)}, other)
    with pytest.raises(ConfigError, match=rf"weights file has no tensor Conv2d_1a_3x3.conv.weight of shape 32x3x3x3: {other}"):
        load_features(other)
    with pytest.raises(ConfigError, match="damaged, or holds more than plain tensors"):
        load_features(classifier / "classifier.json")
    torn = write_classifier(tmp_path / "torn")
    next(torn.glob("*.safetensors")).write_bytes(b"")
    with pytest.raises(CodecError, match=r"damaged or of another classifier"):
        load_features(torn)
