"""Films come and go in slots and through levels, no film touches another, and a coarse level costs time at worst."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from engine.config import RefineConfig
from engine.refine.descent import ROWS_AT_ONCE, Film, Stage, refine
from engine.refine.gradient_step import by_autograd
from engine.refine.objective import Objective
from engine.refine.schedule import Level
from tests.refine.descents import (
    OPTIMISERS,
    SIDE,
    Generator,
    OptimiserName,
    Problem,
    Watched,
    assert_same,
    coarse_films,
    loss_of,
    make_generator,
    make_problem,
    many,
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


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_code_has_the_same_bits_whatever_the_neighbours_the_slot_and_the_order(generator: Generator, optimiser: OptimiserName) -> None:
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


def test_no_films_make_no_result(generator: Generator) -> None:
    watched = Watched(stage_of(generator, RefineConfig(steps=3), resolution=SIDE))
    assert list(refine([], [watched.stage, watched.stage], sphere, RefineConfig(steps=3), slots=2)) == []
    assert watched.rows == []


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
    generator: Generator, problem: Problem, fine_steps: int, optimiser: OptimiserName
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


def test_a_film_that_diverges_at_the_coarse_level_ends_with_its_best_finite_code(generator: Generator, problem: Problem) -> None:
    def breaks(latents: Tensor) -> Tensor:
        """Not a number once a code has moved much."""
        films = coarse_films(generator)(latents)
        return torch.where(latents[:, :1, :1, None] < -1.4, torch.nan, films)

    cfg = RefineConfig(steps=5, lr=1.0)
    stages = [stage_of(breaks, cfg, resolution=SIDE // 2, steps=10), stage_of(generator, cfg, resolution=SIDE)]
    coarse = run(generator, sphere, problem, cfg, stages=stages[:1])
    assert "diverged" in coarse.stop
    result = run(generator, sphere, problem, cfg, stages=stages)
    assert result.stop == ["diverged" if stop == "diverged" else "budget" for stop in coarse.stop]
    for at, stop in enumerate(result.stop):
        if stop == "diverged":  # weighed once at full size: the better of its start and the best code of the coarse level
            assert torch.equal(result.latents[at], coarse.latents[at]) or torch.equal(result.latents[at], problem.start[at])
        assert result.loss[at].isfinite()
        assert result.loss[at] <= result.loss_initial[at]


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
