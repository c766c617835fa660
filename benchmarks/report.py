"""What a benchmark found: a row a step, printed as a table with quality beside speed, kept as JSON lines, compared run by run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.timing import spread
from engine.errors import ConfigError, LatentrayError


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What a row has to reach: a bound on its ratio, or on the median of its values where it has no ratio."""

    bound: float
    sense: str  # "at least" or "at most"

    def is_met(self, figure: float) -> bool:
        """Whether the figure is on the right side of the bound."""
        return figure >= self.bound if self.sense == "at least" else figure <= self.bound


@dataclass(frozen=True, kw_only=True)
class Row:
    """One step of one benchmark. `values` are its repeated measurements in `unit`; `ratio` compares it with the step `ratio_to`.

    `quality` and `figures` become columns beside the speed. A step that failed has no values, and `failed` says why; nor has one that
    cannot be had on this machine, or was refused as it should be: `unavailable` says why, and it is no failure of the run.
    """

    benchmark: str
    step: str
    unit: str = ""
    values: tuple[float, ...] = ()
    ratio: float | None = None
    ratio_to: str = ""
    bar: Bar | None = None
    quality: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    failed: str = ""
    unavailable: str = ""

    @property
    def verdict(self) -> str:
        """`met` or `missed` with the bound, "" for a row that has none."""
        if self.bar is None:
            return ""
        figure = self.ratio if self.ratio is not None else spread(self.values).median
        return f"{self.bar.sense} {self.bar.bound:g}: {'met' if self.bar.is_met(figure) else 'missed'}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, with the median and the range that the table shows."""
        middle = asdict(spread(self.values)) if self.values else {}
        return asdict(self) | middle | ({"verdict": self.verdict} if self.values else {})


def measured(benchmark: str, step: str, measure: Callable[..., Row], *arguments: Any) -> Row:
    """The row that `measure` makes of the arguments, or the row of a step that failed, with the reason."""
    try:
        return measure(*arguments)
    except LatentrayError as error:
        return Row(benchmark=benchmark, step=step, failed=str(error))


def table(rows: Sequence[Row]) -> str:
    """The rows of one benchmark as aligned columns; a column appears where some row has something in it."""
    extra = list(dict.fromkeys(name for row in rows for name in (*row.quality, *row.figures)))
    header = ["step", "median", "unit", "p20-p80", *extra, "ratio", "to", "bar"]
    reasons = ["", *(_why_not(row) for row in rows)]
    cells = [header, *([row.step] if why else _cells(row, extra) for row, why in zip(rows, reasons[1:], strict=True))]
    full = [line for line in cells if len(line) == len(header)]
    shown = [at for at in range(len(header)) if at == 0 or any(line[at] for line in full[1:])]
    widths = {at: max(len(line[at]) for line in (cells if at == 0 else full)) for at in shown}
    texts = ("step", "unit", "to", "bar")

    def lay_out(line: list[str], why: str) -> str:
        if why:
            return f"{line[0].ljust(widths[0])}  {why}"
        return "  ".join(line[at].ljust(widths[at]) if header[at] in texts else line[at].rjust(widths[at]) for at in shown).rstrip()

    return "\n".join(lay_out(line, why) for line, why in zip(cells, reasons, strict=True))


def write_results(folder: Path, machine: dict[str, Any], rows: Iterable[Row], *, quick: bool) -> Path:
    """Writes one run as a new file of JSON lines: the machine first, then a line a row. Never touches an existing file."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    head = {"machine": machine, "time": now.isoformat(timespec="seconds"), "quick": quick}
    text = "".join(json.dumps(line) + "\n" for line in (head, *(row.to_json() for row in rows)))
    stem = now.strftime("%Y-%m-%dT%H%M%SZ") + ("-quick" if quick else "")
    for suffix in ("", *(f"-{number}" for number in range(2, 100))):
        path = folder / f"{stem}{suffix}.jsonl"
        try:
            with path.open("x") as file:
                file.write(text)
        except FileExistsError:
            continue
        return path
    raise ConfigError(f"a hundred results of this second are already there: {folder}")


def compare(before: Path, after: Path) -> str:
    """Two files of results side by side, step by step: medians, ratios, and how much faster or slower `after` is."""
    old, new = _by_step(before), _by_step(after)
    lines = [["step", "before", "after", "unit", "change", "ratio before", "ratio after"]]
    for step in dict.fromkeys((*old, *new)):
        a, b = old.get(step, {}), new.get(step, {})
        medians = a.get("median"), b.get("median")
        change = f"{medians[1] / medians[0]:.2f}x" if medians[0] and medians[1] else "-"
        unit = a.get("unit") or b.get("unit") or ""
        lines.append([step, *map(_figure, medians), unit, change, _figure(a.get("ratio")), _figure(b.get("ratio"))])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _why_not(row: Row) -> str:
    return f"failed: {row.failed}" if row.failed else f"unavailable: {row.unavailable}" if row.unavailable else ""


def _cells(row: Row, extra: Sequence[str]) -> list[str]:
    middle = spread(row.values)
    span = f"{_figure(middle.p20)}-{_figure(middle.p80)}" if len(row.values) > 1 else ""
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
    found = row.quality | row.figures
    columns = [_figure(found[name]) if name in found else "" for name in extra]
    return [row.step, _figure(middle.median), row.unit, span, *columns, ratio, row.ratio_to, row.verdict]


def _by_step(path: Path) -> dict[str, dict[str, Any]]:
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return {f"{line['benchmark']}: {line['step']}": line for line in lines[1:]}
    except FileNotFoundError:
        raise ConfigError(f"no such file of results: {path}") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"this is no file of benchmark results: {path}") from None


def _figure(value: float | None) -> str:
    """Four significant digits, as a person writes them."""
    if value is None:
        return "-"
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) < 10 else f"{value:.1f}"
