"""Films like this one: codes around a code (Weber et al. 2022, 3.4; Segal et al. 2021, 4.3), and the nearest of an archive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.config import check_at_least
from engine.errors import ConfigError
from engine.latents.codes import Codes, Rows, Space, Values

_NUMBERS_AT_ONCE = 2**26  # of codes that are compared together: 256 MB


@dataclass(frozen=True, kw_only=True, eq=False)
class Nearest:
    """For each code asked about: `places` among the codes of the archive [n, count], nearest first, and their `cosine` [n, count]."""

    places: Rows
    cosine: np.ndarray[Any, np.dtype[np.float32]]


def around(values: Values, sigma: float, count: int, space: Space, *, seed: int) -> Values:
    """`count` codes around each of [n, d], moved by N(0, sigma^2) in each number, on the gauge: [n, count, d].

    Sigma is in units of the codes' root mean square, so on the sphere it is Weber's and Segal's own. Draws depend on the seed, and on the
    place of the code among those asked about. Raises ConfigError for a sigma under 0 and a count under 1.
    """
    check_at_least("sigma", sigma, 0)
    check_at_least("count", count, 1)
    size = float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if values.size else 0.0
    noise = np.stack([np.random.default_rng([seed, place]).standard_normal((count, space.size)) for place in range(len(values))])
    found = values[:, None] + (sigma * size * noise).astype(np.float32)
    return space.on_gauge(found.reshape(-1, space.size)).reshape(len(values), count, -1)


def nearest(codes: Codes, values: Values, count: int, *, leave_out: Rows | None = None) -> Nearest:
    """The `count` codes of the archive of the greatest cosine with each of [n, d]: exact, a few hundred MB at a time.

    `leave_out` [n]: a place that is not to be found, such as the code itself; -1 for none. Raises ConfigError for more than there are.
    """
    check_count(codes, count, leave_out)
    asked = unit(values)
    best = np.full((len(asked), 0), -1, dtype=np.int64)
    scores = np.full((len(asked), 0), -np.inf, dtype=np.float32)
    step = max(1, _NUMBERS_AT_ONCE // (codes.space.size + len(asked)))
    for first in range(0, len(codes), step):
        cosine = asked @ unit(codes.values[first : first + step]).T
        if leave_out is not None:
            own = np.flatnonzero((leave_out >= first) & (leave_out < first + cosine.shape[1]))
            cosine[own, leave_out[own] - first] = -np.inf
        places = np.broadcast_to(np.arange(first, first + cosine.shape[1]), cosine.shape)
        scores, best = np.concatenate([scores, cosine], axis=1), np.concatenate([best, places], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        scores, best = np.take_along_axis(scores, order, axis=1), np.take_along_axis(best, order, axis=1)
    return Nearest(places=best, cosine=scores)


def check_count(codes: Codes, count: int, leave_out: Rows | None) -> None:
    """Raises ConfigError unless so many codes can be found."""
    there = len(codes) - (leave_out is not None)
    if not 1 <= count <= there:
        raise ConfigError(f"count must be 1 to {there}, as many codes are there to be found: {count}")


def unit(values: Values) -> Values:
    """Codes [n, d] at length 1; one of zeros stays what it is."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    found: Values = values / np.maximum(length, np.finfo(np.float32).tiny)
    return found
