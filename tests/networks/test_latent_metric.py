"""The metric finds a generator's stiff directions, and spares L-BFGS the evaluations that it would find them with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.networks.latent_metric import fit_metric
from engine.refine.optimisers import build_optimiser

SIZE = 24


def spectrum() -> Tensor:
    return torch.logspace(0, -4, SIZE)  # how strongly each direction shows in a film


def frame() -> Tensor:
    return torch.linalg.qr(torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(0)))[0]


def generate(codes: Tensor) -> Tensor:
    """Linear in the code, along directions of very different strength: codes [n, 1, 24] -> films [n, 1, 4, 6]."""
    return (codes[:, 0] @ frame().T * spectrum()).reshape(-1, 1, 4, 6)


def batches(count: int = 32) -> list[Tensor]:
    return [torch.randn(16, 1, SIZE, generator=torch.Generator().manual_seed(seed)) for seed in range(count)]


def test_stiff_directions_come_first() -> None:
    metric = fit_metric(generate, batches(), rank=4)
    assert metric.shape == (4, SIZE)
    gram = metric @ metric.T
    torch.testing.assert_close(gram, gram.diagonal().diag(), rtol=0, atol=1e-5)
    assert (gram.diagonal() < 1).all()
    assert (gram.diagonal().diff() < 0).all()
    assert (metric[0] @ frame()[0]).abs() / metric[0].norm() > 0.99


def test_equals_the_inverse_of_the_mean_with_its_ridge() -> None:
    metric = fit_metric(generate, batches(2), rank=SIZE).double()
    draw = torch.Generator().manual_seed(0)
    samples = torch.cat([torch.randn(16, 1, 4, 6, generator=draw).reshape(16, -1) * spectrum() @ frame() for _ in range(2)]).double()
    samples = samples / samples.norm(dim=1, keepdim=True)
    expected = torch.linalg.inv(samples.T @ samples / len(samples) * SIZE + torch.eye(SIZE, dtype=torch.float64))
    torch.testing.assert_close(torch.eye(SIZE, dtype=torch.float64) - metric.T @ metric, expected, rtol=1e-5, atol=1e-6)


def test_a_metric_spares_lbfgs_evaluations() -> None:
    target = generate(torch.randn(6, 1, SIZE, generator=torch.Generator().manual_seed(9)))
    losses = []
    for metric in (None, fit_metric(generate, batches(), rank=12)):
        codes = torch.zeros(6, 1, SIZE)
        optimiser = build_optimiser("lbfgs", codes, lr=0.1, metric=metric)
        for _ in range(8):
            leaf = codes.requires_grad_(True)
            loss = (generate(leaf) - target).square().flatten(1).mean(1)
            codes = optimiser.step(leaf.detach(), loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0], torch.ones(6, dtype=torch.bool))
        losses.append(loss.detach())
    assert losses[1].mean() < 0.4 * losses[0].mean()


def test_inference_mode_makes_no_difference() -> None:
    expected = fit_metric(generate, batches(2))
    with torch.inference_mode():
        found = fit_metric(generate, batches(2))
    assert torch.equal(found, expected)


def test_films_that_do_not_change_are_refused() -> None:
    with pytest.raises(ValueError, match="a metric needs films that change with their codes: 16 do not"):
        fit_metric(lambda codes: (0 * codes).reshape(-1, 1, 4, 6), batches(1))


def test_a_metric_of_other_codes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"metric must be \[k, 24\]: \[4, 12\]"):
        build_optimiser("lbfgs", torch.zeros(2, 1, SIZE), lr=0.1, metric=torch.zeros(4, 12))
