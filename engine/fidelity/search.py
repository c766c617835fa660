"""Which quality meets a target: a few tries, each from what the ones before showed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.fidelity.codestream import Knob

_MOST_TRIES = 14
_FULL = 0.98  # of the bytes that are allowed, and a film is not tried again
_DB_TO_DOUBLE = 3.5  # that twice the bytes gain on a radiograph, roughly
_CLEVER_TRIES = 5  # after them the gap is halved each time, whatever the curve looks like


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One codestream, its head squeezed, and what came of it: `psnr` in dB over the film, `back` [H, W] the samples."""

    quality: float
    code: bytes
    psnr: float
    back: np.ndarray[Any, Any]


def meet_psnr(attempt: Callable[[float], Trial], knob: Knob, target: float, start: float) -> Trial:
    """The smallest of the trials that reach `target` dB, else the best one; tried until one beats it by no more than is enough.

    The next quality is where a straight line through the nearest trials on both sides, or one of the knob's usual slope, meets the target.
    """
    below: Trial | None = None
    above: Trial | None = None
    quality = knob.snap(start)
    for tries in range(_MOST_TRIES):
        trial = attempt(quality)
        if trial.psnr >= target:
            above = trial if above is None or trial.quality < above.quality else above
            if trial.psnr - target <= knob.enough or quality <= knob.low:
                break
        else:
            below = trial if below is None or trial.quality > below.quality else below
            if quality >= knob.high:
                break
        if below is not None and above is not None:
            quality = _between(knob, below, above, target + knob.enough / 3, halve=tries >= _CLEVER_TRIES)
            if not below.quality < quality < above.quality:
                break
        else:
            # Twice as far each time: where nothing but the lowest bits is missing, quality may grow long before the PSNR does.
            gap = min(60.0, max(-60.0, target + knob.enough / 3 - trial.psnr))
            move = max(abs(gap) / knob.slope, knob.step) * 2.0**tries
            quality = knob.snap(quality + math.copysign(move, gap))
    best = above or below
    assert best is not None
    return best


def _between(knob: Knob, below: Trial, above: Trial, aim: float, *, halve: bool) -> float:
    """A setting between two, where the straight line through them meets `aim`; their middle to `halve`."""
    share = 0.5 if halve or not math.isfinite(above.psnr) else (aim - below.psnr) / max(above.psnr - below.psnr, 1e-9)
    return _inside(knob, below.quality, above.quality, share)


def meet_bytes(attempt: Callable[[float], Trial], knob: Knob, most: int, start: float) -> Trial:
    """The best of the trials that have `most` bytes or fewer, else the smallest one; tried until one is nearly as large as it may be."""
    fits: Trial | None = None
    over: Trial | None = None
    quality = knob.snap(start)
    for tries in range(_MOST_TRIES):
        trial = attempt(quality)
        size = len(trial.code)
        if size <= most:
            fits = trial if fits is None or trial.quality > fits.quality else fits
            if size >= _FULL * most or quality >= knob.high:
                break
        else:
            over = trial if over is None or trial.quality < over.quality else over
            if quality <= knob.low:
                break
        if fits is not None and over is not None:
            rise = math.log(len(over.code) / len(fits.code))
            share = 0.5 if tries >= _CLEVER_TRIES else math.log(0.99 * most / len(fits.code)) / rise
            quality = _inside(knob, fits.quality, over.quality, share)
            if not fits.quality < quality < over.quality:
                break
        else:
            ratio = math.log2(max(most, 1) / size)
            quality = knob.snap(quality + math.copysign(max(abs(ratio) * _DB_TO_DOUBLE / knob.slope, knob.step) * 2.0**tries, ratio))
    return fits or (over if over is not None and over.quality <= knob.low else attempt(knob.low))


def _inside(knob: Knob, low: float, high: float, share: float) -> float:
    """The setting at a share of the way from `low` to `high`, and not one of the two while there is one between them."""
    quality = knob.snap(low + min(0.9, max(0.1, share)) * (high - low))
    return min(max(quality, low + knob.step), high - knob.step)
