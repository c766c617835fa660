"""Streamed principal components against NumPy's singular value decomposition, and what is lost when films no longer fit."""

import numpy as np
import pytest
import torch

from trainers.reservoir import Reservoir
from trainers.streamed_pca import StreamedPca


def films(n, d, *, rank=None, seed=0):
    """Rows about a mean, their spectrum falling as that of films does; `rank` cuts it off."""
    rng = np.random.default_rng(seed)
    spread = 1 / (1 + np.arange(min(n, d))) ** 0.9
    spread[rank or len(spread) :] = 0
    directions = np.linalg.qr(rng.normal(size=(d, len(spread))))[0]
    return torch.from_numpy(rng.normal(size=(n, len(spread))) * spread @ directions.T + rng.uniform(-0.5, 0.5, d)).float()


def fitted(rows, k, *, buffer, keep, batch=7):
    pca = StreamedPca(rows.shape[1], rows=buffer, keep=keep)
    for part in torch.split(rows, batch):
        pca.add(part)
    assert pca.num_films == len(rows)
    return pca.finish(k)


def svd(rows, k):
    mean = rows.double().mean(0).numpy()
    centred = rows.double().numpy() - mean
    _, values, vectors = np.linalg.svd(centred, full_matrices=False)
    return mean, vectors[:k], values[:k] / np.sqrt(len(rows) - 1), (values**2).cumsum()[:k] / (values**2).sum()


def assert_same(fit, exact, *, rtol):
    mean, vectors, scale, explained = exact
    np.testing.assert_allclose(fit.mean.numpy(), mean, atol=1e-5)
    np.testing.assert_allclose(fit.scale.numpy(), scale, rtol=rtol)
    np.testing.assert_allclose(fit.explained.numpy(), explained, rtol=rtol)
    cosines = (fit.components.double().numpy() * vectors).sum(1)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=rtol)


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_equals_numpys_decomposition(batch):
    rows = films(40, 90)
    fit = fitted(rows, 10, buffer=64, keep=20, batch=batch)
    assert fit.is_exact
    assert fit.num_films == 40
    assert_same(fit, svd(rows, 10), rtol=1e-4)


@pytest.mark.parametrize("buffer", [22, 30, 61, 150])
def test_streaming_loses_nothing_of_what_fits_the_kept_rank(buffer):
    rows = films(150, 90, rank=18)
    fit = fitted(rows, 10, buffer=buffer, keep=20)
    assert not fit.is_exact
    assert_same(fit, svd(rows, 10), rtol=1e-3)


def test_streaming_loses_little_and_counts_all_the_variance():
    rows = films(600, 200)
    exact = svd(rows, 16)[3][-1]
    fit = fitted(rows, 16, buffer=96, keep=32)
    true_share = _share(rows, fit)
    assert not fit.is_exact
    assert 0.98 * exact < true_share <= exact + 1e-6  # it cannot beat the best
    assert float(fit.explained[-1]) <= true_share + 1e-4  # nor may it claim more than it holds
    coarse = _share(rows, fitted(rows, 16, buffer=96, keep=16))
    assert coarse < true_share  # what keeping more is for


def _share(rows, fit):
    centred = rows.double() - rows.double().mean(0)
    return float((centred @ fit.components.double().T).square().sum() / centred.square().sum())


def test_components_are_orthonormal_and_have_one_sign():
    rows = films(300, 120)
    fit = fitted(rows, 24, buffer=80, keep=48)
    torch.testing.assert_close(fit.components @ fit.components.T, torch.eye(24), atol=1e-5, rtol=0)
    strongest = fit.components.gather(1, fit.components.abs().argmax(1, keepdim=True))
    assert (strongest > 0).all()
    torch.testing.assert_close(fitted(rows, 24, buffer=80, keep=48).components, fit.components, rtol=0, atol=0)


def test_a_mean_that_drifts_between_blocks_is_followed():
    rows = films(120, 60, rank=6) + torch.linspace(0, 4, 120)[:, None]  # as when a folder is sorted by machine
    assert_same(fitted(rows, 5, buffer=30, keep=12), svd(rows, 5), rtol=1e-3)


def test_fewer_directions_than_asked_for():
    assert len(fitted(films(5, 40), 10, buffer=64, keep=20).components) == 4
    repeated = films(3, 40).repeat(4, 1)
    assert len(fitted(repeated, 10, buffer=64, keep=20).components) == 2
    assert len(fitted(torch.ones(6, 40), 10, buffer=64, keep=20).components) == 0


def test_reservoir_is_a_fair_sample():
    counts = np.zeros(20)
    for seed in range(400):
        reservoir = Reservoir(5, seed=seed)
        for part in torch.split(torch.arange(20.0)[:, None], 3):
            reservoir.add(part)
        kept = reservoir.films()
        assert kept.shape == (5, 1)
        counts[kept[:, 0].long().numpy()] += 1
    assert counts.sum() == 2000
    assert abs(counts - 100).max() < 4.5 * np.sqrt(400 * 0.25 * 0.75)


def test_reservoir_keeps_all_when_there_are_few():
    reservoir = Reservoir(5, seed=0)
    reservoir.add(torch.arange(3.0)[:, None])
    assert reservoir.films()[:, 0].tolist() == [0, 1, 2]
