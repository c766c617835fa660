"""Time to the same loss: the published loop runs its steps, then our engine takes the films down to the losses that it reached."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.refinement.published_loop import PublishedLoop
from benchmarks.refinement.random_codec import random_codec
from benchmarks.refinement.waterfall import Problem, refiner_on
from benchmarks.timing import take_turns
from engine.config import RefineConfig
from engine.encode.backends import find_device
from engine.encode.codec import Codec, load_codec
from engine.errors import LatentrayError
from engine.refine.descent import Film, Stage, refine
from engine.refine.objective import Objective
from engine.refiner import Refiner

PUBLISHED = "published loop, its last loss"
MARGIN = 0.998  # films stop at this share of their target, so that rounding in half precision does not decide who has reached it
REACHED = 1.001  # a film has reached its target when its float32 loss is at most this multiple of it


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A way to run the engine: backend, precision, optimiser, coarse films or not, and for how many steps it plans its levels."""

    backend: Any
    precision: Any
    optimiser: Any
    coarse: bool
    share: float = 1.0  # of the published steps


ENGINES = {
    "own stops, eager fp32": Engine(backend="eager", precision="fp32", optimiser="adam", coarse=False),
    "+ L-BFGS": Engine(backend="eager", precision="fp32", optimiser="lbfgs", coarse=False),
    "+ coarse": Engine(backend="eager", precision="fp32", optimiser="lbfgs", coarse=True, share=0.5),
    "+ bf16, Inductor": Engine(backend="inductor", precision="bf16", optimiser="lbfgs", coarse=True, share=0.5),
    "same, half the coarse steps": Engine(backend="inductor", precision="bf16", optimiser="lbfgs", coarse=True, share=0.25),
    "same, twice the coarse steps": Engine(backend="inductor", precision="bf16", optimiser="lbfgs", coarse=True),
    "or CUDA graphs": Engine(backend="cudagraphs", precision="bf16", optimiser="lbfgs", coarse=True, share=0.5),
}
WHOLE = tuple(name for name, engine in ENGINES.items() if engine.backend != "eager")  # those that use everything
ON_CPU = tuple(name for name, engine in ENGINES.items() if engine.backend != "cudagraphs")
ON_CUDA = tuple(ENGINES)


