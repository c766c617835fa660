"""Refinement keeps the best code of each film, stops each on its own, and never lets one film touch another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from engine import metrics
from engine.config import RefineConfig
from engine.refine.descent import ROWS_AT_ONCE, Film, Stage, refine
from engine.refine.gradient import Found, by_autograd
from engine.refine.kept import LEAST_GAIN
from engine.refine.objective import Objective
from engine.refine.schedule import Level

CODE = (2, 6)
SIDE = 16
OPTIMISERS: tuple[Literal["adam", "lbfgs"], ...] = ("adam", "lbfgs")
Make = Callable[[Tensor], Tensor]


class Generator(nn.Module):
    """Codes [n, 2, 6] -> films [n, 1, 16, 16]: smooth, not linear, and of course without any mixing of films."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(math.prod(CODE), 8 * 16)
        self.conv = nn.Conv2d(8, 4, 3, padding=1)
        self.gray = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        x = torch.tanh(self.linear(latents.flatten(1))).reshape(-1, 8, 4, 4)
        x = torch.tanh(self.conv(nn.functional.interpolate(x, scale_factor=2)))
        return torch.tanh(self.gray(nn.functional.interpolate(x, scale_factor=2)))


@dataclass
class Problem:
    """Films [n, 1, R, R] and codes [n, *shape] to start from."""

    start: Tensor
    pixels: Tensor

    def rows(self, index: list[int]) -> Problem:
        return Problem(self.start[index], self.pixels[index])

    def films(self) -> list[Film]:
        return [
            Film(key=at, pixels=film, start=code, code=code) for at, (film, code) in enumerate(zip(self.pixels, self.start, strict=True))
        ]


@dataclass
class Result:
    """What refinement made of n films, in the order in which they came, and the order in which they ended."""

    latents: Tensor
    steps: list[int]
    loss_initial: Tensor
    loss: Tensor
    stop: list[str]
    order: list[object]

    def rows(self, index: list[int]) -> Result:
        return Result(
            latents=self.latents[index],
            steps=[self.steps[at] for at in index],
            loss_initial=self.loss_initial[index],
            loss=self.loss[index],
            stop=[self.stop[at] for at in index],
            order=[],
        )


def stage_of(generate: Make, cfg: RefineConfig, *, resolution: int = 0, steps: int | None = None) -> Stage:
    """A level on eager autograd; `resolution` 0 is what `generate` makes."""
    objective = Objective(cfg.loss)
    level = Level(resolution=resolution, steps=cfg.steps if steps is None else steps)
    return Stage(level=level, features=objective.features, gradient=by_autograd(generate, objective))


def run(generate: Make, project: Make, problem: Problem, cfg: RefineConfig, *, slots: int = 8, stages: list[Stage] | None = None) -> Result:
    side = problem.pixels.shape[-1]
    ended = list(refine(problem.films(), stages or [stage_of(generate, cfg, resolution=side)], project, cfg, slots=slots))
    films = sorted(ended, key=lambda film: int(str(film.key)))
    assert [film.key for film in films] == list(range(len(problem.pixels)))
    return Result(
        latents=torch.stack([film.code for film in films]),
        steps=[film.steps for film in films],
        loss_initial=torch.tensor([film.loss_initial for film in films]),
        loss=torch.tensor([film.loss for film in films]),
        stop=[film.stop for film in films],
        order=[film.key for film in ended],
    )


def assert_same(found: Result, expected: Result) -> None:
    """Bit for bit."""
    assert torch.equal(found.latents, expected.latents)
    assert torch.equal(found.loss, expected.loss)
    assert torch.equal(found.loss_initial, expected.loss_initial)
    assert (found.steps, found.stop) == (expected.steps, expected.stop)


class Watched:
    """A gradient that notes how many rows each evaluation had."""

    def __init__(self, stage: Stage) -> None:
        self.rows: list[int] = []
        self.stage = replace(stage, gradient=self._gradient)
        self._run = stage.gradient

    def _gradient(self, latents: Tensor, features: tuple[Tensor, ...]) -> Found:
        self.rows.append(len(latents))
        return self._run(latents, features)


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator().requires_grad_(False).eval()


def sphere(latents: Tensor) -> Tensor:
    return latents * math.sqrt(latents.shape[-1]) / latents.norm(dim=-1, keepdim=True)


def free(latents: Tensor) -> Tensor:
    return latents


