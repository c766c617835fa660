"""Steps of refinement, technique by technique: the same films, start and number of steps; each row changes one thing more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from benchmarks.refinement.published_loop import LEARNING_RATE, PublishedLoop
from benchmarks.refinement.random_codec import random_codec, random_codes
from benchmarks.timing import synchronise, take_turns
from engine.config import RefineConfig
from engine.encode.backends import check_backend, find_device
from engine.encode.codec import Codec
from engine.encode.compile import prepare
from engine.encode.parity import Difference
from engine.encode.precision import DTYPES, in_precision, without_gradients
from engine.errors import LatentrayError
from engine.refine.gradient_step import GradientStep, by_autograd
from engine.refine.objective import Objective
from engine.refine.optimisers import build_optimiser
from engine.refiner import Refiner, build_refiner

ROWS_AT_ONCE = 4  # where a loss is only looked at


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Films [n, 1, R, R] that the codec's own generator made for other codes, and the codes [n, *shape] to start from."""

    codec: Codec
    objective: Objective
    targets: Tensor
    start: Tensor
    steps: int

    def losses(self, codes: Tensor) -> Tensor:
        """Of each film at full size, in eager float32: [n]."""
        with torch.no_grad():
            pairs = zip(torch.split(codes, ROWS_AT_ONCE), torch.split(self.targets, ROWS_AT_ONCE), strict=True)
            return torch.cat([self.objective(self.codec.generate(part), self.objective.features(target))[0] for part, target in pairs])


@dataclass(frozen=True, kw_only=True)
class Technique:
    """A loop that is stepped from outside. `gradient`: codes -> the gradient of each film's own loss; `codes`: what it would return now."""

    step: Callable[[], None]
    codes: Callable[[], Tensor]
    gradient: Callable[[Tensor], Tensor]


def _published(problem: Problem, *, channels_last: bool) -> Technique:
    network = problem.codec.generator.network
    loop = PublishedLoop(network, problem.targets, problem.start, steps=problem.steps, channels_last=channels_last)
    return Technique(step=loop.step, codes=loop.codes.detach, gradient=loop.gradient)


def _frozen(problem: Problem, precision: str, *, norm_kernel: bool = False) -> Technique:
    """Our loop on autograd through the generator's frozen form, eager."""
    device, dtype = problem.codec.device, DTYPES[precision]
    generator = problem.codec.frozen_generator(dtype or torch.float32, norm_kernel=norm_kernel).to(device)
    step = by_autograd(generator, problem.objective)
    return _ours(problem, without_gradients(in_precision(step, device, dtype), device), problem.objective.features)


def _backend(problem: Problem, backend: Any, precision: Any) -> Technique:
    """Our loop on the gradient as the refiner builds it, behind the parity gate."""
    cfg = RefineConfig(steps=problem.steps, coarse=False)
    (stage,) = refiner_on(problem.codec, backend, precision, cfg, batch_size=len(problem.start)).stages
    return _ours(problem, stage.gradient, stage.features)


def refiner_on(codec: Codec, backend: Any, precision: Any, cfg: RefineConfig, *, batch_size: int) -> Refiner:
    """The refiner on this backend alone, behind the gate. What makes films stays eager, for only gradients are timed."""
    check_backend(backend)
    eager = prepare(codec, backend="eager", precision=precision, batch_size=batch_size, device=str(codec.device))
    return build_refiner(replace(eager, backend=backend), cfg)


def _ours(problem: Problem, gradient: GradientStep, features: Callable[[Tensor], tuple[Tensor, ...]]) -> Technique:
    """What `refine.descent` does in a step, with Adam: gradient, best so far, a look at who has ended, the next codes on the gauge."""
    codes, best = problem.start.clone(), problem.start.clone()
    best_loss = torch.full((len(codes),), torch.inf, device=codes.device)
    active = torch.ones(len(codes), dtype=torch.bool, device=codes.device)
    found, optimiser = features(problem.targets), build_optimiser("adam", codes, lr=LEARNING_RATE)
    optimiser.start(torch.arange(len(codes), device=codes.device))

    @torch.no_grad()
    def step() -> None:
        nonlocal codes, best, best_loss
        loss, _, slope = gradient(codes, found)
        is_better = loss < best_loss
        best = torch.where(is_better[:, None, None], codes, best)
        best_loss = torch.where(is_better, loss, best_loss)
        best_loss.isfinite().tolist()  # the one wait for the device in a step
        codes = problem.codec.project(optimiser.step(codes, loss, slope, active))

    return Technique(step=step, codes=lambda: best, gradient=lambda at: gradient(at, found)[2])


