"""The page of this room: its hand-written head, then the newest results of each benchmark: tables, words and plots that name their file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.headlines import in_readme
from benchmarks.machine import machine_folder
from benchmarks.registry import BENCHMARKS, ON_GPU, asked, load, words
from benchmarks.report import Row, columns
from benchmarks.results_file import Results, all_results

ROOM = Path(__file__).resolve().parent
HEAD, PAGE, PLOTS, README = ROOM / "page_head.md", ROOM / "README.md", ROOM / "plots", ROOM.parent / "README.md"
MANY = 30  # rows, above which a table is folded


def write_page() -> list[Path]:
    """Writes the page, its plots, and the tables of the README; returns what was written."""
    found = newest(list(all_results()))
    written = list(_plots(found))
    PAGE.write_text(page(found))
    README.write_text(in_readme(README.read_text(), found))
    return [PAGE, README, *written]


def page(found: Sequence[tuple[str, Results]]) -> str:
    """The text of the page."""
    parts = [HEAD.read_text().rstrip(), "\n".join(_index(found))]
    for name in (*BENCHMARKS, *ON_GPU):
        of_name = [results for benchmark, results in found if benchmark == name]
        if of_name or name not in ON_GPU:
            parts.append("\n\n".join(_section(name, of_name)))
    return "\n\n".join(parts) + "\n"


def newest(results: Sequence[Results]) -> list[tuple[str, Results]]:
    """By benchmark, the last file of each machine, films and codec that has a figure of it: of whole runs, else of nightly ones."""
    last: dict[tuple[Any, ...], Results] = {}
    for size in ("nightly", "whole"):  # the later of both replaces the former
        for each in (each for each in results if each.head.size == size):
            given = [f"{what} {value}" for what, value in sorted(each.head.settings.items()) if value]
            measured = dict.fromkeys(row.benchmark for row in each.rows if row.values)
            for name in (name for name in measured if each.head.time >= getattr(load(name), "SINCE", "")):
                last[name, machine_folder(each.head.machine), *given] = each
    return sorted(((key[0], each) for key, each in last.items()), key=lambda pair: (pair[0], pair[1].name))


def markdown(rows: Sequence[Row]) -> str:
    """The table of `report.table` as Markdown; the reason of a row without values stands in its second cell."""
    header, cells = columns(rows)
    if len(header) == 1:
        header = [*header, ""]
    body = [[row.step, row.reason, *[""] * (len(header) - 2)] if row.reason else line for row, line in zip(rows, cells, strict=True)]
    return "\n".join(_line(line) for line in (header, ["---"] * len(header), *body))


def plot_path(name: str, results: Results) -> Path:
    """Where the plot of a benchmark's rows lies."""
    return PLOTS / f"{name}-{results.path.parent.name}-{results.path.stem}.png"


def _index(found: Sequence[tuple[str, Results]]) -> Iterator[str]:
    """A line a benchmark: what it asks and has to reach, and how many of its newest rows do."""
    yield "## Benchmarks by name\n| name | question | bar | rows that have one |\n| --- | --- | --- | --- |"
    for name in BENCHMARKS:
        question, _, bar = asked(name)
        rows = [row for benchmark, results in found if benchmark == name for row in results.of(name)]
        ends = {end: sum(row.verdict.endswith(end) for row in rows) for end in ("met", "missed")}
        failed = sum(bool(row.failed) for row in rows)
        verdicts = [f"{count} {end}" for end, count in (*ends.items(), ("failed", failed)) if count]
        yield _line([f"[{name}](#{name})", question, bar, ", ".join(verdicts)])


def _section(name: str, found: Sequence[Results]) -> Iterator[str]:
    question, timed, bar = asked(name)
    yield f"## {name}\n{question}"
    yield f"{timed}" + (f" Bar: {bar}." if bar else "")
    if not found:
        yield "No results yet."
    for results in found:
        rows = results.of(name)
        yield from _tables(rows)
        lines = [f"- {line}" for line in words(name, rows)]
        yield from ["\n".join(lines)] if lines else []
        yield _source(name, results)
        if _has_plot(name):
            path = plot_path(name, results)
            yield f"![{name}, drawn from {results.name}]({path.relative_to(ROOM).as_posix()})"


def _tables(rows: Sequence[Row]) -> Iterator[str]:
    """All of a few rows; of many, those that have something to reach or failed, and under a fold all."""
    if len(rows) > MANY:
        first = [row for row in rows if row.bar or row.failed]
        yield from map(markdown, _alike(first))
        yield f"<details><summary>all {len(rows)} rows</summary>"
    yield from map(markdown, _alike(rows))
    if len(rows) > MANY:
        yield "</details>"


def _alike(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in groups with the same columns, so that no table is full of empty cells; one without values stays with those before it."""
    groups: dict[frozenset[str], list[Row]] = {}
    kind: frozenset[str] | None = None
    for row in rows:
        kind = frozenset((*row.quality, *row.figures)) if row.values or kind is None else kind
        groups.setdefault(kind, []).append(row)
    return list(groups.values())


def _source(name: str, results: Results) -> str:
    head, machine = results.head, results.head.machine
    given = [f"{what} `{value}`" for what, value in head.settings.items() if value]
    took = [f"{head.seconds[name]:,.0f} s"] if name in head.seconds else []
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    torch = f"torch {machine['versions']['torch']}"
    parts = [
        machine["cpu"],
        f"{machine['cores']} cores",
        gpus,
        torch,
        f"commit {machine['commit']}",
        f"load {machine['load']:.2f}",
        head.size,
    ]
    return f"From [{results.name}](results/{results.name}): {', '.join([*parts, *given, *took])}."


def _plots(found: Sequence[tuple[str, Results]]) -> Iterator[Path]:
    """Draws those of the page, and removes those that it no longer shows."""
    wanted = {plot_path(name, results): (name, results) for name, results in found if _has_plot(name)}
    PLOTS.mkdir(exist_ok=True)
    for path in set(PLOTS.glob("*.png")) - set(wanted):
        path.unlink()
    for path, (name, results) in wanted.items():
        load(name).plot(results.of(name), path)  # type: ignore[attr-defined]
        yield path


def _has_plot(name: str) -> bool:
    return hasattr(load(name), "plot")


def _line(cells: Sequence[str]) -> str:
    """A row of a table: one line, whatever the lines of its cells."""
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"
