"""Coarse to fine: how the steps of a refinement are shared out among the resolutions at which a codec can make films."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COARSE_SHARE = 0.8  # of the steps
LEAST_FINE_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class Level:
    """A part of the descent: at most `steps` steps on films of `resolution` pixels a side."""

    resolution: int
    steps: int


def plan_levels(steps: int, *, full: int, coarse: Sequence[int]) -> list[Level]:
    """The levels of a descent of `steps` steps, the last one always at the codec's own resolution `full`.

    `coarse` are the lower resolutions that the codec has heads for. One of them is used: the one nearest to an eighth of the full side,
    since below it a coarse film says too little about the fine one and above it it costs too much. Runs of few steps stay at full size.
    """
    usable = [resolution for resolution in coarse if 16 <= resolution <= full // 2]
    fine = max(LEAST_FINE_STEPS, round(steps * (1 - COARSE_SHARE)))
    if not usable or steps <= 2 * LEAST_FINE_STEPS:
        return [Level(resolution=full, steps=steps)]
    nearest = min(usable, key=lambda resolution: (max(resolution, full / 8) / min(resolution, full / 8), resolution))
    return [Level(resolution=nearest, steps=steps - fine), Level(resolution=full, steps=fine)]
