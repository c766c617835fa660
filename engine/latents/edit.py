"""Codes moved along directions; the gauge brings them back to where the codec's generator expects them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.latents.codes import Space, Values
from engine.latents.direction_file import Direction


def moved(values: Values, direction: Direction, alphas: Sequence[float], space: Space) -> Values:
    """Codes [n, d] at each alpha, on the gauge: [n, len(alphas), d]. Alpha counts standard deviations; at 0 codes are as they were.

    Raises ConfigError for a direction of another codec's space.
    """
    direction.check_space(space)
    steps = np.asarray(alphas, dtype=np.float64)[:, None] * direction.step
    every = values[:, None, :] + steps[None].astype(np.float32)
    return space.on_gauge(every.reshape(-1, space.size)).reshape(len(values), len(alphas), -1)
