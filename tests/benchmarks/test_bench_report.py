"""Rows: what they may hold, their verdict, and the table of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from benchmarks.report import Bar, Row, checks, completed, measured, table
from engine.errors import ConfigError, DecodeError

AT_LEAST, AT_MOST = Bar(bound=0.7, sense="at least"), Bar(bound=5.0, sense="at most")
CEILING = Row(benchmark="encode", step="decode only", unit="films/s", values=(50.0, 60.0, 55.0))
JOB = Row(
    benchmark="encode",
    step="encode",
    unit="films/s",
    values=(40.0, 41.0, 42.0),
    ratio=0.745,
    ratio_to="decode only",
    bar=AT_LEAST,
    quality={"PSNR dB": 26.3149},
    figures={"shards": 1000},
)
ELSEWHERE = Row(benchmark="encode", step="encode on a GPU", unavailable="needs a CUDA device")
BROKEN = Row(benchmark="encode", step="encode --workers 2", failed="no worker could start: out of memory")


def test_table_has_quality_beside_speed_and_keeps_what_failed() -> None:
    lines = table([CEILING, JOB, BROKEN]).splitlines()
    assert lines[0].split() == ["step", "median", "unit", "spread", "PSNR", "dB", "shards", "ratio", "to", "bar"]
    assert lines[1].split() == ["decode", "only", "55", "films/s", "52-58"]  # the turns
    assert " ".join(lines[2].split()) == "encode 41 films/s 38.9-43.1 26.3 1,000 0.74x decode only at least 0.7: met"  # 5 %
    assert lines[3] == "encode --workers 2  failed: no worker could start: out of memory"
    assert lines[1].index("films/s") == lines[2].index("films/s")


def test_what_cannot_be_had_here_stays_in_the_table_with_its_reason_and_is_no_failure() -> None:
    assert table([CEILING, ELSEWHERE]).splitlines()[2] == "encode on a GPU  unavailable: needs a CUDA device"
    line = ELSEWHERE.to_json()
    assert (line["failed"], line["unavailable"]) == ("", "needs a CUDA device")
    assert "verdict" not in line
    assert "median" not in line


def test_table_of_failures_only_has_no_empty_columns() -> None:
    assert table([BROKEN]).splitlines() == ["step", "encode --workers 2  failed: no worker could start: out of memory"]


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row(benchmark="b", step="s", values=(9.0,), ratio=0.7, bar=AT_LEAST), "at least 0.7: met"),
        (Row(benchmark="b", step="s", values=(9.0,), ratio=0.69, bar=AT_LEAST), "at least 0.7: missed"),
        (Row(benchmark="b", step="s", values=(1.0, 5.0, 9.0), bar=AT_MOST), "at most 5: met"),
        (Row(benchmark="b", step="s", values=(6.0,), bar=AT_MOST), "at most 5: missed"),
        (Row(benchmark="b", step="s", values=(6.0,)), ""),
    ],
)
def test_verdict_judges_the_ratio_or_else_the_median(row: Row, verdict: str) -> None:
    assert row.verdict == verdict


def test_a_step_that_a_user_could_cause_to_fail_becomes_a_row_and_our_own_mistake_does_not() -> None:
    def fail(error: Exception) -> Row:
        raise error

    assert measured("encode", "step", fail, ConfigError("no such folder")) == Row(benchmark="encode", step="step", failed="no such folder")
    with pytest.raises(DecodeError):
        measured("encode", "step", fail, DecodeError("ours"))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"failed": "codes differ", "values": (3.0,)}, "a row has values, or failed, or is unavailable, and just one of these: b, s"),
        ({"unavailable": "needs a GPU", "values": (3.0,)}, "a row has values, or failed"),
        ({"unavailable": "needs a GPU", "failed": "codes differ"}, "a row has values, or failed"),
        ({}, "a row has values, or failed"),
        ({"failed": "codes differ", "ratio": 2.0}, "a row without values has no ratio: b, s"),
        ({"values": (1.0, 2.0, 3.0), "blocks": (1, 1)}, r"blocks must divide the values, 3 of them: \(1, 1\)"),
    ],
)
def test_a_row_whose_gate_failed_can_hold_no_speed(told: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Row(benchmark="b", step="s", **told)


def test_a_row_survives_its_line_of_json_and_an_old_line_is_read() -> None:
    for row in (CEILING, JOB, ELSEWHERE, BROKEN):
        assert Row.from_json(json.loads(json.dumps(row.to_json()))) == row
    line = JOB.to_json()
    assert (line["median"], line["p20"], line["p80"], line["repeats"], line["verdict"]) == (41.0, 40.4, 41.6, 3, "at least 0.7: met")
    assert (line["low"], line["high"]) == pytest.approx((38.95, 43.05))
    old = {"benchmark": "kernels", "step": "speed", "values": [], "bar": None, "failed": "", "skipped": "needs a CUDA device"}
    assert Row.from_json(old) == Row(benchmark="kernels", step="speed", unavailable="needs a CUDA device")
    assert Row.from_json({"benchmark": "quality", "step": "s", "unit": "dB", "values": [26.0, 27.0]}).value_of == "film"


def test_spread_is_widened_for_what_wanders_and_for_nothing_else() -> None:
    rate = Row(benchmark="b", step="s", unit="films/s", values=(99.0, 100.0, 101.0))
    assert rate.span == pytest.approx((95, 105))
    assert replace(rate, values=(80.0, 100.0, 120.0)).span == pytest.approx((88, 112))
    assert replace(rate, values=(90.0, 90.0, 100.0, 100.0, 100.0, 100.0, 100.0), blocks=(2, 5)).span == pytest.approx((90, 105))
    assert replace(rate, unit="B").span == replace(rate, value_of="film").span == pytest.approx((99.4, 100.6))


def test_rows_get_what_their_module_says_and_they_do_not() -> None:
    class Module:
        SEEDS: ClassVar = {"films": 3}
        WARM_UP = 1

    (row, own) = completed([JOB, replace(JOB, seeds={"own": 1}, warm_up=0)], Module)
    assert (row.seeds, row.warm_up) == ({"films": 3}, 1)
    assert (own.seeds, own.warm_up) == ({"own": 1}, 0)
    assert completed([JOB], object()) == [JOB]
    assert (checks([JOB, ELSEWHERE]), checks([JOB, BROKEN])) == ("passed", "1 of 2 steps failed")
