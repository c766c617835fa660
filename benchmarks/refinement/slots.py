"""Slots against fixed batches: films need unequal numbers of steps, and a batch of fixed size waits for its slowest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.commands import StepFailed, run_alone
from benchmarks.inputs import Options, say
from benchmarks.refinement.random_codec import random_codec, random_codes
from benchmarks.refinement.to_quality import OwnTargets
from benchmarks.report import Bar, Row
from benchmarks.timing import paired_ratio, take_turns
from engine.config import RefineConfig
from engine.encode.fixed_batch import FixedBatch
from engine.refine.descent import Film, Stage, refine
from engine.refine.gradient_step import by_autograd
from engine.refine.objective import Objective
from engine.refine.optimisers import build_optimiser
from engine.refine.schedule import Level

QUESTION = "How much sooner are films done that need 10 to 200 steps each, when the next film takes the slot of one that has ended?"
TIMED = (
    "Timed: all films, by the same loop on the same gradient at one batch shape, as compiled backends have it; each film stops at a loss "
    "of its own, after the same steps either way. Not timed: finding those losses, and a first turn."
)
NAME = "slots"
WAITING, SHRINKING, IN_SLOTS = "batches that wait for the slowest", "batches that shrink (eager only)", "slots"
LEAST_STEPS, MOST_STEPS = 10, 200
SLOTS_BAR = Bar(bound=1.5, sense="at least")
BAR = f"ratio {SLOTS_BAR}, of slots to batches that wait"
SEEDS, WARM_UP = {"films": 6, "starts": 5, "steps needed": 7}, 1
CHANNELS = [32, 32, 32, 16]  # 32x32: small, so that hundreds of steps take seconds; the ratio is one of counts


def rows(options: Options) -> Iterator[Row]:
    """The same films three ways."""
    settings: dict[str, Any] = {"channels": CHANNELS, "films": 48, "slots": 8, "most_steps": MOST_STEPS, "repeats": 2}
    settings |= options.pick(
        quick={"channels": CHANNELS[:3], "films": 12, "slots": 3, "most_steps": 20},
        nightly={"channels": CHANNELS[:3], "films": 40},
        whole={},
    )
    say(f"slots: {settings['films']} films, {settings['slots']} at once")
    try:
        found = run_alone("benchmarks.refinement.slots:measure", **settings)
    except StepFailed as error:
        yield Row(benchmark=NAME, step=IN_SLOTS, failed=str(error))
        return
    for step in (WAITING, SHRINKING, IN_SLOTS):
        yield Row(
            benchmark=NAME,
            step=step,
            unit="films/s",
            values=tuple(found["rates"][step]),
            ratio=paired_ratio(found["rates"][step], found["rates"][WAITING]),
            ratio_to=WAITING,
            bar=SLOTS_BAR if step == IN_SLOTS else None,
            quality={"codes differ": found["difference"][step], "loss": found["loss"][step]},
            figures={"steps": found["steps"][step], "batches": found["batches"][step]},
            settings=settings,
        )


def measure(*, channels: list[int], films: int, slots: int, most_steps: int, repeats: int) -> dict[str, Any]:
    """Films a second by way; the largest difference of a code from the way that waits; steps of all films, and batches evaluated."""
    codec = random_codec(tuple(channels))
    objective = Objective((("mse", 1.0),))
    with torch.no_grad():
        pixels = codec.generate(random_codes(codec, films, seed=6))
    starts = random_codes(codec, films, seed=5)
    calls = [0]
    gradient = _counted(by_autograd(codec.frozen_generator(torch.float32), objective), calls)
    fixed = FixedBatch(gradient, batch_size=slots)
    level = Level(resolution=codec.recipe.resolution, steps=most_steps + 1)
    stages = {way: Stage(level=level, features=objective.features, gradient=fixed) for way in (WAITING, IN_SLOTS)}
    stages[SHRINKING] = replace(stages[WAITING], gradient=gradient)
    cfg = RefineConfig(steps=most_steps + 1, optimiser="adam", coarse=False, target_mse=1.0)
    targets = _targets(starts, objective.features(pixels), fixed, codec.project, cfg)
    everyone = [Film(key=at, pixels=pixels[at], start=starts[at], code=starts[at]) for at in range(films)]
    done: dict[str, list[Film]] = {way: [] for way in stages}
    batches: dict[str, int] = {}

    def run(way: str, turn: int) -> int:
        calls[0] = 0
        done[way] = []
        at_once = films if way == IN_SLOTS else slots
        for first in range(0, films, at_once):
            own = OwnTargets(stages[way], targets)
            stream = own.watch(everyone[first : first + at_once])
            done[way] += refine(stream, [own.stage()], codec.project, cfg, slots=slots)
        batches[way] = calls[0]
        return len(done[way])

    rates = take_turns({way: partial(run, way) for way in (WAITING, SHRINKING, IN_SLOTS)}, repeats=repeats)
    codes = {way: torch.stack([film.code for film in sorted(found, key=lambda film: int(str(film.key)))]) for way, found in done.items()}
    return {
        "rates": rates,
        "difference": {way: (code - codes[WAITING]).abs().max().item() for way, code in codes.items()},
        "steps": {way: sum(film.steps for film in found) for way, found in done.items()},
        "loss": {way: sum(film.loss for film in found) / films for way, found in done.items()},
        "batches": batches,
    }


def _counted(gradient: Callable[..., Any], calls: list[int]) -> Callable[..., Any]:
    def call(*rows: Any) -> Any:
        calls[0] += 1
        return gradient(*rows)

    return call


def _targets(
    start: Tensor, features: tuple[Tensor, ...], gradient: Callable[..., Any], project: Any, cfg: RefineConfig
) -> dict[Any, float]:
    """For each film the least loss it had within its drawn number of steps: where it stops, so it needs that many or a few less."""
    codes, best = start.clone(), torch.full((len(start),), torch.inf)
    needs = torch.randint(LEAST_STEPS, cfg.steps, (len(start),), generator=torch.Generator().manual_seed(7))
    optimiser = build_optimiser(cfg.optimiser, codes, lr=cfg.lr)
    rows = torch.arange(len(codes))
    optimiser.start(rows)
    targets = torch.zeros(len(codes))
    with torch.no_grad():
        for step in range(cfg.steps):
            loss, _, slope = gradient(codes, features)
            best = torch.minimum(best, loss)
            targets = torch.where(needs == step, best, targets)
            codes = project(optimiser.step(codes, loss, slope, torch.ones(len(codes), dtype=torch.bool)))
    return dict(enumerate((targets * (1 + 1e-5)).tolist()))  # a rounding may not cost a film its stop