class OwnTargets:
    """Lets each film end at a loss of its own, through the one target that the engine has: its MSE is given in units of the film's target.

    A film's target travels with its features. `refine` asks for the features of the films that it has just taken, in their order.
    """

    def __init__(self, stage: Stage, targets: Mapping[Hashable, float]) -> None:
        self._stage, self._targets = stage, targets
        self._taken: list[Hashable] = []

    def watch(self, films: Iterable[Film]) -> Iterator[Film]:
        """The films, on their way into the stage."""
        for film in films:
            self._taken.append(film.key)
            yield film

    def stage(self) -> Stage:
        """The stage with films' own targets; run it with `target_mse` 1."""
        return replace(self._stage, features=self._features, gradient=self._gradient)

    def _features(self, pixels: Tensor) -> tuple[Tensor, ...]:
        own = [self._targets[key] for key in self._taken]
        own += own[-1:] * (len(pixels) - len(own))  # rows that fill a batch up repeat the last film
        self._taken.clear()
        return (*self._stage.features(pixels), torch.tensor(own, device=pixels.device))

    def _gradient(self, codes: Tensor, features: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        loss, mse, gradient = self._stage.gradient(codes, features[:-1])
        return loss, mse / features[-1], gradient


def measure(
    *,
    codec: str,
    films: str,
    steps: int,
    batch: int,
    repeats: int,
    names: list[str],
    device: str | None = None,
    channels: list[int] | None = None,
) -> dict[str, Any]:
    """Films a second of the published loop, and by engine until each film is where that loop had left it; losses of all films.

    `films`: a file of float32 pixels [n, R, R] in [-1, 1]. `codec`: a directory, or "" for random weights of these `channels`.
    """
    loaded = (load_codec(codec) if codec else random_codec(tuple(channels or ()), heads=64)).to(find_device(device))
    pixels = torch.from_numpy(np.load(films))[:, None].to(loaded.device)
    problem = Problem(
        codec=loaded, objective=Objective((("mse", 1.0),)).to(loaded.device), targets=pixels, start=_start(loaded, pixels), steps=steps
    )
    published = _Published(problem, batch)
    began = perf_counter()
    published(0)  # all batches: what the targets are made of
    seconds = perf_counter() - began
    targets: dict[Hashable, float] = {at: loss * MARGIN for at, loss in enumerate(published.losses)}
    found: dict[str, Any] = {"loss": {PUBLISHED: published.losses}, "steps": {}, "seconds": {}, "unavailable": {}}
    runs: dict[str, Callable[[int], int]] = {PUBLISHED: published}
    results: dict[str, list[Film]] = {name: [] for name in names}
    built: dict[tuple[Any, ...], Refiner] = {}
    for name in names:
        engine, began = ENGINES[name], perf_counter()
        key = (engine.backend, engine.precision, engine.coarse)
        try:
            if key not in built:
                cfg = RefineConfig(steps=steps, coarse=engine.coarse)
                built[key] = refiner_on(loaded, engine.backend, engine.precision, cfg, batch_size=batch)
        except (LatentrayError, torch.OutOfMemoryError) as error:
            found["unavailable"][name] = next(iter(str(error).splitlines()), "out of memory")
            continue
        runs[name] = partial(_run, problem, built[key], engine, targets, results[name])
        found["seconds"][name] = perf_counter() - began
    found["rates"] = take_turns(runs, repeats=repeats)
    for name in runs.keys() - {PUBLISHED}:
        films_now = sorted(results[name], key=lambda film: int(str(film.key)))
        found["loss"][name] = problem.losses(torch.stack([film.code for film in films_now])).tolist()
        found["steps"][name] = [film.steps for film in films_now]
    return found | {"published_seconds": seconds, "start": problem.losses(problem.start).tolist(), "device": str(loaded.device)}


class _Published:
    """Turn 0 takes all batches and keeps their losses; each later turn takes one of them, round and round."""

    def __init__(self, problem: Problem, batch: int) -> None:
        self._problem, self._batch = problem, batch
        self.losses: list[float] = []

    def __call__(self, turn: int) -> int:
        count = len(self._problem.start)
        if turn == 0 and self.losses:
            return 0
        starts = range(0, count, self._batch) if turn == 0 else [(turn - 1) * self._batch % count]
        return sum(self._one(at, keep=turn == 0) for at in starts)

    def _one(self, at: int, *, keep: bool) -> int:
        rows, problem = slice(at, at + self._batch), self._problem
        loop = PublishedLoop(problem.codec.generator.network, problem.targets[rows], problem.start[rows], steps=problem.steps)
        for _ in range(problem.steps):
            loop.step()
        if keep:
            part = replace(problem, targets=problem.targets[rows], start=problem.start[rows])
            self.losses += part.losses(loop.codes.detach()).tolist()
        return len(loop.codes)


def _start(codec: Codec, pixels: Tensor) -> Tensor:
    if not codec.has_encoder:
        return codec.mean_latents(len(pixels))
    with torch.no_grad():
        return torch.cat([codec.encode(part) for part in torch.split(pixels, 8)])


def _run(problem: Problem, refiner: Refiner, engine: Engine, targets: Mapping[Hashable, float], results: list[Film], turn: int) -> int:
    """All films through all levels; the last level has as many steps as the published loop, should a film need them."""
    pixels = problem.targets.cpu()
    stream: Iterable[Film] = [Film(key=at, pixels=pixels[at], start=code, code=code) for at, code in enumerate(problem.start)]
    *coarse, last = refiner.stages
    cfg = RefineConfig(steps=problem.steps, optimiser=engine.optimiser, coarse=engine.coarse)
    for stage in coarse:
        level = replace(stage.level, steps=round(stage.level.steps * engine.share))
        stream = refine(stream, [replace(stage, level=level)], problem.codec.project, cfg, slots=refiner.prepared.batch_size)
    own = OwnTargets(replace(last, level=replace(last.level, steps=problem.steps)), targets)
    cfg = replace(cfg, target_mse=1.0)
    results[:] = refine(own.watch(stream), [own.stage()], problem.codec.project, cfg, slots=refiner.prepared.batch_size)
    return len(results)
