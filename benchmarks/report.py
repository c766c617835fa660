"""What a benchmark found: a row a step, which is also its line of JSON, and the table of them with quality beside speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from math import isfinite
from typing import Any, Literal

from benchmarks.timing import Spread, reach, spread, wanders
from engine.errors import LatentrayError

ValueOf = Literal["turn", "film", "whole"]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What a row has to reach: a bound on its ratio, or on the median of its values where it has no ratio."""

    bound: float
    sense: str  # "at least" or "at most"

    def __str__(self) -> str:
        return f"{self.sense} {self.bound:g}"

    def is_met(self, figure: float) -> bool:
        """Whether the figure is on the right side of the bound."""
        return figure >= self.bound if self.sense == "at least" else figure <= self.bound


@dataclass(frozen=True, kw_only=True)
class Row:
    """One step of one benchmark. `values` are its measurements in `unit`; `ratio` compares it with the step `ratio_to`.

    `value_of` says what one value belongs to: a `turn` of several, one after another; a `film` of several, which no turn repeats; or the
    `whole`, done once. `blocks`: how many of the turns each process took, where there was more than one. `warm_up`: turns before the
    first that counts. `quality` and `figures` become columns beside the speed.

    A step that failed (`failed` says why), its correctness gate included, has no values; nor has one that cannot be had on this machine,
    or was refused as it should be (`unavailable`), which is no failure of the run. Raises ValueError for anything else.
    """

    benchmark: str
    step: str
    unit: str = ""
    values: tuple[float, ...] = ()
    value_of: ValueOf = "turn"
    blocks: tuple[int, ...] = ()
    ratio: float | None = None
    ratio_to: str = ""
    bar: Bar | None = None
    quality: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    warm_up: int | None = None
    failed: str = ""
    unavailable: str = ""

    def __post_init__(self) -> None:
        reasons = bool(self.failed) + bool(self.unavailable)
        if reasons + bool(self.values) != 1:
            raise ValueError(f"a row has values, or failed, or is unavailable, and just one of these: {self.benchmark}, {self.step}")
        if reasons and self.ratio is not None:
            raise ValueError(f"a row without values has no ratio: {self.benchmark}, {self.step}")
        if self.blocks and sum(self.blocks) != len(self.values):
            raise ValueError(f"blocks must divide the values, {len(self.values)} of them: {self.blocks}")

    @property
    def reason(self) -> str:
        """Why there are no values, with what it means; "" where there are."""
        return f"failed: {self.failed}" if self.failed else f"unavailable: {self.unavailable}" if self.unavailable else ""

    @property
    def spread(self) -> Spread:
        """Median, 20th and 80th percentile of the values. Raises StatisticsError for a row without any."""
        return spread(self.values)

    @property
    def span(self) -> tuple[float, float]:
        """Lowest and highest of the spread that the table shows: for turns `timing.reach`, for all else the middle 60 %."""
        if self.value_of == "turn" and wanders(self.unit):
            return reach(self.values, self.blocks)
        return self.spread.p20, self.spread.p80

    @property
    def verdict(self) -> str:
        """`met` or `missed` with the bound, "" for a row that has none."""
        if self.bar is None or not self.values:
            return ""
        figure = self.ratio if self.ratio is not None else self.spread.median
        return f"{self.bar}: {'met' if self.bar.is_met(figure) else 'missed'}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, with how many values there are, their percentiles, and the spread that the table shows."""
        if not self.values:
            return asdict(self)
        low, high = self.span
        return asdict(self) | {"repeats": len(self.values), **asdict(self.spread), "low": low, "high": high, "verdict": self.verdict}

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> Row:
        """The row of a line of any schema. Raises KeyError, TypeError or ValueError for a line that is none."""
        known = {each.name for each in fields(cls)}
        found = {name: value for name, value in line.items() if name in known}
        if line.get("skipped"):  # what `unavailable` was called in schema 1
            found["unavailable"] = line["skipped"]
        if "value_of" not in line and line.get("unit") == "dB":
            found["value_of"] = "film"
        found |= {name: tuple(found.get(name, ())) for name in ("values", "blocks")}
        return cls(**found | {"bar": Bar(**line["bar"]) if line.get("bar") else None})


def measured(benchmark: str, step: str, measure: Callable[..., Row], *arguments: Any) -> Row:
    """The row that `measure` makes of the arguments, or the row of a step that failed, with the reason."""
    try:
        return measure(*arguments)
    except LatentrayError as error:
        return Row(benchmark=benchmark, step=step, failed=str(error))


def completed(rows: Sequence[Row], benchmark: object) -> list[Row]:
    """The rows with the seeds (`SEEDS`) and turns of warm-up (`WARM_UP`) of their benchmark's module, where they do not say."""
    seeds, warm_up = getattr(benchmark, "SEEDS", {}), getattr(benchmark, "WARM_UP", None)
    return [replace(row, seeds=row.seeds or seeds, warm_up=warm_up if row.warm_up is None else row.warm_up) for row in rows]


def checks(rows: Sequence[Row]) -> str:
    """Whether every step did what it should, or how many did not."""
    failed = sum(bool(row.failed) for row in rows)
    return f"{failed} of {len(rows)} steps failed" if failed else "passed"


TEXTS = ("step", "unit", "to", "bar")  # columns of words; the others are figures


def columns(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """The names of the columns in which some row has something, and the cells of each row: the step alone for one without values."""
    extra = list(dict.fromkeys(name for row in rows for name in (*row.quality, *row.figures)))
    header = ["step", "median", "unit", "spread", *extra, "ratio", "to", "bar"]
    cells = [_cells(row, extra) if row.values else [row.step] for row in rows]
    full = [line for line in cells if len(line) == len(header)]
    shown = [at for at in range(len(header)) if at == 0 or any(line[at] for line in full)]
    return [header[at] for at in shown], [[line[at] for at in shown] if len(line) > 1 else line for line in cells]


def table(rows: Sequence[Row]) -> str:
    """The rows of one benchmark as aligned columns."""
    header, cells = columns(rows)
    lines = [header, *(line for line in cells if len(line) == len(header))]
    first = max(len(line[0]) for line in (header, *cells))
    widths = [first, *(max(len(line[at]) for line in lines) for at in range(1, len(header)))]

    def lay_out(line: list[str]) -> str:
        pairs = zip(header, line, widths, strict=True)
        return "  ".join(cell.ljust(width) if name in TEXTS else cell.rjust(width) for name, cell, width in pairs).rstrip()

    told = [f"{row.step.ljust(first)}  {row.reason}" if row.reason else lay_out(line) for row, line in zip(rows, cells, strict=True)]
    return "\n".join([lay_out(header), *told])


def columns_of_words(lines: Sequence[Sequence[str]]) -> str:
    """Lines of as many cells each, as aligned columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def figure(value: float | None) -> str:
    """Four significant digits, as a person writes them."""
    if value is None:
        return "-"
    if not isfinite(value):
        return str(value)
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) < 10 else f"{value:.1f}"


def span_of(row: Row) -> str:
    """The spread of a row in a few characters, "" for one value, which has none."""
    return "-".join(map(figure, row.span)) if len(row.values) > 1 else ""


def _cells(row: Row, extra: Sequence[str]) -> list[str]:
    found = row.quality | row.figures
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
    more = [figure(found[name]) if name in found else "" for name in extra]
    return [row.step, figure(row.spread.median), row.unit, span_of(row), *more, ratio, row.ratio_to, row.verdict]
