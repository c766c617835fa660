"""A small generator, films near what it makes, and refinement of them: what the tests of the descent share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from engine import metrics
from engine.config import RefineConfig
from engine.refine.descent import Film, Stage, refine
from engine.refine.gradient_step import Found, by_autograd
from engine.refine.objective import Objective
from engine.refine.schedule import Level

CODE = (2, 6)
SIDE = 16
OptimiserName = Literal["adam", "lbfgs"]
OPTIMISERS: tuple[OptimiserName, ...] = ("adam", "lbfgs")
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


def sphere(latents: Tensor) -> Tensor:
    return latents * math.sqrt(latents.shape[-1]) / latents.norm(dim=-1, keepdim=True)


def free(latents: Tensor) -> Tensor:
    return latents


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


def coarse_films(generator: Generator) -> Make:
    """What a perfect coarse head would make."""
    return lambda latents: nn.functional.avg_pool2d(generator(latents), 2)


def make_generator() -> Generator:
    torch.manual_seed(0)
    return Generator().requires_grad_(False).eval()


def make_problem(generator: Generator) -> Problem:
    """Six films that the generator can nearly make, and codes at some distance from theirs."""
    draw = torch.Generator().manual_seed(1)
    truth = sphere(torch.randn(6, *CODE, generator=draw))
    pixels = (generator(truth) + 0.05 * torch.randn(6, 1, SIDE, SIDE, generator=draw)).clamp(-1, 1)
    return Problem(sphere(truth + 0.8 * torch.randn(6, *CODE, generator=draw)), pixels)
