"""Coarse to fine: how the steps of a refinement are shared out among the resolutions at which a codec can make films."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COARSE_SHARE = 0.8  # of the steps
LEAST_FINE_STEPS = 4
GOOD_COARSE_SIDE = 32  # pixels; below it a coarse film says too little of the fine one, whatever its size
LEAST_COARSE_SIDE = 16
RATE_AFTER_COARSE = 0.25  # of the learning rate: where a coarser level has been, a first step need not go far


@dataclass(frozen=True, kw_only=True)
class Level:
    """A part of the descent: at most `steps` steps on films of `resolution` pixels a side, at `rate` times the learning rate."""

    resolution: int
    steps: int
    rate: float = 1.0


def plan_levels(steps: int, *, full: int, coarse: Sequence[int]) -> list[Level]:
    """The levels of a descent of `steps` steps, the last one always at the codec's own resolution `full`.

    `coarse` are the lower resolutions that the codec has heads for. One of them is used: the one nearest to an eighth of the full side
    or to GOOD_COARSE_SIDE, whichever is larger, among those of LEAST_COARSE_SIDE to half. Runs of few steps stay at full size.
    """
    usable = [resolution for resolution in coarse if LEAST_COARSE_SIDE <= resolution <= full // 2]
    fine = max(LEAST_FINE_STEPS, round(steps * (1 - COARSE_SHARE)))
    if not usable or steps <= 2 * LEAST_FINE_STEPS:
        return [Level(resolution=full, steps=steps)]
    aim = max(full / 8, GOOD_COARSE_SIDE)
    nearest = min(usable, key=lambda resolution: (max(resolution, aim) / min(resolution, aim), resolution))
    return [Level(resolution=nearest, steps=steps - fine), Level(resolution=full, steps=fine, rate=RATE_AFTER_COARSE)]
