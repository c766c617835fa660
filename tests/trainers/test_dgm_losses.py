"""DGM's losses against equations 1 to 7 written out in NumPy, the discriminator written out once more, and the area under the curve."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engine.errors import ConfigError
from trainers.auc import auc
from trainers.losses import dgm as losses
from trainers.nets.dgm_discriminator import MultiScaleDiscriminator, MultiScaleSettings


@pytest.fixture
def draw():
    return torch.Generator().manual_seed(4)


@pytest.fixture
def films(draw):
    return [torch.rand(4, 1, 5, 5, generator=draw) * 2 - 1 for _ in range(3)]


@pytest.fixture
def scores(draw):
    return [[torch.randn(4, 1, side, side, generator=draw) for side in (5, 3)] for _ in range(2)]


def test_equation_1(scores):
    expected = sum(((scale.numpy() - 1) ** 2).mean() / 2 for scale in scores[0])
    assert float(losses.adversarial(scores[0])) == pytest.approx(expected, rel=1e-5)


def test_equation_7(scores):
    made, real = scores
    expected = sum((scale.numpy() ** 2).mean() / 2 for scale in made) + sum(((scale.numpy() - 1) ** 2).mean() / 2 for scale in real)
    assert float(losses.discrimination(made, real)) == pytest.approx(expected, rel=1e-5)


def test_abnormal_films_are_to_be_scored_0(scores):
    expected = sum((scale.numpy() ** 2).mean() / 2 for scale in scores[1])
    assert float(losses.recognition(scores[1])) == pytest.approx(expected, rel=1e-5)


def test_equations_2_and_3(films):
    normal, residue, film = films
    expected = np.mean([np.abs(y + a - z).mean() for y, a, z in zip(*(part.numpy() for part in films), strict=True)])
    assert float(losses.reconstruction(normal + residue, film)) == pytest.approx(expected, rel=1e-5)


def test_equation_4(films):
    residue = films[1]
    expected = (np.abs(residue[0].numpy()).mean() + np.abs(residue[3].numpy()).mean()) / 4
    assert float(losses.blankness(residue, torch.tensor([1.0, 0, 0, 1]))) == pytest.approx(expected, rel=1e-5)
    assert float(losses.blankness(residue, torch.zeros(4))) == 0


def test_equation_5(films):
    total = 0.0
    for film in films[0][:, 0].tolist():
        for i in range(5):
            for j in range(5):
                total += abs(film[i + 1][j] - film[i][j]) if i < 4 else 0
                total += abs(film[i][j + 1] - film[i][j]) if j < 4 else 0
    assert float(losses.total_variation(films[0], reduction="sum")) == pytest.approx(total / 4, rel=1e-5)
    assert float(losses.total_variation(films[0])) == pytest.approx(total / 4 / 25, rel=1e-5)


def test_cross_entropy():
    chance = 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(2.0))
    expected = -(math.log(chance[0]) + math.log(1 - chance[1])) / 2
    assert float(losses.classification(torch.tensor([0.5, -2.0]), torch.tensor([1.0, 0.0]))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("norm", ["instance", "none"])
def test_the_discriminator_written_out(norm):
    torch.manual_seed(3)
    network = MultiScaleDiscriminator(MultiScaleSettings(scales=2, width=3, layers=2, norm=norm)).double()
    state, x = network.state_dict(), torch.rand(2, 1, 16, 16, dtype=torch.float64)
    found = network(x)
    assert [scale.shape for scale in found] == [(2, 1, 7, 7), (2, 1, 5, 5)]
    for place, scale in enumerate(found):
        y = x if place == 0 else halved(x)
        names = (0, 2, 5, 8) if norm == "instance" else (0, 2, 4, 6)
        for layer, name in enumerate(names):
            weight, bias = (state[f"scales.{place}.{name}.{part}"] for part in ("weight", "bias"))
            y = F.conv2d(y, weight, bias, stride=2 if layer < 2 else 1, padding=2)
            if layer in (1, 2) and norm == "instance":
                y = (y - y.mean((2, 3), keepdim=True)) / (y.var((2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
            y = torch.where(y > 0, y, 0.2 * y) if layer < 3 else y
        torch.testing.assert_close(scale, y, rtol=1e-8, atol=1e-8)
    assert state[f"scales.0.{names[2]}.weight"].shape == (12, 6, 4, 4)


def halved(films):
    """The mean of the 3x3 pixels about every second one, of those that there are."""
    n, _, side, _ = films.shape
    out = torch.empty(n, 1, side // 2, side // 2, dtype=films.dtype)
    for i in range(side // 2):
        for j in range(side // 2):
            out[:, 0, i, j] = films[:, 0, max(2 * i - 1, 0) : 2 * i + 2, max(2 * j - 1, 0) : 2 * j + 2].mean((1, 2))
    return out


def test_the_paper_s_discriminator_has_pix2pixhd_s_widths():
    with torch.device("meta"):
        network = MultiScaleDiscriminator(MultiScaleSettings())
    one = sum(16 * below * width + width for below, width in ((1, 64), (64, 128), (128, 256), (256, 512), (512, 1)))
    assert sum(value.numel() for value in network.parameters()) == 3 * one


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"scales": 0}, "scales must be 1 to 8: 0"),
        ({"width": 0}, "width must be"),
        ({"layers": 9}, "layers"),
        ({"norm": "batch"}, "norm must"),
    ],
)
def test_senseless_sizes_are_refused(settings, line):
    with pytest.raises(ConfigError, match=line):
        MultiScaleSettings(**settings)


def test_films_too_small_for_the_coarsest_scale_are_refused():
    MultiScaleSettings().check_side(32)
    with pytest.raises(ConfigError, match="films need 32 pixels a side for 3 scales of 3 layers: 16"):
        MultiScaleSettings().check_side(16)


def test_area_under_the_curve_is_the_share_of_ordered_pairs(draw):
    scores = torch.randint(0, 6, (40,), generator=draw).float()
    positive = torch.rand(40, generator=draw) < 0.4
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in scores[positive].tolist() for b in scores[~positive].tolist()]
    assert auc(scores, positive) == pytest.approx(sum(pairs) / len(pairs))
    assert auc(positive.float(), positive) == 1
    assert auc(torch.zeros(40), positive) == 0.5
    with pytest.raises(ValueError, match="both classes: 0 positive, 40 negative"):
        auc(scores, torch.zeros(40, dtype=torch.bool))
