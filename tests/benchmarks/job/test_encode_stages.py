"""Busy and idle shares of stages come from commit records, and add up to the time that there was."""

from __future__ import annotations

import pytest

from benchmarks.job.encode_stages import stage_times
from engine.records import ShardReceipt


def receipt(index: int, threads: dict[str, float], seconds: dict[str, float]) -> ShardReceipt:
    made_by = {"thread_seconds": threads} if threads else {}
    return ShardReceipt(index, 4 * index, 4, "", 1, {"ok": 4}, {}, [], made_by, seconds)


def test_shares_of_threads_and_of_lines() -> None:
    first = receipt(0, {"read": 1.0, "decode": 12.0}, {"decode": 5.0, "encode": 2.0, "archive": 1.0})
    second = receipt(1, {"read": 1.0, "decode": 10.0}, {"decode": 4.0, "encode": 4.0, "archive": 1.0})
    times = stage_times([first, second], wall=10.0, threads=4, lines=2)
    assert times.shares() == pytest.approx({"read": 5.0, "decode": 55.0, "encode": 30.0, "write": 10.0})
    assert times.idle() == pytest.approx({"read": 38.0, "decode": 18.0, "encode": 14.0, "write": 18.0})


def test_waiting_for_pixels_is_nobodys_work_and_records_without_threads_count_nothing() -> None:
    times = stage_times([receipt(0, {}, {"decode": 9.0, "refine": 1.0})], wall=10.0, threads=2, lines=1)
    assert times.busy == {"refine": 1.0}
    assert times.shares() == pytest.approx({"refine": 10.0})
