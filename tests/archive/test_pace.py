"""Seconds a film, workers and seconds left, from commit records alone."""

from __future__ import annotations

from typing import Any

import pytest

from engine.archive.pace import pace
from engine.records import ShardReceipt


def receipt(shard: int, *, seconds: dict[str, Any], rows: int = 4, **made_by: str) -> ShardReceipt:
    return ShardReceipt(
        shard=shard,
        first_row=shard * 4,
        num_rows=rows,
        plan_digest="",
        attempt=1,
        rows={"ok": rows},
        objects={},
        failures=[],
        made_by={"host": "here", "device": "cpu", **made_by},
        seconds=seconds,
    )


def test_seconds_are_a_workers_and_a_films() -> None:
    found = pace([receipt(0, seconds={"archive": 1.0, "encode": 2.0}), receipt(1, seconds={"encode": 4.0, "refine": 8.0})], pending=6)
    assert list(found["seconds_per_film"].items()) == [("encode", 0.75), ("refine", 1.0), ("archive", 0.125)]
    assert found["images_per_second"] == pytest.approx(1 / 1.875)
    assert (found["workers"], found["seconds_left"]) == (1, pytest.approx(6 * 1.875))


def test_workers_are_those_of_the_later_half() -> None:
    before = [receipt(shard, seconds={"encode": 4.0}, process=f"former {shard}") for shard in range(4)]
    now = [receipt(4 + shard, seconds={"encode": 4.0}, process=str(shard % 2)) for shard in range(4)]
    found = pace(before + now, pending=10)
    assert (found["workers"], found["images_per_second"], found["seconds_left"]) == (2, 2.0, 5.0)
    assert pace(now[:2], pending=10)["workers"] == 1  # of one shard each, which may be one worker twice


def test_hosts_and_devices_are_workers_of_their_own() -> None:
    places = ({"host": "a"}, {"host": "b"}, {"host": "b", "device": "cuda"}) * 2
    assert pace([receipt(at, seconds={"encode": 1.0}, **place) for at, place in enumerate(places)], pending=0)["workers"] == 3


@pytest.mark.parametrize("records", [[], [receipt(0, seconds={})]], ids=["nothing committed", "merged"])
def test_without_times_nothing_is_known(records: list[ShardReceipt]) -> None:
    assert set(pace(records, pending=3).values()) == {None}


def test_a_time_that_was_not_finite_counts_as_none() -> None:
    assert pace([receipt(0, seconds={"encode": None, "archive": 0.0})], pending=3)["images_per_second"] is None