PUBLISHED = "published loop"
TECHNIQUES: dict[str, Callable[[Problem], Technique]] = {
    PUBLISHED: partial(_published, channels_last=False),
    "+ channels-last": partial(_published, channels_last=True),
    "+ frozen form": partial(_frozen, precision="fp32"),
    "+ bf16": partial(_frozen, precision="bf16"),
    "+ Triton norms": partial(_frozen, precision="bf16", norm_kernel=True),
    "+ Inductor, one graph": partial(_backend, backend="inductor", precision="bf16"),
    "or CUDA graphs": partial(_backend, backend="cudagraphs", precision="bf16"),
    "or TensorRT": partial(_backend, backend="tensorrt", precision="bf16"),
}
ON_CPU = (PUBLISHED, "+ channels-last", "+ frozen form", "+ bf16", "+ Inductor, one graph")
ON_CUDA = tuple(TECHNIQUES)


def measure(*, channels: list[int], batch: int, repeats: int, names: list[str], device: str | None = None) -> dict[str, Any]:
    """By technique: image-steps a second, in turns of one step; the losses after `repeats` + 1 steps; the first gradient's largest relative
    difference from float32 autograd; seconds until it was ready. What cannot be had here is in `unavailable` with its reason."""
    torch.manual_seed(0)
    codec = random_codec(tuple(channels)).to(find_device(device))
    problem = _problem(codec, batch, repeats + 1)
    expected = _expected(problem)
    ready: dict[str, Technique] = {}
    found: dict[str, Any] = {name: {} for name in ("seconds", "difference", "peak_gb", "loss", "unavailable")}
    for name in names:
        began = perf_counter()
        _forget_peak()
        try:
            technique = TECHNIQUES[name](problem)
            gradient = technique.gradient(problem.start)
        except (LatentrayError, torch.OutOfMemoryError) as error:
            found["unavailable"][name] = next(iter(str(error).splitlines()), "out of memory")
            continue
        synchronise()
        ready[name] = technique
        found["seconds"][name] = perf_counter() - began
        found["difference"][name] = Difference.between(gradient, expected).relative
        found["peak_gb"] |= {} if codec.device.type == "cpu" else {name: torch.cuda.max_memory_allocated() / 1e9}
    found["rates"] = take_turns({name: partial(_turn, technique, batch) for name, technique in ready.items()}, repeats=repeats)
    for name, technique in ready.items():
        found["loss"][name] = problem.losses(technique.codes()).tolist()
    return found | {"start": problem.losses(problem.start).tolist(), "device": str(codec.device)}


def _problem(codec: Codec, batch: int, steps: int) -> Problem:
    others = random_codes(codec, batch, seed=4)
    with torch.no_grad():
        targets = torch.cat([codec.generate(part) for part in torch.split(others, ROWS_AT_ONCE)])
    objective = Objective((("mse", 1.0),)).to(codec.device)
    return Problem(codec=codec, objective=objective, targets=targets, start=random_codes(codec, batch, seed=3), steps=steps)


def _expected(problem: Problem) -> Tensor:
    """The gradient of each film's loss at the start, by autograd in eager float32."""
    step = without_gradients(
        in_precision(by_autograd(problem.codec.generator, problem.objective), problem.start.device, None), problem.start.device
    )
    pairs = zip(torch.split(problem.start, ROWS_AT_ONCE), torch.split(problem.targets, ROWS_AT_ONCE), strict=True)
    return torch.cat([step(part, problem.objective.features(target))[2] for part, target in pairs])


def _turn(technique: Technique, batch: int, turn: int) -> int:
    technique.step()
    return batch


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
