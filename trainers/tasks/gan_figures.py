"""How real a generator's films look beside the held-out ones: sliced Wasserstein distances, and the Frechet distance where weights are."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from engine.frechet import Fid, find_inception
from engine.sliced_wasserstein import SlicedWasserstein

INCEPTION_FLAG = "--set inception=FILE"
LEAST_JUDGED = 16  # the coarsest level of the sliced Wasserstein distance
_PIXELS_AT_ONCE = 2**21


def films_at_once(resolution: int) -> int:
    """Films that are made or judged at a time, off the training steps."""
    return max(1, _PIXELS_AT_ONCE // resolution**2)


def check_inception(weights: str) -> None:
    """Raises ConfigError where weights for the Frechet distance are wanted and missing, so at the start; "" wants none."""
    if weights:
        find_inception(weights, flag=INCEPTION_FLAG)


def gan_figures(real: Tensor, made: Iterable[Tensor], *, inception: str, device: torch.device) -> dict[str, float | str]:
    """Figures of films [n, 1, R, R] in [-1, 1] and of as many `made` ones, in portions, clamped; {} for none and under 16 pixels.

    Distances times 1000, `swd_<side>` and `swd_mean`, and `judged_films`; with weights in `inception` and two films or more `fid` and
    `fid_weights`, their digest. Distances depend on the number of films: only equal numbers compare.
    """
    resolution = real.shape[-1]
    if resolution < LEAST_JUDGED or not len(real):
        return {}
    sliced = SlicedWasserstein(resolution)
    frechet = Fid(inception, device=device, flag=INCEPTION_FLAG) if inception and len(real) > 1 else None
    judges: list[SlicedWasserstein | Fid] = [sliced] if frechet is None else [sliced, frechet]
    for part in torch.split(real, films_at_once(resolution)):
        for judge in judges:
            judge.add_real(part.to(device))
    for part in made:
        for judge in judges:
            judge.add_fake(part)
    found: dict[str, float | str] = {**sliced.compute(), "judged_films": float(len(real))}
    return found if frechet is None else {**found, "fid": frechet.compute(), "fid_weights": frechet.digest}
