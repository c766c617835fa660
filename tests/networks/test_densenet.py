"""DenseNet-121 is the published network; the discriminator as a classifier is built from settings; both judge gray films."""

from itertools import pairwise

import pytest
import torch
from torchvision.models import densenet121
from torchvision.models.densenet import DenseNet

from engine.errors import CodecError
from engine.networks.densenet import DenseNetClassifier, DenseNetSettings, published_shapes
from engine.networks.pggan_discriminator import PgganDiscriminator, PgganDiscriminatorSettings
from engine.networks.registry import build_network, network_names

TINY = {"blocks": (1, 2), "growth": 4, "stem": 6, "bottleneck": 2, "classes": 3}


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_densenet_121_is_the_published_one():
    """7,978,856 weights with ImageNet's 1,000 classes, as torchvision publishes them; 15 labels on one gray plane need fewer."""
    with torch.device("meta"):
        published, ours, gray = (
            densenet121(),
            *(DenseNetClassifier(DenseNetSettings(in_channels=n, classes=c)) for n, c in ((3, 1000), (1, 15))),
        )
    assert count(published) == count(ours) == 7_978_856
    assert {name: value.shape for name, value in ours.state_dict().items()} == {name: v.shape for name, v in published.state_dict().items()}
    assert count(gray) == 7_978_856 - 2 * 49 * 64 - 985 * 1025
    assert gray.num_features == 1024
    assert set(published_shapes(ours)) == {n for n in published.state_dict() if "classifier" not in n and "num_batches" not in n}


def test_three_planes_are_torchvisions_network_on_normalised_films():
    torch.manual_seed(0)
    theirs = DenseNet(4, (1, 2), 6, bn_size=2, num_classes=3).eval()
    ours = DenseNetClassifier(DenseNetSettings(**TINY, in_channels=3)).eval()
    ours.load_state_dict(theirs.state_dict())
    gray = torch.rand(2, 1, 32, 32)
    mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    planes = (gray.expand(-1, 3, -1, -1) - mean[:, None, None]) / spread[:, None, None]
    torch.testing.assert_close(ours(gray * 2 - 1), theirs(planes), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", [16, 33, 64])
def test_densenet_takes_films_of_any_side(side):
    network = DenseNetClassifier(DenseNetSettings(**TINY)).eval()
    films = torch.rand(2, 1, side, side)
    assert network(films).shape == (2, 3)
    assert network.embed(films).shape == (2, network.num_features)
    torch.testing.assert_close(network.classifier(network.embed(films)), network(films))


def test_too_small_films_are_refused():
    with pytest.raises(CodecError, match="densenet of 4 blocks takes films of 32 pixels a side or more: 16"):
        DenseNetClassifier(DenseNetSettings(blocks=(1, 1, 1, 1), growth=2, stem=2)).eval()(torch.zeros(1, 1, 16, 16))
    DenseNetClassifier(DenseNetSettings(blocks=(1, 1, 1, 1), growth=2, stem=2)).eval()(torch.zeros(1, 1, 32, 32))


@pytest.mark.parametrize("channels", [(5,), (6, 4, 3)])
def test_the_discriminator_sees_films_of_its_own_side(channels):
    network = PgganDiscriminator(PgganDiscriminatorSettings(channels=channels, classes=3))
    side = 4 * 2 ** (len(channels) - 1)
    assert network.resolution == side
    assert network(torch.zeros(2, 1, side, side)).shape == (2, 3)
    assert network.embed(torch.zeros(2, 1, side, side)).shape == (2, channels[0]) == (2, network.num_features)


def test_segals_discriminator_has_the_papers_widths():
    """Segal et al. 2021 train to 1024x1024: nine levels. Counted by hand from the widths."""
    widths = (512, 512, 512, 512, 256, 128, 64, 32, 16)
    with torch.device("meta"):
        network = PgganDiscriminator(PgganDiscriminatorSettings())
    levels = sum(9 * above * above + above + 9 * above * below + below for below, above in pairwise(widths))
    first, second = 513 * 512 * 9 + 512, 512 * 512 * 16 + 512
    assert network.resolution == 1024
    assert count(network) == 2 * 16 + levels + first + second + 15 * 513


def test_both_can_be_named():
    assert {"densenet", "pggan-discriminator"} < set(network_names("classifier"))
    assert isinstance(build_network("classifier", "densenet", {"blocks": [1], "growth": 2, "stem": 2}), DenseNetClassifier)
    assert isinstance(build_network("classifier", "pggan-discriminator", {"channels": [4]}), PgganDiscriminator)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("densenet", {"blocks": []}, r"densenet.blocks must be 1 to 6 numbers of 1 to 100 layers: \(\)"),
        ("densenet", {"growth": 0}, "densenet.growth must be 1 to 512: 0"),
        ("densenet", {"classes": 0}, "densenet.classes must be 1 to 1000: 0"),
        ("densenet", {"dropout": 1.0}, "densenet.dropout must be 0 or more and under 1: 1.0"),
        ("densenet", {"in_channels": 2}, "densenet.in_channels must be 1 or 3: 2"),
        ("densenet", {"depth": 2}, "classifier.settings has unknown fields: depth"),
        ("pggan-discriminator", {"channels": [0]}, "channels needs 1 to 11 widths"),
        ("pggan-discriminator", {"output_range": "any"}, "output_range must be one of unit, signed: any"),
        ("pggan-discriminator", {"leak": 1.0}, "leak must be 0 or more and under 1: 1.0"),
        ("pggan-discriminator", {"classes": 1001}, "classes must be 1 to 1000: 1001"),
    ],
)
def test_senseless_settings_are_one_line(name, settings, says):
    with pytest.raises(CodecError, match=says):
        build_network("classifier", name, settings)
