"""Medians, ranges and turns."""

from __future__ import annotations

from time import perf_counter

import pytest

from benchmarks.timing import WANDER, Spread, is_rate, is_timed, paired_ratio, reach, spread, take_turns, wanders


def test_spread_is_median_and_the_middle_sixty_percent() -> None:
    assert spread([5, 1, 3, 2, 4, 6]) == Spread(median=3.5, p20=2.0, p80=5.0)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)


def test_steps_take_turns_and_the_first_turn_is_not_counted() -> None:
    calls: list[tuple[str, int]] = []

    def step(name: str, seconds: float, turn: int) -> int:
        calls.append((name, turn))
        end = perf_counter() + (1.0 if turn == 0 and name == "a" else seconds)
        while perf_counter() < end:
            pass
        return 10

    rates = take_turns({"a": lambda turn: step("a", 0.02, turn), "b": lambda turn: step("b", 0.04, turn)}, repeats=3)
    assert calls == [(name, turn) for turn in range(4) for name in "ab"]
    assert [len(values) for values in rates.values()] == [3, 3]
    assert all(10 < rate <= 500 for rate in rates["a"])  # 10 would be the warm-up's
    assert all(rate <= 250 for rate in rates["b"])


def test_ratio_is_of_neighbours_so_a_machine_that_slows_down_does_not_move_it() -> None:
    ceiling = [100.0, 50.0, 10.0, 25.0, 80.0]
    assert paired_ratio([0.8 * value for value in ceiling], ceiling) == pytest.approx(0.8)
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([1.0], [1.0, 2.0])


def test_reach_holds_the_turns_the_processes_and_what_neither_shows() -> None:
    still = [100.0] * 8
    assert reach(still) == pytest.approx((100 * (1 - WANDER), 100 * (1 + WANDER)))
    low, high = reach([*still, 120.0, 120.0], (8, 2))
    assert (low, high) == pytest.approx((95, 120))
    assert reach([70.0, 80.0, 90.0, 100.0, 110.0, 120.0])[0] == spread([70.0, 80.0, 90.0, 100.0, 110.0, 120.0]).p20


def test_units_say_what_is_timed() -> None:
    assert [unit for unit in ("films/s", "GB/s", "ms/shard", "us/row", "s", "dB", "MB", "share", "sd", "") if is_timed(unit)] == [
        *("films/s", "GB/s", "ms/shard", "us/row", "s")
    ]
    assert is_rate("films/s")
    assert not is_rate("ms/shard")
    assert wanders("MB")
    assert not wanders("dB")
