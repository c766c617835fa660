"""Figures of a generator's films: those of the distances themselves, whatever the portions, with the Frechet distance where weights are."""

import hashlib

import pytest
import torch

from engine.errors import ConfigError
from engine.frechet import INCEPTION_FILE
from engine.networks.inception import InceptionV3
from engine.refine.weight_files import random_weights
from engine.sliced_wasserstein import swd
from trainers.tasks import gan_figures
from trainers.tasks.gan_figures import check_inception, films_at_once

CPU = torch.device("cpu")


def films(count, seed, side=16):
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def figures(real, made, inception=""):
    return gan_figures.gan_figures(real, made, inception=inception, device=CPU)


def test_figures_are_the_distances_whatever_the_portions(monkeypatch):
    real, made = films(12, 0), films(12, 1) * 0.5
    expected = {**swd(real, made), "judged_films": 12.0}
    assert figures(real, [made]) == pytest.approx(expected)
    monkeypatch.setattr(gan_figures, "_PIXELS_AT_ONCE", 5 * 16**2)
    assert films_at_once(16) == 5
    assert figures(real, made.split(7)) == pytest.approx(expected)


def test_nothing_is_judged_without_films_or_below_16_pixels():
    assert figures(films(0, 0), []) == {}
    assert figures(films(4, 0, side=8), [films(4, 1, side=8)]) == {}


def test_inception_judges_two_films_or_more(tmp_path):
    file = tmp_path / INCEPTION_FILE
    torch.save(random_weights(InceptionV3().published_shapes(), 0), file)
    real, made = films(2, 0), films(2, 1)
    found = figures(real, [made], str(file))
    assert list(found) == ["swd_16", "swd_mean", "judged_films", "fid", "fid_weights"]
    assert found["fid"] > 0
    assert found["fid_weights"] == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert list(figures(real[:1], [made[:1]], str(file))) == ["swd_16", "swd_mean", "judged_films"]


def test_missing_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    check_inception("")
    with pytest.raises(ConfigError, match=f"weights for FID were not found .* with --set inception=FILE: {INCEPTION_FILE}"):
        check_inception(str(tmp_path))
