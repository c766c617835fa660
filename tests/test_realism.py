"""Films beside what came back of them, as two sets: in portions as at once, and figures that are not there."""

from __future__ import annotations

import math

import pytest
import torch

from engine import realism
from engine.features import FeatureNetwork, load_features
from engine.frechet import FrechetDistance
from engine.realism import Realism, realism_line
from engine.sliced_wasserstein import swd
from tests.small_classifier import write_classifier


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> FeatureNetwork:
    return load_features(write_classifier(tmp_path_factory.mktemp("realism") / "classifier"))


def test_portions_equal_one_go_and_only_the_first_films_are_sliced(network: FeatureNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realism, "SLICED_FILMS", 10)
    films, rebuilt = torch.rand(14, 1, 32, 32), torch.rand(14, 1, 32, 32) * 0.8
    judge = Realism(network)
    for part, back in zip(films.split(4), rebuilt.split(4), strict=True):
        judge.add(part, back)
    distance = FrechetDistance(network.features, network.dim)
    distance.add_real(films * 2 - 1)
    distance.add_fake(rebuilt * 2 - 1)
    found = judge.figures()
    assert found["frechet"] == pytest.approx(distance.compute(), rel=1e-6)
    assert found["swd"] == pytest.approx(swd(films[:10] * 2 - 1, rebuilt[:10] * 2 - 1)["swd_mean"], rel=1e-6)
    assert (found["films"], found["swd_films"]) == (14, 10)
    line = realism_line(found)
    assert line.startswith("as sets: Fréchet ")
    assert line.endswith(f", sliced Wasserstein {found['swd']:.2f} of 10")


def test_sides_that_cannot_be_halved_have_no_sliced_distance(network: FeatureNetwork) -> None:
    judge = Realism(network)
    judge.add(torch.rand(3, 1, 37, 37), torch.rand(3, 1, 37, 37))
    found = judge.figures()
    assert (math.isnan(found["swd"]), found["swd_films"], found["frechet"] > 0) == (True, 0, True)
    assert "sliced" not in realism_line(found)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_films_have_no_distance(network: FeatureNetwork, count: int) -> None:
    judge = Realism(network)
    if count:
        judge.add(torch.rand(count, 1, 32, 32), torch.rand(count, 1, 32, 32))
    assert math.isnan(judge.figures()["frechet"])
    assert realism_line(judge.figures()).endswith(f"two films or more: {count}")
