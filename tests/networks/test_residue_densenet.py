"""A DenseNet that sees residues: torchvision's network on film and residue, where its weights come from, both ways of its gradient."""

from dataclasses import asdict

import pytest
import torch
from torch import nn
from torchvision.models import densenet161
from torchvision.models.densenet import DenseNet

from engine.errors import CodecError
from engine.networks.densenet import DenseNetClassifier, DenseNetSettings
from engine.networks.dgm import DgmEncoder, DgmGenerator, DgmSettings
from engine.networks.registry import build_network
from engine.networks.residue_densenet import ResidueDenseNet, ResidueDenseNetSettings, with_residue
from engine.networks.residue_maker import residue_maker_of

SIZES = {"blocks": (1, 2), "growth": 4, "stem": 6, "bottleneck": 2, "classes": 3}
DGM = DgmSettings(resolution=16, widths=(4, 5), blocks=1)
DENSENET_161 = {"blocks": (6, 12, 36, 24), "growth": 48, "stem": 96, "classes": 1}


@pytest.fixture(scope="module")
def dgm():
    torch.manual_seed(3)
    return DgmEncoder(DGM), DgmGenerator(DGM)


@pytest.fixture
def plain():
    torch.manual_seed(1)
    return DenseNetClassifier(DenseNetSettings(**SIZES)).eval()


@pytest.fixture
def network(dgm, plain):
    return with_residue(plain, residue_maker_of(*dgm)).eval()


def films(n=2, seed=5):
    return torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def shapes(network):
    return {name: tuple(value.shape) for name, value in network.state_dict().items() if not name.startswith("maker.")}


@pytest.mark.parametrize("planes", [1, 2])
def test_densenet_161_is_the_published_one(planes):
    """With one output and a first convolution of as many planes, 26.5 million weights (table 4)."""
    with torch.device("meta"):
        published = densenet161(num_classes=1)
        published.features.conv0 = nn.Conv2d(planes, 96, kernel_size=7, stride=2, padding=3, bias=False)
        sees_film = DenseNetClassifier(DenseNetSettings(**DENSENET_161))
        ours = sees_film if planes == 1 else ResidueDenseNet(ResidueDenseNetSettings(**DENSENET_161))
    assert shapes(ours) == shapes(published)
    trained = [value for name, value in ours.named_parameters() if not name.startswith("maker.")]
    assert sum(value.numel() for value in trained) == sum(value.numel() for value in published.parameters())
    assert round(sum(value.numel() for value in trained) / 1e6, 1) == 26.5


def test_it_is_torchvisions_network_on_film_and_residue(dgm, network):
    theirs = DenseNet(4, (1, 2), 6, bn_size=2, num_classes=3).eval()
    theirs.features.conv0 = nn.Conv2d(2, 6, kernel_size=7, stride=2, padding=3, bias=False)
    theirs.load_state_dict({name: value for name, value in network.state_dict().items() if not name.startswith("maker.")})
    encoder, generator = dgm
    with torch.no_grad():
        _, residue = generator.decompose(encoder(films()))
        expected = theirs(torch.cat([films(), residue], dim=1))
        torch.testing.assert_close(network(films()), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(network.classifier(network.embed(films())), expected, rtol=1e-5, atol=1e-6)
    assert residue.abs().mean() > 0.01


@pytest.mark.parametrize("silent", [0, 1])
def test_gradients_reach_films_by_both_ways(network, silent):
    """Film or residue is silenced in the first convolution; what is left carries a gradient, and the maker's weights get none."""
    with torch.no_grad():
        network.features.conv0.weight[:, silent] = 0
    seen = films().requires_grad_()
    network(seen).square().sum().backward()
    assert seen.grad.abs().amax(dim=(1, 2, 3)).min() > 0
    assert all(parameter.grad is None for parameter in network.maker.parameters())
    assert all(parameter.grad is not None for parameter in (*network.features.parameters(), *network.classifier.parameters()))


def test_films_without_gradient_build_no_graph_through_the_maker(network):
    network.train()
    assert not network.maker(films()).requires_grad
    assert network(films()).requires_grad


@pytest.mark.parametrize("in_channels", [1, 3])
def test_without_the_residues_plane_it_is_the_network_it_was_made_from(dgm, in_channels):
    torch.manual_seed(2)
    plain = DenseNetClassifier(DenseNetSettings(**SIZES, in_channels=in_channels)).eval()
    network = with_residue(plain, residue_maker_of(*dgm)).eval()
    assert network.features.conv0.weight.shape == (6, in_channels + 1, 7, 7)
    with torch.no_grad():
        assert not torch.allclose(network(films()), plain(films()))
        network.features.conv0.weight[:, -1] = 0
        torch.testing.assert_close(network(films()), plain(films()), rtol=1e-5, atol=1e-6)


def test_the_residues_plane_starts_as_a_first_convolution_does(dgm):
    """He et al. 2015 for one plane of 7x7: variance 2 / 49."""
    torch.manual_seed(2)
    network = with_residue(DenseNetClassifier(DenseNetSettings(blocks=(1,), growth=2, stem=512)), residue_maker_of(*dgm))
    drawn = network.features.conv0.weight[:, -1]
    assert drawn.std().item() == pytest.approx((2 / 49) ** 0.5, rel=0.05)
    assert abs(drawn.mean().item()) < 0.01


def test_it_is_built_from_its_settings(network):
    again = build_network("classifier", "residue-densenet", asdict(network.settings))
    assert isinstance(again, ResidueDenseNet)
    assert (again.resolution, again.num_classes, again.num_features) == (16, 3, network.num_features)
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(films()), network(films()))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"growth": 0}, "densenet.growth must be 1 to 512: 0"),
        ({"in_channels": 2}, "densenet.in_channels must be 1 or 3: 2"),
        ({"dgm_widths": [4]}, "dgm needs 2 to 9 widths of 1 to 8192 each"),
        ({"dgm_blocks": 0}, "dgm.blocks must be 1 to 100: 0"),
        ({"resolution": 18}, "dgm.resolution must be 64 or more and a multiple of 32: 18"),
    ],
)
def test_senseless_settings_are_one_line(change, says):
    with pytest.raises(CodecError, match=says):
        build_network("classifier", "residue-densenet", change)
