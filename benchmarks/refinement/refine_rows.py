"""Rows of what `waterfall` and `to_quality` measured, with quality beside speed; for a CPU and for a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import Any

from benchmarks.refinement import to_quality, waterfall
from benchmarks.report import Bar, Row
from benchmarks.timing import paired_ratio


def step_rows(
    found: dict[str, Any], settings: dict[str, Any], *, bars: dict[str, Bar], prefix: str = "", name: str = "refine"
) -> Iterator[Row]:
    """What `waterfall.measure` found, a row a technique."""
    for technique in settings["names"]:
        step = f"{prefix}{technique}"
        if technique in found["unavailable"]:
            yield Row(benchmark=name, step=step, unavailable=found["unavailable"][technique])
            continue
        peak = {"peak GB": found["peak_gb"][technique]} if technique in found["peak_gb"] else {}
        yield Row(
            benchmark=name,
            step=step,
            unit="image-steps/s",
            values=tuple(found["rates"][technique]),
            ratio=paired_ratio(found["rates"][technique], found["rates"][waterfall.PUBLISHED]),
            ratio_to=waterfall.PUBLISHED,
            bar=bars.get(technique),
            quality=_loss_columns(found, technique, waterfall.PUBLISHED) | {"gradient off": found["difference"][technique]},
            figures={"ready s": round(found["seconds"][technique], 1)} | peak,
            settings=settings | {"device": found["device"]},
        )


def quality_rows(found: dict[str, Any], settings: dict[str, Any], *, bar: Bar, name: str = "refine") -> Iterator[Row]:
    """What `to_quality.measure` found, a row a way to run the engine. The bar is on those that use everything."""
    published = to_quality.PUBLISHED
    for step in (published, *settings["names"]):
        if step in found["unavailable"]:
            yield Row(benchmark=name, step=step, unavailable=found["unavailable"][step])
            continue
        evaluations = {"steps": fmean(found["steps"][step])} if step in found["steps"] else {"steps": settings["steps"]}
        yield Row(
            benchmark=name,
            step=step,
            unit="films/s",
            values=tuple(found["rates"][step]),
            ratio=paired_ratio(found["rates"][step], found["rates"][published]),
            ratio_to=published,
            bar=bar if step in to_quality.WHOLE else None,
            quality=_loss_columns(found, step, published) | {"films there": _share_there(found, step)},
            figures=evaluations | ({"ready s": round(found["seconds"][step], 1)} if step in found["seconds"] else {}),
            settings=settings | {"device": found["device"]},
        )


def _loss_columns(found: dict[str, Any], step: str, published: str) -> dict[str, float]:
    """Mean loss, and as a multiple of the published loop's; also of the start, where that is the row."""
    return {"loss": fmean(found["loss"][step]), "to published": fmean(found["loss"][step]) / fmean(found["loss"][published])}


def _share_there(found: dict[str, Any], step: str) -> float:
    """The share of the films whose float32 loss is that of the published loop or less."""
    pairs = zip(found["loss"][step], found["loss"][to_quality.PUBLISHED], strict=True)
    return fmean(ours <= to_quality.REACHED * theirs for ours, theirs in pairs)
