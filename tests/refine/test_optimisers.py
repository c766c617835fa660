"""Each slot is optimised as if it were alone: Adam is torch's, L-BFGS descends, and neither sees neighbours, slots or former films."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from engine.errors import ConfigError
from engine.refine.optimisers import OPTIMISERS, Optimiser, build_optimiser

CODE = (2, 12)
Losses = Callable[[Tensor], tuple[Tensor, Tensor]]


def free(codes: Tensor) -> Tensor:
    return codes


def sphere(codes: Tensor) -> Tensor:
    return codes * math.sqrt(codes.shape[-1]) / codes.norm(dim=-1, keepdim=True)


def banana(film: Tensor) -> Losses:
    """Rosenbrock's function about a point for each film [S, *CODE], in pairs of entries: loss [S] and gradient, row by row."""

    def evaluate(codes: Tensor) -> tuple[Tensor, Tensor]:
        a, b = (codes - film).unflatten(-1, (-1, 2)).unbind(-1)
        valley = b + 1 - (a + 1).square()
        loss = (valley.square() * 10 + a.square()).flatten(1).sum(1)
        slope = torch.stack([2 * a - 40 * valley * (a + 1), 20 * valley], -1).flatten(-2)
        return loss, slope

    return evaluate


def toy(film: Tensor) -> Losses:
    """A loss that ignores the length of codes, as a generator with pixel norm does: smooth, not convex."""
    mix = torch.randn(CODE[1], CODE[1], generator=torch.Generator().manual_seed(5), dtype=torch.float64).float()

    def one(code: Tensor, target: Tensor) -> Tensor:
        return (torch.tanh(sphere(code)[..., None, :] * mix).sum(-1) - target).square().sum()

    def evaluate(codes: Tensor) -> tuple[Tensor, Tensor]:  # row by row, so that the test's own rounding knows no slots either
        rows = [torch.func.grad_and_value(one)(code, target) for code, target in zip(codes, film, strict=True)]
        return torch.stack([value for _, value in rows]), torch.stack([slope for slope, _ in rows])

    return evaluate


