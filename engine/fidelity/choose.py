"""Which way an archive's films are coded, by measurement on its first ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from engine.fidelity.codestream import CODESTREAMS
from engine.fidelity.encode import encode_film
from engine.fidelity.lossy import LossyCoder
from engine.fidelity.target import Target
from engine.fidelity.way import Way, default_way, guess_start
from engine.records import FilmSamples

Effort = Literal["quick", "usual", "best"]
# Codec and its own effort. What is quick makes twenty films a second or more of 1024x1024 on one core, what is best takes seconds.
_EXACT: dict[Effort, list[tuple[str, int]]] = {
    "quick": [("jxl", 3), ("j2k", 0)],
    "usual": [("jxl", 7), ("j2k", 0)],
    "best": [("jxl", 9)],
}
_BOUNDED: dict[Effort, list[tuple[str, int]]] = {
    "quick": [("jxl", 3), ("avif", 9)],
    "usual": [("jxl", 7), ("avif", 6)],
    "best": [("jxl", 9), ("avif", 3)],
}
_MARGIN = 0.5  # of what is enough, beyond the target
_BASES = (14.0, 22.0, 30.0, 38.0, 45.0, 52.0)  # qualities of a base that are tried on the first film
_LOSSY: dict[Effort, list[tuple[str, int]]] = {  # the quickest first: one of them is left only for what saves more than WORTH
    "quick": [("j2k", 0)],
    "usual": [("j2k", 0), ("jxl", 3), ("avif", 6)],
    "best": [("j2k", 0), ("jxl", 7), ("avif", 3)],
}
WORTH = 0.05  # of the bytes for a PSNR: AVIF takes four times as long, and a residual the network's time, there and back


@dataclass(frozen=True, slots=True)
class Choice:
    """The way taken, and what every way that was tried gave: plain JSON values, those of the one taken, then the smallest first."""

    way: Way
    figures: list[dict[str, Any]] = field(default_factory=list)


def choose_way(
    films: Sequence[FilmSamples],
    predictions: Sequence[np.ndarray[Any, Any] | None] | None,
    target: Target,
    *,
    effort: Effort = "usual",
) -> Choice:
    """The way with the fewest bytes over these films, among those that meet the target on most of them; for a PSNR the quickest such way
    that takes hardly more, as WORTH has it.

    `predictions`: for each film the reconstruction of its code [H, W], gray in [0, 1], or None; where all films have one, residuals are
    tried too, but only for a PSNR or a size: what must be exact may not hang on how another machine rounds a generator.
    Without films it is the default way.
    """
    if not films or target.kind == "none":
        return Choice(default_way(target))
    given = list(predictions or [])
    is_lossy = target.kind in ("psnr", "bytes")
    with_residuals = is_lossy and len(given) == len(films) and all(each is not None for each in given)
    candidates = (_LOSSY if is_lossy else _BOUNDED if target.kind == "max-error" else _EXACT)[effort]
    ways = [
        Way(codec, level, residual, guess_start(codec, target))
        for codec, level in candidates
        for residual in ((False, True) if with_residuals else (False,))
    ]
    tried = [_try(films, given if way.residual else [None] * len(films), target, way) for way in ways]
    ordered = sorted(tried, key=lambda each: _rank(each[1], target))
    taken = next(each for each in tried if _is_worth(each[1], ordered[0][1])) if target.kind == "psnr" else ordered[0]
    return Choice(taken[0], [taken[1], *(figures for way, figures in ordered if way is not taken[0])])


def _rank(figures: dict[str, Any], target: Target) -> tuple[float, float]:
    """Lower is better. With a size as the target every way fills it, so the best picture decides; else the fewest bytes do."""
    return -figures["met"], -(figures["psnr"] or np.inf) if target.kind == "bytes" else figures["bytes"]


def _is_worth(figures: dict[str, Any], best: dict[str, Any]) -> bool:
    """Whether a way takes hardly more bytes than the best one."""
    return bool(figures["met"] == best["met"] and best["bytes"] >= (1 - WORTH) * figures["bytes"])


def _try(
    films: Sequence[FilmSamples], predictions: Sequence[np.ndarray[Any, Any] | None], target: Target, way: Way
) -> tuple[Way, dict[str, Any]]:
    """The way with the start that these films show, and what it gives on them: mean bytes, mean PSNR, films that meet the target."""
    if target.kind in ("psnr", "bytes"):
        way = replace(way, start=_start(films, predictions, target, way))
    elif target.kind == "max-error" and way.codec == "avif":
        way = replace(way, start=min(_BASES, key=lambda start: _quick_bytes(films[0], target, start)))
    begin = time.perf_counter()
    pairs = list(zip(films, predictions, strict=True))
    layers = [encode_film(film, target, way, prediction=prediction) for film, prediction in pairs]
    seconds = time.perf_counter() - begin
    finite = [layer.psnr for layer in layers if np.isfinite(layer.psnr)]
    figures = asdict(way) | {
        "bytes": round(float(np.mean([len(layer.data) for layer in layers])), 1),
        "psnr": round(float(np.mean(finite)), 3) if finite else None,
        "films": len(films),
        "met": sum(not layer.reason for layer in layers),
        "films_per_second": round(len(films) / seconds, 2),
    }
    return way, figures


def _start(films: Sequence[FilmSamples], predictions: Sequence[np.ndarray[Any, Any] | None], target: Target, way: Way) -> float:
    """The quality at which the median film beats its target by rather less than is enough, so that most films need one try."""
    knob = CODESTREAMS[way.codec].knob
    assert knob is not None
    found = []
    for film, prediction in zip(films, predictions, strict=True):
        trial = LossyCoder(film, way, prediction=prediction).meet(target)
        beyond = trial.psnr - target.value if target.kind == "psnr" else 0.0
        found.append(trial.quality - min(beyond, 2.0) / knob.slope)
    return knob.snap(float(np.median(found)) + (_MARGIN * knob.enough / knob.slope if target.kind == "psnr" else 0.0))


def _quick_bytes(film: FilmSamples, target: Target, start: float) -> int:
    """Bytes of a film with a base of quality `start`, by the quickest efforts."""
    return len(encode_film(film, target, Way("avif", 10, start=start)).data)
