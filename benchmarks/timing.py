"""Timing side by side: steps take turns within one process, so that what disturbs one disturbs the others as well."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median
from time import perf_counter

TIMES = ("s", "ms", "us")
# How far the median of one process is from what others find, though nothing was changed: other pages, other cores, another minute.
# Measured 2026-11-21 on two cores beside other work: twelve processes of each of six steps (decode, driver, slots), of which seven to ten
# were left alone by and large (within 12 % of the middle one). Their medians lay 1 to 7 % from the middle one, a few 11 %; the middle
# 60 % of the turns of a process reached 3 to 6 % to either side. Of pairs of processes these ranges touched in 43 to 90 %, by step; with
# 5 % to either side at least, in 90 to 100 % (52 % of one step). Over all twelve, disturbed ones too, it was 17 to 64 % and 33 to 83 %.
WANDER = 0.05


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


def reach(values: Sequence[float], blocks: Sequence[int] = ()) -> tuple[float, float]:
    """The range, lowest and highest, in which another run's range is to be expected: what tables print as the spread of a time or rate.

    It holds the middle 60 % of the turns, the median of each block (the turns of one process, which stand one after another), and
    `WANDER` to either side of the median of all, for what no turn of one process shows.
    """
    whole, ends = spread(values), accumulate(blocks)
    medians = [median(values[end - count : end]) for end, count in zip(ends, blocks, strict=True)]
    low, high = whole.median * (1 - WANDER), whole.median * (1 + WANDER)
    return min(whole.p20, low, *medians), max(whole.p80, high, *medians)


def is_rate(unit: str) -> bool:
    """Whether more of it is faster: films/s."""
    return unit.endswith("/s")


def is_timed(unit: str) -> bool:
    """Whether it is a rate or a time: films/s, ms/shard, s."""
    return is_rate(unit) or _first_word(unit) in TIMES


def wanders(unit: str) -> bool:
    """Whether it differs from one process to the next: times, rates, and memory."""
    return is_timed(unit) or _first_word(unit) == "MB"


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


def _first_word(unit: str) -> str:
    return unit.replace("/", " ").partition(" ")[0]


def _quantile(ordered: Sequence[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
