"""Runs benchmarks one after another, in rounds, and keeps what they found after each, with the seconds that it took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.commands import StepFailed
from benchmarks.inputs import Options, films_digest, say
from benchmarks.machine import describe_machine, machine_line
from benchmarks.registry import asked, lacking, load, words
from benchmarks.report import Row, checks, completed, table
from benchmarks.results_file import Head, Results, add_rows, begin_results, seconds_table
from engine.errors import LatentrayError

Show = Callable[[str], None]


def measure(names: Sequence[str], options: Options, *, rounds: int, out: Path, show: Show) -> Results:
    """Runs each of `names` in each round, shows the machine and a table each, and returns the file under `out`.

    The rounds of a benchmark lie as far apart as the others take: what changes from one process, or one minute, to the next is in its
    spread. A benchmark whose preparation fails is a row with the reason, and the others are run; alone, it raises what a request can be
    refused with (a codec that is none), and leaves no file.
    """
    machine = describe_machine()
    show(machine_line(machine))
    head = Head.begin(machine, options.size, settings=options.settings(), films=films_digest(options), rounds=rounds)
    results = begin_results(out, head)
    found: dict[str, list[list[Row]]] = {name: [] for name in names}
    seconds = dict.fromkeys(names, 0.0)
    refusal = StepFailed if len(names) == 1 else LatentrayError
    for number, name in product(range(rounds), names):
        say(f"{name}, round {number + 1} of {rounds}" if rounds > 1 else name)
        began = perf_counter()
        found[name].append(run_one(name, options, refusal))
        seconds[name] += perf_counter() - began
        if number == rounds - 1:
            rows = joined(found[name])
            results = add_rows(results, name, rows, seconds[name])
            show(_told(name, rows, seconds[name]))
    show(f"\n{seconds_table(results)}")
    return results


def run_one(name: str, options: Options, refusal: type[LatentrayError]) -> list[Row]:
    """The rows of one benchmark; what it cannot do here, or could not prepare, is a row with the reason. `refusal`: errors of that kind."""
    reason = lacking(name, options)
    if reason:
        return [Row(benchmark=name, step="all of it", unavailable=reason)]
    benchmark = load(name)
    found: list[Row] = []
    try:
        found.extend(benchmark.rows(options))
    except refusal as error:  # while preparing: what was measured before it is kept
        found.append(Row(benchmark=name, step="preparation", failed=str(error)))
    return completed(found, benchmark)


def joined(rounds: Sequence[Sequence[Row]]) -> list[Row]:
    """The rows of several rounds as one row a step: all turns, a block a round, and medians of all else; where one failed, that one."""
    steps = {row.step: [each for found in rounds for each in found if each.step == row.step] for found in rounds for row in found}
    return [_joined(of_step) for of_step in steps.values()]


def _joined(rows: list[Row]) -> Row:
    reasons = [row for row in rows if row.reason]
    if reasons or len(rows) == 1:
        return next((row for row in rows if row.failed), (reasons or rows)[0])
    first = rows[0]
    ratios = [row.ratio for row in rows if row.ratio is not None]
    once = first.value_of == "film"  # the same films again
    return replace(
        first,
        values=first.values if once else tuple(value for row in rows for value in row.values),
        blocks=() if once else tuple(len(row.values) for row in rows),
        ratio=median(ratios) if ratios else None,
        quality={name: median(row.quality[name] for row in rows if name in row.quality) for name in first.quality},
        figures={name: median(row.figures[name] for row in rows if name in row.figures) for name in first.figures},
    )


def _told(name: str, rows: Sequence[Row], seconds: float) -> str:
    question, timed, _ = asked(name)
    return "\n".join([f"\n{name} ({seconds:.0f} s): {question}", timed, f"checks: {checks(rows)}", table(rows), *words(name, rows)])
