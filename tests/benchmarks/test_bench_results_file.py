"""Files of results: written once, kept as a run goes on, and read whatever their schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.report import Row
from benchmarks.results_file import SCHEMA, Head, add_rows, all_results, begin_results, read_results, seconds_table
from engine.errors import ConfigError

MACHINE = {"cpu": "AMD EPYC", "cores": 2, "gpus": [], "load": 0.1}
SLOW, FAST = (Row(benchmark=name, step="s", unit="films/s", values=(2.0, 3.0)) for name in ("slow", "fast"))


def test_a_run_never_touches_the_file_of_another(tmp_path: Path) -> None:
    head = Head.begin(MACHINE, "quick")
    found = [add_rows(begin_results(tmp_path, head), "slow", [SLOW], 1.0) for _ in range(3)]
    assert len({each.path for each in found}) == 3
    assert all(each.path.name.partition("-quick")[1] for each in found)
    assert all(each.path.parent == tmp_path / "amd-epyc-2c" for each in found)
    assert [read_results(each.path) for each in found] == found


def test_what_was_measured_is_there_while_the_run_goes_on(tmp_path: Path) -> None:
    begun = begin_results(tmp_path, Head.begin(MACHINE, "nightly", settings={"codec": "demo"}, films="ab", rounds=2))
    assert list(begun.path.parent.iterdir()) == []  # nor would a run that is killed now leave anything
    one = add_rows(begun, "slow", [SLOW], 12.34)
    assert read_results(begun.path) == one
    two = add_rows(one, "fast", [FAST], 0.5)
    head, *lines = [json.loads(line) for line in begun.path.read_text().splitlines()]
    assert [line["benchmark"] for line in lines] == ["slow", "fast"]
    assert (head["schema"], head["size"], head["rounds"], head["films"]) == (SCHEMA, "nightly", 2, "ab")
    assert head["seconds"] == {"slow": 12.3, "fast": 0.5}
    assert seconds_table(two).splitlines()[-1].split() == ["all", "12.8", "s"]
    assert [path.name for path in begun.path.parent.iterdir()] == [begun.path.name]
    assert list(all_results(tmp_path)) == [two]


def test_a_file_of_schema_1_is_read(tmp_path: Path) -> None:
    head = {"machine": MACHINE, "time": "2026-11-20T12:04:07+00:00", "quick": False}
    row = {"benchmark": "b", "step": "s", "unit": "films/s", "values": [1.0, 2.0], "median": 1.5, "bar": {"bound": 1, "sense": "at least"}}
    path = tmp_path / "old.jsonl"
    path.write_text(json.dumps(head) + "\n" + json.dumps(row | {"skipped": ""}) + "\n")
    found = read_results(path)
    assert (found.head.schema, found.head.size, found.head.settings) == (1, "whole", {})
    assert found.rows[0].verdict == "at least 1: met"


@pytest.mark.parametrize(
    "text", ["", "no JSON", "{}\n", "[1]\n", '{"schema": 99}\n', '{"machine": {}, "time": "", "quick": false}\n{"some": "thing"}\n']
)
def test_what_is_no_file_of_results_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.jsonl").write_text(text)
    with pytest.raises(ConfigError, match=r"this is no file of benchmark results \(.*\): .*list.jsonl"):
        read_results(tmp_path / "list.jsonl")
    with pytest.raises(ConfigError, match=r"no such file of results: .*nothing.jsonl"):
        read_results(tmp_path / "nothing.jsonl")
