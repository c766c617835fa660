"""The static coder: whatever goes in comes out again, the bytes are the same for ever, and damage is seen."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.rates.code_tables import fit_tables, to_numbers
from benchmarks.rates.static_coder import TOTAL, Numbers, StaticTables, decode, encode
from engine.errors import ArchiveError, ConfigError

INT32 = st.integers(-(2**31), 2**31 - 1)


def tables_of(columns: int, *, reach: int = 2) -> StaticTables:
    """Three tables for as many columns as asked: a peaked one, a flat one, and one that has all but the least for its last number."""
    size = 2 * reach + 2
    flat = [TOTAL // size] * size
    flat[0] += TOTAL - sum(flat)
    peaked, last = [1] * size, [1] * size
    peaked[reach] = last[-1] = TOTAL - size + 1
    return StaticTables(
        centres=np.arange(columns) * 7 - 20, groups=np.arange(columns) % 3, frequencies=np.array([peaked, flat, last], dtype=np.int64)
    )


@st.composite
def numbers(draw: st.DrawFn) -> Numbers:
    films, columns = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    near = st.integers(-60, 120)
    rows = st.lists(st.one_of(near, INT32), min_size=columns, max_size=columns)
    return np.array(draw(st.lists(rows, min_size=films, max_size=films)), dtype=np.int32)


@settings(max_examples=150, deadline=None)
@given(numbers())
def test_numbers_come_back_exactly_inside_tables_and_beyond(found: Numbers) -> None:
    tables = tables_of(found.shape[1])
    streams = encode(found, tables)
    assert np.array_equal(decode(streams, tables), found)
    alone = [encode(row[None], tables)[0] for row in found]
    assert streams == alone  # a film's bytes do not depend on its neighbours


@settings(max_examples=40, deadline=None)
@given(numbers(), st.integers(1, 5))
def test_fitted_tables_carry_numbers_that_they_were_not_fitted_on(found: Numbers, groups: int) -> None:
    rng = np.random.default_rng(0)
    tables = fit_tables(rng.normal(0, 4, (6, found.shape[1])).round().astype(np.int32), groups=groups)
    assert (tables.frequencies.sum(axis=1) == TOTAL).all()
    assert np.array_equal(decode(encode(found, tables), tables), found)


def coded_by_hand(row: list[int], tables: StaticTables) -> bytes:
    """The same stream by Python's own whole numbers, one symbol after another, as the definition of rANS has it."""
    state, written = 2**23, []

    def put(start: int, frequency: int) -> None:
        nonlocal state
        while state >= frequency * 2**17:
            written.append(state % 256)
            state //= 256
        state = state // frequency * TOTAL + start + state % frequency

    for number, centre, group in reversed(list(zip(row, tables.centres.tolist(), tables.groups.tolist(), strict=True))):
        table = tables.frequencies[group].tolist()
        at = number - centre + tables.reach
        if not 0 <= at < len(table) - 1:
            for byte in number.to_bytes(4, "little", signed=True):
                put(byte * TOTAL // 256, TOTAL // 256)
            at = len(table) - 1
        put(sum(table[:at]), table[at])
    return state.to_bytes(4, "big") + bytes(reversed(written))


@settings(max_examples=80, deadline=None)
@given(numbers())
def test_bytes_are_those_of_the_definition(found: Numbers) -> None:
    tables = tables_of(found.shape[1])
    assert encode(found, tables) == [coded_by_hand(row, tables) for row in found.tolist()]


def test_the_bytes_are_the_same_on_any_machine() -> None:
    rows = (np.arange(300).reshape(5, 60) * 37 % 23 - 11).astype(np.int32)
    rows[3, 7] = 2**31 - 1
    streams = encode(rows, tables_of(60, reach=12))
    assert hashlib.sha256(b"|".join(streams)).hexdigest() == "7cabaffb478d6b46796767826ecc53024edfc0565483dd01ee767f5d1b8b0881"


def test_streams_are_nearly_as_small_as_the_tables_allow() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(0, 3, (200, 256)).round().astype(np.int32)
    tables = fit_tables(rows[:100])
    measured = rows[100:]
    at = measured - tables.centres + tables.reach
    ideal = -np.log2(tables.frequencies[tables.groups, at] / TOTAL).sum() / 8 / len(measured)
    mean = np.mean([len(stream) for stream in encode(measured, tables)])
    assert ideal < mean < ideal + 4.5  # a state of 4 bytes goes with each
    entropy = 256 / 8 * np.log2(3 * np.sqrt(2 * np.pi * np.e))
    assert ideal < 1.03 * entropy


def test_fitted_tables_follow_centre_and_spread_of_their_columns() -> None:
    rng = np.random.default_rng(2)
    spreads = np.where(np.arange(32) % 2, 1.0, 20.0)
    rows = (rng.normal(0, 1, (300, 32)) * spreads + 1000).round().astype(np.int32)
    tables = fit_tables(rows, groups=2)
    assert np.abs(tables.centres - 1000).max() <= 5
    assert len(set(tables.groups[::2])) == len(set(tables.groups[1::2])) == 1
    narrow, wide = (tables.frequencies[tables.groups[column]] for column in (1, 0))
    assert narrow.max() > 5 * wide.max()


def test_codes_become_multiples_of_the_step() -> None:
    codes = np.array([[0.0, 0.126, -0.126, 1e3]], dtype=np.float32)
    assert to_numbers(codes, 0.25).tolist() == [[0, 1, -1, 4000]]


@pytest.mark.parametrize("change", ["cut", "more", "other", "empty"])
def test_damaged_streams_are_refused(change: str) -> None:
    tables = tables_of(40, reach=12)
    rows = (np.arange(80).reshape(2, 40) % 9 - 4).astype(np.int32)
    first, second = encode(rows, tables)
    other = bytes([second[0] ^ 1]) + second[1:]
    streams = [first, {"cut": second[:-1], "more": second + b"\0", "other": other, "empty": b""}[change]]
    with pytest.raises(ArchiveError, match="streams of codes are damaged, the first of them is: 1"):
        decode(streams, tables)


def test_tables_that_do_not_add_up_are_refused() -> None:
    fine = tables_of(3)
    with pytest.raises(ConfigError, match=f"add up to {TOTAL}, these of table 1 do not"):
        StaticTables(centres=fine.centres, groups=fine.groups, frequencies=fine.frequencies + np.array([[0], [1], [0]]))
    with pytest.raises(ConfigError, match="frequencies of 1 or more"):
        StaticTables(centres=fine.centres, groups=fine.groups, frequencies=fine.frequencies * 0)
    with pytest.raises(ConfigError, match="a centre and a table that is there"):
        StaticTables(centres=fine.centres, groups=fine.groups + 3, frequencies=fine.frequencies)
    with pytest.raises(ConfigError, match="tables are of 3 columns"):
        encode(np.zeros((1, 4), dtype=np.int32), fine)


def test_no_films_make_no_streams() -> None:
    tables = tables_of(5)
    assert encode(np.zeros((0, 5), dtype=np.int32), tables) == []
    assert decode([], tables).shape == (0, 5)
