"""Refinement keeps the best code of each film, stops each on its own, and is never worse than the start."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engine.config import RefineConfig
from engine.refine.descent import refine
from engine.refine.kept import LEAST_GAIN
from tests.refine.descents import (
    OPTIMISERS,
    SIDE,
    Generator,
    Make,
    OptimiserName,
    Problem,
    assert_same,
    free,
    loss_of,
    make_generator,
    make_problem,
    replay,
    run,
    sphere,
    stage_of,
)


@pytest.fixture(scope="module")
def generator() -> Generator:
    return make_generator()


@pytest.fixture
def problem(generator: Generator) -> Problem:
    return make_problem(generator)


@pytest.mark.parametrize("project", [free, sphere])
@pytest.mark.parametrize("lr", [0.05, 1.5])  # the second overshoots, so that the best code is not the last
def test_equals_adam_on_each_film_alone_and_keeps_its_best(generator: Generator, problem: Problem, project: Make, lr: float) -> None:
    cfg = RefineConfig(steps=25, lr=lr, optimiser="adam")
    result = run(generator, project, problem, cfg, slots=4)
    best_steps = []
    for row in range(6):
        visited = replay(generator, project, problem.start[row], problem.pixels[row], cfg)
        best = min(range(len(visited)), key=lambda step: visited[step][0])
        best_steps.append(best)
        assert result.loss_initial[row].item() == pytest.approx(visited[0][0], rel=1e-5)
        assert result.loss[row].item() == pytest.approx(visited[best][0], rel=1e-4)
        assert result.steps[row] == best
        torch.testing.assert_close(result.latents[row], visited[best][1], rtol=1e-3, atol=1e-4)
    assert result.stop == ["budget"] * 6
    if lr > 1:
        assert min(best_steps) < 25


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_loss_is_that_of_exactly_the_kept_code(generator: Generator, problem: Problem, optimiser: OptimiserName) -> None:
    result = run(generator, sphere, problem, RefineConfig(steps=15, lr=1.0, optimiser=optimiser))
    torch.testing.assert_close(result.loss, loss_of(generator, result.latents, problem.pixels), rtol=1e-6, atol=0)
    torch.testing.assert_close(result.loss_initial, loss_of(generator, problem.start, problem.pixels), rtol=1e-6, atol=0)
    assert (result.loss < 0.9 * result.loss_initial).all()


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("lr", [1e-3, 0.1, 30.0, 1e20])
def test_never_worse_than_the_start(generator: Generator, problem: Problem, lr: float, optimiser: OptimiserName) -> None:
    before = problem.start.clone()
    result = run(generator, free, problem, RefineConfig(steps=8, lr=lr, optimiser=optimiser))
    assert (result.loss <= result.loss_initial).all()
    assert torch.equal(problem.start, before)
    unmoved = torch.tensor(result.steps) == 0
    assert torch.equal(result.latents[unmoved], problem.start[unmoved])


def test_codes_stay_on_the_gauge(generator: Generator, problem: Problem) -> None:
    result = run(generator, sphere, problem, RefineConfig(steps=10))
    assert min(result.steps) > 0
    torch.testing.assert_close(result.latents.norm(dim=-1), torch.full((6, 2), math.sqrt(6)))


def test_is_deterministic(generator: Generator, problem: Problem) -> None:
    cfg = RefineConfig(steps=10, patience=3)
    assert_same(run(generator, sphere, problem, cfg), run(generator, sphere, problem, cfg))


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_bad_films_and_codes_end_as_diverged_and_the_others_do_not_notice(
    generator: Generator, problem: Problem, optimiser: OptimiserName
) -> None:
    latents, pixels = problem.start.clone(), problem.pixels.clone()
    pixels[1, 0, 3, 3] = torch.nan
    pixels[2] = torch.inf
    latents[4, 0, 0] = torch.inf
    cfg = RefineConfig(steps=10, optimiser=optimiser)
    result = run(generator, sphere, Problem(latents, pixels), cfg, slots=4)
    assert [word == "diverged" for word in result.stop] == [False, True, True, False, True, False]
    assert result.rows([1, 2, 4]).steps == [0, 0, 0]
    assert torch.equal(result.latents[[1, 2, 4]], latents[[1, 2, 4]])
    assert not result.loss[[1, 2]].isfinite().any()
    good = [0, 3, 5]
    assert_same(run(generator, sphere, problem.rows(good), cfg, slots=4), result.rows(good))


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_film_that_diverges_later_keeps_its_best_finite_code(optimiser: OptimiserName) -> None:
    def brittle(latents: Tensor) -> Tensor:
        """A square root: past zero, where the target pulls film 0, loss and gradient are NaN."""
        return latents[:, 0, 0].sqrt().reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)

    targets = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 1, 4, 4)
    problem = Problem(torch.full((2, 1, 1), 0.5), targets)
    result = run(brittle, free, problem, RefineConfig(steps=30, lr=0.2, optimiser=optimiser))
    assert result.stop == ["diverged", "budget"]
    if optimiser == "adam":
        assert result.steps[0] == 2  # 0.5, 0.3, 0.1, then below zero
    assert result.latents.isfinite().all()
    torch.testing.assert_close(result.loss, loss_of(brittle, result.latents, targets))
    assert result.latents[1].item() == pytest.approx(1, abs=0.05)


def test_a_gradient_that_is_not_finite_freezes_a_good_code() -> None:
    def masked(latents: Tensor) -> Tensor:
        """The root is never taken, but its infinite slope times 0 makes the gradient of the second number NaN."""
        first, second = latents[:, 0, 0], latents[:, 0, 1]
        return torch.where(first < 9, first, second.sqrt()).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)

    result = run(masked, free, Problem(torch.zeros(1, 1, 2), torch.ones(1, 1, 4, 4)), RefineConfig(steps=3))
    assert (result.stop, result.steps, result.latents.tolist()) == (["diverged"], [0], [[[0.0, 0.0]]])
    assert result.loss.item() == 0.25


def test_a_code_that_is_not_finite_is_no_candidate_even_with_a_finite_film() -> None:
    def bounded(latents: Tensor) -> Tensor:
        return torch.tanh(latents).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)

    result = run(bounded, free, Problem(torch.full((1, 1, 1), torch.inf), torch.zeros(1, 1, 4, 4)), RefineConfig(steps=3))
    assert (result.stop, result.steps) == (["diverged"], [0])


def test_target_stops_at_the_first_code_that_reaches_it(generator: Generator, problem: Problem) -> None:
    cfg = RefineConfig(steps=12, lr=0.1, target_mse=9e-4, optimiser="adam")
    result = run(generator, sphere, problem, cfg)
    assert set(result.stop) == {"target", "budget"}
    for row, word in enumerate(result.stop):
        losses = [loss for loss, _ in replay(generator, sphere, problem.start[row], problem.pixels[row], cfg)]
        reached = [step for step, loss in enumerate(losses) if loss <= cfg.target_mse]
        assert (word == "target") == bool(reached)
        if reached:
            assert result.steps[row] == reached[0]


def test_target_is_of_the_error_whatever_its_weight(generator: Generator, problem: Problem) -> None:
    cfg = RefineConfig(steps=12, lr=0.1, target_mse=9e-4, optimiser="adam")
    once = run(generator, sphere, problem, cfg)
    tenfold = run(generator, sphere, problem, replace(cfg, loss=(("mse", 10.0),)))
    assert tenfold.stop == once.stop
    torch.testing.assert_close(tenfold.loss, 10 * once.loss, rtol=1e-3, atol=0)


def test_plateau_counts_steps_without_a_gain(generator: Generator, problem: Problem) -> None:
    cfg = RefineConfig(steps=60, lr=1.0, patience=4, optimiser="adam")
    result = run(generator, sphere, problem, cfg)
    assert "plateau" in result.stop
    for row in range(6):
        losses = [loss for loss, _ in replay(generator, sphere, problem.start[row], problem.pixels[row], cfg)]
        milestone, end = 0, cfg.steps
        for step, loss in enumerate(losses):
            if loss < losses[milestone] * (1 - LEAST_GAIN):
                milestone = step
            elif step - milestone >= cfg.patience:
                end = step
                break
        assert result.stop[row] == ("plateau" if end < cfg.steps else "budget")
        assert result.steps[row] == min(range(end + 1), key=losses.__getitem__)


@pytest.mark.parametrize(("optimiser", "steps", "lr"), [("adam", 600, 0.05), ("lbfgs", 40, 0.1)])
def test_reaches_the_known_optimum_of_least_squares(optimiser: OptimiserName, steps: int, lr: float) -> None:
    draw = torch.Generator().manual_seed(2)
    basis = torch.linalg.qr(torch.randn(64, 5, generator=draw))[0].T  # [5, 64], orthonormal rows
    target = torch.rand(3, 1, 8, 8, generator=draw) * 2 - 1
    optimum = target.flatten(1) @ basis.T

    def linear(latents: Tensor) -> Tensor:
        return (latents.flatten(1) @ basis).reshape(-1, 1, 8, 8)

    cfg = RefineConfig(steps=steps, lr=lr, optimiser=optimiser)
    result = run(linear, free, Problem(torch.zeros(3, 1, 5), target), cfg)
    torch.testing.assert_close(result.latents.flatten(1), optimum, rtol=0, atol=2e-3)


def test_works_in_inference_mode_and_on_what_it_left_behind(generator: Generator, problem: Problem) -> None:
    cfg = RefineConfig(steps=3)
    expected = run(generator, sphere, problem, cfg)
    with torch.inference_mode():
        within = run(generator, sphere, Problem(problem.start * 1, problem.pixels * 1), cfg)
        assert torch.is_inference_mode_enabled()
        left = Problem(problem.start * 1, problem.pixels * 1).films()
    films = list(refine(left, [stage_of(generator, cfg, resolution=SIDE)], sphere, cfg, slots=8))
    assert not any(film.code.is_inference() for film in films)
    assert torch.equal(torch.stack([film.code for film in films]), expected.latents)
    assert torch.equal(within.latents, expected.latents)


def test_codes_stay_float32_under_a_half_precision_generator(generator: Generator, problem: Problem) -> None:
    def half(latents: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return generator(latents)

    result = run(half, sphere, problem, RefineConfig(steps=5))
    assert result.latents.dtype == torch.float32
    assert (result.loss < result.loss_initial).all()


def test_weights_that_ask_for_gradients_get_none(problem: Problem) -> None:
    trained = Generator()
    run(trained, sphere, problem, RefineConfig(steps=2))
    assert all(weight.grad is None for weight in trained.parameters())
