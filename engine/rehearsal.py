"""A few films through the stages for the clock, and one step of each refinement level instead of all of them. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from engine.config import EngineConfig
from engine.encode.compile import Prepared
from engine.encode.parity import probe_latents
from engine.flow import Flow, build_flow
from engine.records import ImageRef
from engine.refine.descent import Film, Stage, refine
from engine.refiner import Refiner

TIMED_BATCHES = 5  # of films at most, and one film before them that warms up
ENOUGH_SECONDS = 1.0  # after which nothing is timed again


@dataclass(frozen=True, kw_only=True)
class LevelTime:
    """Seconds of one film at one level of refinement, in a batch of its like: what comes once, and what comes with each step."""

    seconds_once: float
    seconds_a_step: float


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What the clock said. `stages`: seconds a film by stage, without refinement; `made_by` is what commit records would say."""

    seconds_to_start: float
    stages: dict[str, float]
    levels: tuple[LevelTime, ...]
    made_by: dict[str, Any]

    def seconds(self, stage: str) -> float:
        """Seconds of one film in a stage; 0 where there is none such."""
        return self.stages.get(stage, 0.0)


def rehearse(cfg: EngineConfig, refs: Sequence[ImageRef]) -> Rehearsal:
    """Builds a worker and times it on `refs`, one film to warm up and batches after it; takes a few batches' time, however many steps."""
    start = perf_counter()
    flow = build_flow(cfg, write=False)
    seconds_to_start = perf_counter() - start
    try:
        prepared, refiner = flow.prepared, flow.refiner
        stages = _time_stages(flow, refs, cfg.batch_size)
        films = max(1, min(cfg.batch_size, cfg.films or cfg.batch_size))
        levels = () if refiner is None else tuple(_time_level(at, refiner, prepared, films) for at in range(len(refiner.stages)))
        return Rehearsal(seconds_to_start=seconds_to_start, stages=stages, levels=levels, made_by=flow.made_by())
    finally:
        flow.close()


def _time_stages(flow: Flow, refs: Sequence[ImageRef], batch_size: int) -> dict[str, float]:
    """Seconds a film by stage. More batches than one only where one is too quick to be timed well."""
    flow.rehearse(refs[:1], refined=False)
    timed = refs[1 : 1 + batch_size] or refs
    seconds = flow.rehearse(timed, refined=False)
    if sum(seconds.values()) < ENOUGH_SECONDS and len(refs) > 1 + batch_size:
        timed = refs[1:]
        seconds = flow.rehearse(timed, refined=False)
    return {stage: spent / len(timed) for stage, spent in seconds.items()}


def _time_level(at: int, refiner: Refiner, prepared: Prepared, count: int) -> LevelTime:
    """Runs `count` films through two evaluations of a level: the first warms up, the second is a step with all that belongs to it."""
    once: list[float] = []
    step: list[float] = []
    start = perf_counter()
    while not step or (perf_counter() - start < ENOUGH_SECONDS and len(step) < 5):
        before, after, end = _two_evaluations(refiner.stages[at], refiner, prepared, count, moved=at > 0)
        once.append(before)
        step.append(end - after)
    return LevelTime(seconds_once=median(once) / count, seconds_a_step=median(step) / count)


def _two_evaluations(stage: Stage, refiner: Refiner, prepared: Prepared, count: int, *, moved: bool) -> tuple[float, float, float]:
    """Seconds until the films' own codes are evaluated, until the last evaluation begins, and until the films have ended."""
    now = _clock(prepared.device)
    begun: list[float] = []

    def watched(latents: Tensor, features: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        begun.append(now())
        return stage.gradient(latents, features)

    codes = probe_latents(prepared.codec, count)
    pixels = prepared.generate(-codes)  # the films of other codes
    films = [
        Film(key=at, pixels=pixels[at], start=codes[at], code=codes[at], steps=int(moved)) for at in range(count)
    ]  # the start of a code that a coarser level left is weighed first
    short = replace(stage, level=replace(stage.level, steps=1), gradient=watched)
    start = now()
    with torch.inference_mode(False):
        list(refine(films, [short], prepared.project, replace(refiner.cfg, target_mse=0.0, patience=0), slots=prepared.batch_size))
    return begun[int(moved)] - start, begun[-1] - start, now() - start


def _clock(device: torch.device) -> Callable[[], float]:
    """Seconds by a clock that waits for the device."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return perf_counter()

    return now
