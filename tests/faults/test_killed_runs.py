"""The whole command in one process, killed at random operations and moments, until its archive is whole and as if nothing had been."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from tests.faults.job import Job
from tests.faults.stable import Stable
from tests.faults.strikes import Place, Tally, by_operations, in_time

Scale = Callable[[int, int], int]
KILLS = 250  # of each kind, in long form


def test_runs_that_die_at_random_operations(
    struck_job: Job, stable: Stable, memory: Path, scale: Scale, seed: int, settle: Callable[[Tally], None]
) -> None:
    rng, tally = random.Random(seed), Tally()
    while tally.strikes.total() < scale(1, KILLS):
        tally.add(by_operations(struck_job, stable, Place(memory / f"operations-{tally.archives}"), rng, longest=220))
    settle(tally)


def test_runs_that_die_at_random_moments(
    struck_job: Job, stable: Stable, memory: Path, scale: Scale, seed: int, settle: Callable[[Tally], None]
) -> None:
    rng, tally = random.Random(seed), Tally()
    while tally.strikes.total() < scale(1, KILLS):
        tally.add(in_time(struck_job, stable, Place(memory / f"moments-{tally.archives}"), rng))
    settle(tally)
