"""Seconds go to the stage that spent them, also where stages pull from one another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine import stage_clock
from engine.stage_clock import StageClock


class Time:
    """A clock that stands still until it is told that time has passed."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(stage_clock, "perf_counter", time)
    return time


def test_times_of_a_stage_add_up(time: Time) -> None:
    clock = StageClock()
    for seconds in (1, 2):
        with clock.stage("encode"):
            time.passes(seconds)
        time.passes(10)
    assert clock.seconds == {"encode": 3}


def test_a_stage_within_another_is_counted_once(time: Time) -> None:
    clock = StageClock()
    with clock.stage("refine"):
        time.passes(1)
        with clock.stage("encode"):
            time.passes(2)
            with clock.stage("decode"):
                time.passes(4)
        with clock.stage("encode"):
            time.passes(8)
        time.passes(16)
    assert clock.seconds == {"refine": 17, "encode": 10, "decode": 4}


def test_stages_that_pull_from_one_another(time: Time) -> None:
    clock = StageClock()

    def decoded() -> Iterator[int]:
        for film in range(3):
            time.passes(1)
            yield film
        time.passes(5)  # what it takes to find that there are no more

    def refined() -> Iterator[int]:
        for film in clock.timed("decode", decoded()):
            time.passes(100)
            yield film

    for _ in clock.timed("refine", refined()):
        time.passes(10_000)  # the consumer's own, which is nobody's
    assert clock.seconds == {"decode": 8, "refine": 300}


def test_time_counts_until_an_error(time: Time) -> None:
    clock = StageClock()

    def fails() -> Iterator[int]:
        time.passes(3)
        raise OSError("the disk")
        yield

    def refined() -> Iterator[int]:
        time.passes(1)
        yield from clock.timed("decode", fails())

    with pytest.raises(OSError, match="the disk"):
        list(clock.timed("refine", refined()))
    assert clock.seconds == {"decode": 3, "refine": 1}
    with clock.stage("refine"):
        time.passes(1)
    assert clock.seconds["refine"] == 2


def test_nothing_is_something_to_pass_on() -> None:
    assert list(StageClock().timed("decode", [None, 0])) == [None, 0]


def test_threads_are_told_apart_from_the_line_that_waits_for_them(time: Time) -> None:
    clock = StageClock()
    with clock.stage("decode"):
        time.passes(1)
    clock.add_threads({"read": 0.5, "decode": 6})
    clock.add_threads({"decode": 2})
    assert clock.seconds == {"decode": 1}
    assert clock.threads == {"read": 0.5, "decode": 8}