@pytest.fixture
def problem(generator: Generator) -> Problem:
    """Six films that the generator can nearly make, and codes at some distance from theirs."""
    draw = torch.Generator().manual_seed(1)
    truth = sphere(torch.randn(6, *CODE, generator=draw))
    pixels = (generator(truth) + 0.05 * torch.randn(6, 1, SIDE, SIDE, generator=draw)).clamp(-1, 1)
    return Problem(sphere(truth + 0.8 * torch.randn(6, *CODE, generator=draw)), pixels)


def many(generator: Generator, count: int) -> Problem:
    """`count` films, of which some are near their start and some are far from it."""
    draw = torch.Generator().manual_seed(2)
    truth = sphere(torch.randn(count, *CODE, generator=draw))
    distance = torch.linspace(0.1, 1.2, count).reshape(-1, 1, 1)
    return Problem(sphere(truth + distance * torch.randn(count, *CODE, generator=draw)), generator(truth))


def loss_of(generate: Make, latents: Tensor, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return metrics.mse(metrics.to_unit(generate(latents)), metrics.to_unit(pixels))


def replay(generate: Make, project: Make, start: Tensor, film: Tensor, cfg: RefineConfig) -> list[tuple[float, Tensor]]:
    """Every code of one film and its loss, by torch.optim.Adam on that film alone."""
    code = start[None].clone().requires_grad_(True)
    optimiser = torch.optim.Adam([code], lr=cfg.lr)
    visited = []
    for _ in range(cfg.steps + 1):
        loss = ((generate(code) - film[None]) / 2).square().mean()
        visited.append((loss.item(), code[0].detach().clone()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            code.copy_(project(code))
    return visited


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
def test_loss_is_that_of_exactly_the_kept_code(generator: Generator, problem: Problem, optimiser: Literal["adam", "lbfgs"]) -> None:
    result = run(generator, sphere, problem, RefineConfig(steps=15, lr=1.0, optimiser=optimiser))
    torch.testing.assert_close(result.loss, loss_of(generator, result.latents, problem.pixels), rtol=1e-6, atol=0)
    torch.testing.assert_close(result.loss_initial, loss_of(generator, problem.start, problem.pixels), rtol=1e-6, atol=0)
    assert (result.loss < 0.9 * result.loss_initial).all()


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("lr", [1e-3, 0.1, 30.0, 1e20])
def test_never_worse_than_the_start(generator: Generator, problem: Problem, lr: float, optimiser: Literal["adam", "lbfgs"]) -> None:
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


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_code_has_the_same_bits_whatever_the_neighbours_the_slot_and_the_order(
    generator: Generator, optimiser: Literal["adam", "lbfgs"]
) -> None:
    problem = many(generator, 11)
    cfg = RefineConfig(steps=12, target_mse=2e-4 if optimiser == "adam" else 2e-5, patience=6, optimiser=optimiser)
    together = run(generator, sphere, problem, cfg, slots=8)
    assert len(set(together.steps)) > 2  # films leave at different times, and the last ones are few
    assert together.order != list(range(11))
    order = torch.randperm(11, generator=torch.Generator().manual_seed(3)).tolist()
    assert_same(run(generator, sphere, problem.rows(order), cfg, slots=8), together.rows(order))
    for row in range(11):
        assert_same(run(generator, sphere, problem.rows([row]), cfg, slots=8), together.rows([row]))
    few = run(generator, sphere, problem, cfg, slots=1)  # fewer rows than a CPU multiplies at once: up to rounding
    torch.testing.assert_close(few.latents, together.latents, rtol=1e-2, atol=1e-3)


def test_is_deterministic(generator: Generator, problem: Problem) -> None:
    cfg = RefineConfig(steps=10, patience=3)
    assert_same(run(generator, sphere, problem, cfg), run(generator, sphere, problem, cfg))


def test_slots_are_refilled_while_others_go_on(generator: Generator) -> None:
    problem = many(generator, 24)
    cfg = RefineConfig(steps=40, target_mse=1e-4)
    watched = Watched(stage_of(generator, cfg, resolution=SIDE))
    result = run(generator, sphere, problem, cfg, slots=8, stages=[watched.stage])
    needed = []
    for row in range(24):
        alone = Watched(stage_of(generator, cfg, resolution=SIDE))
        run(generator, sphere, problem.rows([row]), cfg, slots=8, stages=[alone.stage])
        needed.append(len(alone.rows))
    assert len(set(needed)) > 4
    # a film waits for no other: no evaluation without all slots busy before the films run out, and then only the last ones are left
    assert len(watched.rows) <= -(-sum(needed) // 8) + max(needed)
    assert len(watched.rows) < sum(max(needed[at : at + 8]) for at in (0, 8, 16))  # what three batches one after another would take
    assert sum(watched.rows) <= sum(needed) + (ROWS_AT_ONCE - 1) * max(needed)  # and idle slots cost next to nothing
    assert set(result.stop) <= {"target", "budget"}


def test_films_are_pulled_only_when_a_slot_is_free(generator: Generator) -> None:
    problem, cfg = many(generator, 12), RefineConfig(steps=4)
    taken, ended = [], 0

    def films() -> Iterator[Film]:
        for film in problem.films():
            taken.append(film.key)
            assert len(taken) - ended <= 3 * 2  # three slots in each of two levels
            yield film

    coarse = stage_of(lambda z: nn.functional.avg_pool2d(generator(z), 2), cfg, resolution=SIDE // 2)
    stream = refine(films(), [coarse, stage_of(generator, cfg, resolution=SIDE)], sphere, cfg, slots=3)
    assert taken == []  # nothing happens before the first film is asked for
    for _ in stream:
        ended += 1
    assert ended == len(taken) == 12


def test_an_error_of_the_source_passes_through(generator: Generator, problem: Problem) -> None:
    def films() -> Iterator[Film]:
        yield from problem.films()[:3]
        raise OSError("the disk")

    cfg = RefineConfig(steps=2)
    with pytest.raises(OSError, match="the disk"):
        list(refine(films(), [stage_of(generator, cfg, resolution=SIDE)], sphere, cfg, slots=2))


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_bad_films_and_codes_end_as_diverged_and_the_others_do_not_notice(
    generator: Generator, problem: Problem, optimiser: Literal["adam", "lbfgs"]
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
def test_a_film_that_diverges_later_keeps_its_best_finite_code(optimiser: Literal["adam", "lbfgs"]) -> None:
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
    cfg = RefineConfig(steps=12, target_mse=9e-4, optimiser="adam")
    result = run(generator, sphere, problem, cfg)
    assert set(result.stop) == {"target", "budget"}
    for row, word in enumerate(result.stop):
        losses = [loss for loss, _ in replay(generator, sphere, problem.start[row], problem.pixels[row], cfg)]
        reached = [step for step, loss in enumerate(losses) if loss <= cfg.target_mse]
        assert (word == "target") == bool(reached)
        if reached:
            assert result.steps[row] == reached[0]


def test_target_is_of_the_error_whatever_its_weight(generator: Generator, problem: Problem) -> None:
    cfg = RefineConfig(steps=12, target_mse=9e-4, optimiser="adam")
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
def test_reaches_the_known_optimum_of_least_squares(optimiser: Literal["adam", "lbfgs"], steps: int, lr: float) -> None:
    draw = torch.Generator().manual_seed(2)
    basis = torch.linalg.qr(torch.randn(64, 5, generator=draw))[0].T  # [5, 64], orthonormal rows
    target = torch.rand(3, 1, 8, 8, generator=draw) * 2 - 1
    optimum = target.flatten(1) @ basis.T

    def linear(latents: Tensor) -> Tensor:
        return (latents.flatten(1) @ basis).reshape(-1, 1, 8, 8)

    cfg = RefineConfig(steps=steps, lr=lr, optimiser=optimiser)
    result = run(linear, free, Problem(torch.zeros(3, 1, 5), target), cfg)
    torch.testing.assert_close(result.latents.flatten(1), optimum, rtol=0, atol=2e-3)


def test_no_films_make_no_result(generator: Generator) -> None:
    watched = Watched(stage_of(generator, RefineConfig(steps=3), resolution=SIDE))
    assert list(refine([], [watched.stage, watched.stage], sphere, RefineConfig(steps=3), slots=2)) == []
    assert watched.rows == []


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


def coarse_films(generator: Generator) -> Make:
    """What a perfect coarse head would make."""
    return lambda latents: nn.functional.avg_pool2d(generator(latents), 2)


def test_coarse_steps_count_and_bring_films_near_for_few_fine_ones(generator: Generator) -> None:
    problem, cfg = many(generator, 9), RefineConfig(steps=4)
    stages = [stage_of(coarse_films(generator), cfg, resolution=SIDE // 2, steps=20), stage_of(generator, cfg, resolution=SIDE, steps=4)]
    both = run(generator, sphere, problem, cfg, stages=stages)
    fine = run(generator, sphere, problem, cfg, stages=stages[1:])
    assert both.loss.mean() < 0.5 * fine.loss.mean()
    assert all(4 < steps <= 24 for steps in both.steps)
    torch.testing.assert_close(both.loss_initial, fine.loss_initial, rtol=0, atol=0)  # of the start, at full size
    torch.testing.assert_close(both.loss, loss_of(generator, both.latents, problem.pixels), rtol=1e-5, atol=0)
    order = [8, 1, 5, 0, 7, 3, 2, 6, 4]
    assert_same(run(generator, sphere, problem.rows(order), cfg, stages=stages), both.rows(order))


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("fine_steps", [0, 1, 6])
def test_a_coarse_level_that_misleads_costs_its_time_and_no_more(
    generator: Generator, problem: Problem, fine_steps: int, optimiser: Literal["adam", "lbfgs"]
) -> None:
    cfg = RefineConfig(steps=6, optimiser=optimiser)
    wrong = stage_of(lambda latents: -coarse_films(generator)(latents), cfg, resolution=SIDE // 2, steps=20)
    fine = stage_of(generator, cfg, resolution=SIDE, steps=fine_steps)
    misled = run(generator, sphere, problem, cfg, stages=[wrong, fine])
    # from the start on, with the whole budget of the fine level: as if there had been no coarse one
    assert_same(misled, run(generator, sphere, problem, cfg, stages=[fine]))
    assert all(steps <= fine_steps for steps in misled.steps)


def test_a_start_that_reaches_the_target_is_kept_though_the_coarse_level_moved(generator: Generator, problem: Problem) -> None:
    cfg = RefineConfig(steps=6, target_mse=1.0)
    coarse = stage_of(coarse_films(generator), replace(cfg, target_mse=0), resolution=SIDE // 2, steps=3)
    moved = list(refine(problem.films(), [coarse], sphere, replace(cfg, target_mse=0), slots=3))
    assert min(film.steps for film in moved) > 0
    for film in refine(moved, [stage_of(generator, cfg, resolution=SIDE)], sphere, cfg, slots=3):
        assert (film.stop, film.steps) == ("target", 0)
        assert torch.equal(film.code, film.start)


def test_a_film_that_diverges_at_the_coarse_level_goes_on_at_full_size(generator: Generator, problem: Problem) -> None:
    def breaks(latents: Tensor) -> Tensor:
        """Not a number once a code has moved much."""
        films = coarse_films(generator)(latents)
        return torch.where(latents[:, :1, :1, None] < -1.4, torch.nan, films)

    cfg = RefineConfig(steps=5, lr=1.0)
    stages = [stage_of(breaks, cfg, resolution=SIDE // 2, steps=10), stage_of(generator, cfg, resolution=SIDE)]
    coarse = run(generator, sphere, problem, cfg, stages=stages[:1])
    assert "diverged" in coarse.stop
    result = run(generator, sphere, problem, cfg, stages=stages)
    assert result.stop == ["budget"] * 6
    assert (result.loss < result.loss_initial).all()


def test_features_of_every_shape_and_layout_follow_their_film(generator: Generator, problem: Problem) -> None:
    """As perceptual terms have them: maps in channels-last order and vectors beside the target itself."""
    plain = Objective((("mse", 1.0),))

    def features(targets: Tensor) -> tuple[Tensor, ...]:
        maps = torch.stack((targets[:, 0], -targets[:, 0]), dim=-1).permute(0, 3, 1, 2)  # [n, 2, R, R], channels last
        return (*plain.features(targets), maps, targets.flatten(1).mean(1))

    def objective(pixels: Tensor, found: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        assert found[1].is_contiguous(memory_format=torch.channels_last)
        loss, mse = plain(pixels, found[:1])
        further = (pixels - found[1][:, :1]).square().flatten(1).mean(1) + (pixels.flatten(1).mean(1) - found[2]).square()
        return loss + further, mse

    cfg = RefineConfig(steps=6)
    stage = Stage(level=Level(resolution=SIDE, steps=6), features=features, gradient=by_autograd(generator, objective))
    together = run(generator, sphere, problem, cfg, slots=4, stages=[stage])
    order = [3, 5, 1, 0, 4, 2]
    assert_same(run(generator, sphere, problem.rows(order), cfg, slots=4, stages=[stage]), together.rows(order))
    assert (together.loss < together.loss_initial).all()
