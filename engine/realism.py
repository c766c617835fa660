"""How real a set of films looks beside another: Fréchet and sliced Wasserstein distances, summed up as the films come in pairs."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from engine.features import FeatureNetwork
from engine.frechet import FrechetDistance
from engine.sliced_wasserstein import SlicedWasserstein

SLICED_FILMS = 256  # the first ones, whose patches are kept: 7 levels of a 1024x1024 film take 180 kB, and their sorting a second a level


class Realism:
    """Distances between films and what came back of them, as two sets: neither knows which film belongs to which."""

    def __init__(self, network: FeatureNetwork) -> None:
        self._network = network
        self._frechet = FrechetDistance(network.features, network.dim)
        self._sliced: SlicedWasserstein | None = None

    def add(self, films: Tensor, rebuilt: Tensor) -> None:
        """Takes films [n, 1, S, S] in [0, 1] and as many reconstructions; S is the same each time."""
        count = self._frechet.real.count
        if not count:
            self._sliced = _sliced(films.shape[-1])
        if self._sliced is not None and count < SLICED_FILMS:
            self._sliced.add_real(films[: SLICED_FILMS - count] * 2 - 1)
            self._sliced.add_fake(rebuilt[: SLICED_FILMS - count] * 2 - 1)
        self._frechet.add_real(films * 2 - 1)
        self._frechet.add_fake(rebuilt * 2 - 1)

    def figures(self) -> dict[str, Any]:
        """`frechet` with `films` and `features` (name, sha256, dim), NaN for fewer than two films; `swd` (times 1000) with `swd_films`.

        Films whose side cannot be halved down to 16 pixels have no sliced distance: NaN, of 0 films.
        """
        count = self._frechet.real.count
        sliced = self._sliced
        return {
            "features": self._network.told(),
            "films": count,
            "frechet": self._frechet.compute() if count > 1 else math.nan,
            "swd": sliced.compute()["swd_mean"] if sliced else math.nan,
            "swd_films": min(count, SLICED_FILMS) if sliced else 0,
        }


def realism_line(figures: dict[str, Any]) -> str:
    """The figures in words."""
    name, dim, count = figures["features"]["name"], figures["features"]["dim"], figures["films"]
    if count < 2:
        return f"as sets: a Fréchet distance needs two films or more: {count}"
    sliced = f", sliced Wasserstein {figures['swd']:.2f} of {figures['swd_films']:,}" if figures["swd_films"] else ""
    return f"as sets: Fréchet {figures['frechet']:.2f} (as stored, {count:,} films, {dim} features of {name}){sliced}"


def _sliced(side: int) -> SlicedWasserstein | None:
    try:
        return SlicedWasserstein(side)
    except ValueError:  # a side under 8 pixels, or one that cannot be halved
        return None
