"""Rows as a table, as lines of JSON, and two runs beside one another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.report import Bar, Row, compare, measured, table, write_results
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
    assert lines[0].split() == ["step", "median", "unit", "p20-p80", "PSNR", "dB", "shards", "ratio", "to", "bar"]
    assert lines[1].split() == ["decode", "only", "55", "films/s", "52-58"]
    assert " ".join(lines[2].split()) == "encode 41 films/s 40.4-41.6 26.3 1,000 0.74x decode only at least 0.7: met"
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


def test_results_are_never_overwritten(tmp_path: Path) -> None:
    machine = {"cpu": "x", "cores": 2}
    paths = [write_results(tmp_path / "m", machine, [CEILING, JOB, BROKEN], quick=True) for _ in range(3)]
    assert len(set(paths)) == 3
    head, *lines = [json.loads(line) for line in paths[0].read_text().splitlines()]
    assert head["machine"] == machine
    assert head["quick"] is True
    assert [line["step"] for line in lines] == ["decode only", "encode", "encode --workers 2"]
    assert (lines[1]["median"], lines[1]["p20"], lines[1]["p80"]) == (41.0, 40.4, 41.6)
    assert lines[1]["verdict"] == "at least 0.7: met"
    assert lines[2]["failed"] == BROKEN.failed


def test_compare_shows_change_and_what_only_one_run_has(tmp_path: Path) -> None:
    before = write_results(tmp_path, {}, [CEILING, JOB], quick=False)
    faster = Row(benchmark="encode", step="encode", unit="films/s", values=(82.0,), ratio=0.9)
    after = write_results(tmp_path, {}, [faster, BROKEN], quick=False)
    lines = [line.split() for line in compare(before, after).splitlines()]
    assert lines[1] == ["encode:", "decode", "only", "55", "-", "films/s", "-", "-", "-"]
    assert lines[2] == ["encode:", "encode", "41", "82", "films/s", "2.00x", "0.745", "0.9"]
    assert lines[3][-6:] == ["2", "-", "-", "-", "-", "-"]


def test_compare_refuses_what_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file of results: .*nothing.jsonl"):
        compare(tmp_path / "nothing.jsonl", tmp_path / "nothing.jsonl")
    (tmp_path / "list.jsonl").write_text('{}\n{"some": "thing"}\n')
    with pytest.raises(ConfigError, match=r"this is no file of benchmark results: .*list.jsonl"):
        compare(tmp_path / "list.jsonl", tmp_path / "list.jsonl")
