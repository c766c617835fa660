"""Timing side by side: steps take turns within one process, so that what disturbs one disturbs the others as well."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter


@dataclass(frozen=True, slots=True)
class Spread:
    """Several measurements of one thing: the median, and the range that holds the middle 60 % of them."""

    median: float
    p20: float
    p80: float


def spread(values: Sequence[float]) -> Spread:
    """Median, 20th and 80th percentile (linear interpolation) of at least one value."""
    ordered = sorted(values)
    return Spread(median(ordered), _quantile(ordered, 0.2), _quantile(ordered, 0.8))


def take_turns(steps: Mapping[str, Callable[[int], int]], *, repeats: int) -> dict[str, list[float]]:
    """Rates of steps that run one after another, A B A B, `repeats` times each after a first turn that only warms up.

    A step is called with the number of its turn, 0 for the warm-up, and returns how many things it did; its rate is that number by the
    seconds that the call took, work on a GPU included.
    """
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            start = perf_counter()
            done = step(turn)
            synchronise()
            seconds = perf_counter() - start
            if turn:
                rates[name].append(done / seconds)
    return rates


def paired_ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """The median of value by value ratios: of two neighbours in time, which a drift of the whole machine moves together."""
    return median(value / other for value, other in zip(values, others, strict=True))


def synchronise() -> None:
    """Waits for a GPU that this process uses; does nothing where torch was never imported or there is none."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _quantile(ordered: Sequence[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