def path(optimiser: Optimiser, codes: Tensor, evaluate: Losses, steps: int, project: Callable[[Tensor], Tensor] = free) -> Tensor:
    """Codes and losses of every evaluation: [steps, S, 1 + entries]."""
    found = []
    for _ in range(steps):
        loss, gradient = evaluate(codes)
        found.append(torch.cat([loss[:, None], codes.flatten(1)], 1))
        codes = project(optimiser.step(codes, loss, gradient, torch.ones(len(codes), dtype=torch.bool)))
    return torch.stack(found)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_adam_is_torch_adam_on_each_film() -> None:
    start = draw(3, *CODE)
    gradients = [draw(3, *CODE, seed=1 + step) * 10.0 ** (-3 * step) for step in range(6)]
    expected = []
    for row, first in ((0, 0), (1, 3), (2, 0)):  # the film in slot 1 comes three steps later
        code = start[row].clone().requires_grad_(True)
        reference = torch.optim.Adam([code], lr=0.03)
        for gradient in gradients[first:]:
            code.grad = gradient[row].clone()
            reference.step()
        expected.append(code.detach())

    adam, codes = build_optimiser("adam", start, lr=0.03), start
    for step, gradient in enumerate(gradients):
        if step == 3:
            adam.start(torch.tensor([1]))
            codes = torch.stack([codes[0], start[1], codes[2]])
        codes = adam.step(codes, torch.zeros(3), gradient, torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(codes, torch.stack(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "metric"), [("adam", None), ("lbfgs", None), ("lbfgs", 0.1 * draw(7, math.prod(CODE)))])
def test_a_film_takes_one_path_in_every_slot_and_company(name: str, metric: Tensor | None) -> None:
    start, film = sphere(draw(5, *CODE)), draw(5, *CODE, seed=1)
    home = path(build_optimiser(name, start, lr=0.1, metric=metric), start, toy(film), 30, sphere)
    order = torch.tensor([3, 0, 4, 4, 1])
    moved = path(build_optimiser(name, start, lr=0.1, metric=metric), start[order], toy(film[order]), 30, sphere)
    assert torch.equal(moved, home[:, order])


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_new_film_finds_nothing_of_the_former(name: str) -> None:
    start, film, later = draw(3, *CODE), draw(3, *CODE, seed=1), draw(3, *CODE, seed=2)
    fresh = path(build_optimiser(name, start, lr=0.1), start, banana(later), 12)
    used = build_optimiser(name, start, lr=0.1)
    path(used, start, banana(film), 12)
    used.step(start, torch.full((3,), torch.nan), torch.full_like(start, torch.nan), torch.ones(3, dtype=torch.bool))
    used.start(torch.tensor([2, 0]))
    again = path(used, start, banana(later), 12)
    assert torch.equal(again[:, [0, 2]], fresh[:, [0, 2]])


@pytest.mark.parametrize("name", OPTIMISERS)
def test_slots_that_rest_keep_codes_and_state(name: str) -> None:
    start, film = draw(3, *CODE), draw(3, *CODE, seed=1)
    evaluate, expected = banana(film), path(build_optimiser(name, start, lr=0.1), start, banana(film), 10)
    optimiser, codes, seen = build_optimiser(name, start, lr=0.1), start, []
    for turn in range(19):
        active = torch.tensor([True, turn % 2 == 0, True])
        loss, gradient = evaluate(codes)
        if active[1]:
            seen.append(codes[1])
        else:
            loss[1], gradient[1] = torch.nan, torch.inf  # what an empty slot evaluates to is nobody's business
        proposed = optimiser.step(codes, loss, gradient, active)
        assert active[1] or torch.equal(proposed[1], codes[1])
        codes = proposed
    assert torch.equal(torch.stack(seen), expected[:, 1, 1:].reshape(-1, *CODE))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_what_is_not_finite_stays_in_its_slot(name: str) -> None:
    start, film = draw(3, *CODE), draw(3, *CODE, seed=1)
    evaluate = banana(film)

    def broken(codes: Tensor) -> tuple[Tensor, Tensor]:
        loss, gradient = evaluate(codes)
        loss[1], gradient[1] = torch.nan, torch.inf
        return loss, gradient

    clean = path(build_optimiser(name, start, lr=0.1), start, evaluate, 10)
    dirty = path(build_optimiser(name, start, lr=0.1), start, broken, 10)
    assert torch.equal(dirty[:, [0, 2]], clean[:, [0, 2]])


@pytest.mark.parametrize("name", OPTIMISERS)
def test_arguments_stay_as_they_are(name: str) -> None:
    optimiser, codes, loss, gradient = build_optimiser(name, draw(2, *CODE), lr=0.1), draw(2, *CODE), draw(2), draw(2, *CODE, seed=1)
    before = [tensor.clone() for tensor in (codes, loss, gradient)]
    active = torch.tensor([True, False])
    for _ in range(3):
        optimiser.step(codes, loss, gradient, active)
    for tensor, copy in zip((codes, loss, gradient), before, strict=True):
        assert torch.equal(tensor, copy)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_first_step_moves_entries_by_the_learning_rate(name: str) -> None:
    codes, gradient = draw(2, *CODE), draw(2, *CODE, seed=1)
    moved = build_optimiser(name, codes, lr=0.05).step(codes, draw(2), gradient, torch.ones(2, dtype=torch.bool)) - codes
    torch.testing.assert_close(moved.flatten(1).square().mean(1).sqrt(), torch.full((2,), 0.05))
    assert ((moved * gradient).flatten(1).sum(1) < 0).all()


def test_lbfgs_needs_far_fewer_evaluations_than_adam() -> None:
    start, film = draw(8, *CODE), draw(8, *CODE, seed=1)
    adam, lbfgs = (path(build_optimiser(name, start, lr=0.1), start, banana(film), 100)[..., 0].min(0).values for name in ("adam", "lbfgs"))
    assert (lbfgs < 1e-3 * adam).all()


def test_lbfgs_on_a_sphere_descends() -> None:
    start, film = sphere(draw(4, *CODE)), draw(4, *CODE, seed=1)
    losses = path(build_optimiser("lbfgs", start, lr=0.1), start, toy(film), 30, sphere)[..., 0]
    adam = path(build_optimiser("adam", start, lr=0.1), start, toy(film), 30, sphere)[..., 0]
    assert (losses.min(0).values <= losses[0]).all()
    assert losses.min(0).values.mean() < adam.min(0).values.mean()


def test_a_rejected_trial_loses_nothing() -> None:
    codes, active = torch.zeros(1, 1, 4), torch.ones(1, dtype=torch.bool)
    slope = torch.tensor([[[3.0, 0.0, 4.0, 0.0]]])
    lbfgs = build_optimiser("lbfgs", codes, lr=0.1)
    trial = lbfgs.step(codes, torch.tensor([1.0]), slope, active)
    lengths = [trial.norm()]
    for loss in (torch.nan, 50.0):
        trial = lbfgs.step(trial, torch.tensor([loss]), torch.full_like(slope, loss), active)
        torch.testing.assert_close(trial / trial.norm(), -slope / 5)  # still on the way down from the start
        lengths.append(trial.norm())
    ratios = torch.stack(lengths[1:]) / torch.stack(lengths[:-1])
    assert ((ratios > 0.0999) & (ratios < 0.5001)).all()


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_step_never_asks_for_a_value(name: str) -> None:
    with FakeTensorMode():  # tensors without values: whatever would wait for the device raises here
        codes, active = torch.zeros(3, *CODE), torch.ones(3, dtype=torch.bool)
        optimiser = build_optimiser(name, codes, lr=0.1)
        optimiser.start(torch.tensor([0, 2]))
        assert optimiser.step(codes, torch.zeros(3), codes, active).shape == codes.shape


def test_a_film_that_nothing_helps_starts_afresh() -> None:
    start, film, active = draw(1, *CODE), draw(1, *CODE, seed=1), torch.ones(1, dtype=torch.bool)
    lbfgs, evaluate = build_optimiser("lbfgs", start, lr=0.1), banana(film)
    path(lbfgs, start, evaluate, 8)
    base = lbfgs.step(start, *evaluate(start), active)  # whatever it is, it is judged next
    lengths = []
    for _ in range(12):
        base = lbfgs.step(base, torch.tensor([torch.inf]), torch.zeros_like(start), active)
        lengths.append(base)
    steps = torch.stack(lengths).diff(dim=0).flatten(1).norm(dim=1)
    assert steps.max() > 100 * steps[steps.argmax() - 1]  # shorter and shorter, then a first step again


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="optimiser must be one of adam, lbfgs: sgd"):
        build_optimiser("sgd", torch.zeros(1, 1, 4), lr=0.1)
