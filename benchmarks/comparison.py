"""Two files of results side by side, row by row: both spreads, what changed, and whether that is more than the spreads allow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from benchmarks.machine import machine_folder, was_busy
from benchmarks.report import Row, columns_of_words, figure, span_of
from benchmarks.results_file import Results
from benchmarks.timing import is_rate, is_timed, spread

SAME = "same"
ROUNDING = 1e-9  # of a value: two runs that do the same sums


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One step in both files, or in one. `change`: the second median by the first, None where one is missing or 0."""

    step: str
    before: str
    after: str
    unit: str
    change: float | None
    ratio: str
    verdict: str


def compare(before: Results, after: Results) -> list[Compared]:
    """All steps of both, in their order."""
    old, new = ({f"{row.benchmark}: {row.step}": row for row in results.rows} for results in (before, after))
    return [_compared(step, old.get(step), new.get(step)) for step in dict.fromkeys((*old, *new))]


def told(before: Results, after: Results) -> str:
    """The comparison as a table, under notes on what else differs between the two, and above a count of what agrees."""
    found = compare(before, after)
    header = ["step", "A", "B", "unit", "B to A", "ratio A, B", "verdict"]
    lines = [[each.step, each.before, each.after, each.unit, _times(each.change), each.ratio, each.verdict] for each in found]
    both = [each for each in found if not each.verdict.startswith("only in")]
    count = f"{sum(each.verdict == SAME for each in both)} of {len(both)} steps that are in both: {SAME}"
    return "\n".join([*_notes(before, after), columns_of_words([header, *lines]), count])


def verdict(old: Row | None, new: Row | None) -> str:
    """`same` where the spreads that both print touch; else which way it went: `faster`, `slower` for times and rates, or `higher`, `lower`.

    Values of films are compared film by film, since the same films differ from one another by more than any change: `same` where the
    middle 60 % of the differences hold 0. What was done once has no spread: it is the same, or it is `one value each`.
    """
    if old is None or new is None:
        return "only in B" if old is None else "only in A"
    if old.reason or new.reason:
        return SAME if old.reason == new.reason else f"A {old.reason or 'has values'}; B {new.reason or 'has values'}"
    difference = new.spread.median - old.spread.median
    if abs(difference) <= ROUNDING * abs(old.spread.median):
        return SAME
    if old.value_of == new.value_of == "film" and len(old.values) == len(new.values):
        apart = spread([b - a for a, b in zip(old.values, new.values, strict=True)])
        difference = 0.0 if apart.p20 <= 0 <= apart.p80 else fmean((apart.p20, apart.p80))
    elif min(len(old.values), len(new.values)) == 1:
        return "one value each"
    elif old.span[0] <= new.span[1] and new.span[0] <= old.span[1]:
        difference = 0.0
    return SAME if difference == 0 else _way(new.unit, difference)


def _compared(step: str, old: Row | None, new: Row | None) -> Compared:
    a, b = (row.spread.median if row and row.values else None for row in (old, new))
    ratios = [_times(row.ratio) if row else "-" for row in (old, new)]
    return Compared(
        step=step,
        before=_said(old),
        after=_said(new),
        unit=next((row.unit for row in (new, old) if row and row.unit), ""),
        change=b / a if a and b is not None else None,
        ratio="" if ratios == ["-", "-"] else ", ".join(ratios),
        verdict=verdict(old, new),
    )


def _way(unit: str, difference: float) -> str:
    up = difference > 0
    if not is_timed(unit):
        return "higher" if up else "lower"
    return "faster" if up == is_rate(unit) else "slower"


def _said(row: Row | None) -> str:
    if row is None or not row.values:
        return "-"
    return f"{figure(row.spread.median)} ({span_of(row)})" if len(row.values) > 1 else figure(row.spread.median)


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}x"


def _notes(before: Results, after: Results) -> Iterator[str]:
    """What makes two files hard to compare: a change may then be of anything but the code."""
    first, second = before.head, after.head
    kinds: dict[str, tuple[object, object]] = {
        "machines": (machine_folder(first.machine), machine_folder(second.machine)),
        "sizes": (first.size, second.size),
        "settings": (first.settings, second.settings),
        "films": (first.films, second.films),
    }
    for what, (a, b) in kinds.items():
        if a != b and a and b:
            yield f"note: other {what}, so a change may be theirs: {a}; {b}"
    for name, head in (("A", first), ("B", second)):
        if was_busy(head.machine):
            yield f"note: the machine was busy when {name} began, load {head.machine['load']:.2f}"
