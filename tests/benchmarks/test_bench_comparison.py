"""Two files of results side by side: what counts as the same, and what is said of the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.comparison import compare, told, verdict
from benchmarks.report import Row
from benchmarks.results_file import Head, Results

MACHINE = {"cpu": "AMD EPYC", "cores": 2, "gpus": [], "load": 0.1}
RATE = Row(benchmark="encode", step="encode", unit="films/s", values=(40.0, 41.0, 42.0), ratio=0.745, ratio_to="decode only")
TIME = Row(benchmark="driver", step="in process", unit="ms/shard", values=(0.03, 0.031, 0.032))
FILMS = Row(benchmark="quality", step="demo", unit="dB", values=(20.0, 25.0, 30.0), value_of="film")
ONCE = Row(benchmark="scale", step="plan", unit="us/row", values=(11.0,))
SIZE = Row(benchmark="archive", step="bytes", unit="B", values=(1024.0,), value_of="whole")
GONE = Row(benchmark="encode", step="GPU", unavailable="needs a CUDA device")


def results(*rows: Row, **changed: object) -> Results:
    head = Head(machine=MACHINE, time="2026-11-21T00:00:00+00:00", size="whole")
    return Results(head=replace(head, **changed), rows=rows, path=Path("amd-epyc-2c/a.jsonl"))  # type: ignore[arg-type]


def times(row: Row, factor: float) -> Row:
    return replace(row, values=tuple(value * factor for value in row.values))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (RATE, RATE, "same"),
        (RATE, times(RATE, 1.09), "same"),  # 5 % to either side of both
        (RATE, times(RATE, 1.2), "faster"),
        (RATE, times(RATE, 0.8), "slower"),
        (TIME, times(TIME, 1.2), "slower"),
        (TIME, times(TIME, 0.8), "faster"),
        (FILMS, times(FILMS, 1 + 1e-12), "same"),
        (FILMS, times(FILMS, 1.01), "higher"),  # each film, by far less than films differ
        (FILMS, replace(FILMS, values=(20.5, 24.9, 29.9)), "same"),
        (ONCE, times(ONCE, 2), "one value each"),
        (ONCE, ONCE, "same"),
        (SIZE, times(SIZE, 0.5), "one value each"),
        (None, RATE, "only in B"),
        (RATE, None, "only in A"),
        (GONE, GONE, "same"),
        (RATE, replace(GONE, step="encode"), "A has values; B unavailable: needs a CUDA device"),
    ],
)
def test_verdict(old: Row | None, new: Row | None, expected: str) -> None:
    assert verdict(old, new) == expected


def test_all_steps_of_both_stand_side_by_side_with_their_spreads() -> None:
    found = told(results(RATE, TIME), results(times(RATE, 2), GONE)).splitlines()
    assert found[0].split() == ["step", "A", "B", "unit", "B", "to", "A", "ratio", "A,", "B", "verdict"]
    assert " ".join(found[1].split()) == "encode: encode 41 (38.9-43.1) 82 (77.9-86.1) films/s 2.00x 0.74x, 0.74x faster"
    assert " ".join(found[2].split()) == "driver: in process 0.031 (0.02945-0.03255) - ms/shard - only in A"
    assert found[-1] == "0 of 1 steps that are in both: same"
    assert [each.verdict for each in compare(results(RATE), results(RATE, TIME))] == ["same", "only in B"]


def test_what_else_differs_is_noted_first() -> None:
    other = MACHINE | {"gpus": ["NVIDIA H200 driver 575.51"], "load": 1.5}
    found = told(results(RATE, films="aa"), results(RATE, machine=other, size="nightly", films="bb")).splitlines()
    assert found[:4] == [
        "note: other machines, so a change may be theirs: amd-epyc-2c; amd-epyc-2c-1x-nvidia-h200",
        "note: other sizes, so a change may be theirs: whole; nightly",
        "note: other films, so a change may be theirs: aa; bb",
        "note: the machine was busy when B began, load 1.50",
    ]
