"""Whole numbers as few bytes: a range coder (rANS) with fixed integer tables, in integer arithmetic alone, many films at a time.

Nothing adapts and nothing is predicted: the same tables and numbers give the same bytes on any machine. Each film is a stream of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import ArchiveError, ConfigError

PRECISION = 14  # bits: the frequencies of a table add up to 2^14
TOTAL = 1 << PRECISION
LENGTH_BYTES = 2  # that a table of contents holds for each stream

_LEAST = 1 << 23  # a state lies in [2^23, 2^31) between two numbers
_STATE_BYTES = 4
_RAW_BYTES = 4  # of a number that its table does not hold, after the mark that says so
_RAW_FREQUENCY = TOTAL >> 8

Numbers = np.ndarray[Any, np.dtype[np.int32]]
Integers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class StaticTables:
    """How often which number is to be expected, as integers: what coder and decoder must have in common.

    Column c [d] is centred on `centres[c]` and follows table `groups[c]`. `frequencies` [g, 2 * reach + 2] int64: of -reach ... reach,
    then of all numbers beyond; each is 1 or more, and a table's add up to TOTAL. Raises ConfigError for others.
    """

    centres: Integers
    groups: Integers
    frequencies: Integers

    def __post_init__(self) -> None:
        if self.frequencies.ndim != 2 or self.frequencies.shape[1] % 2 or not self.frequencies.size or self.frequencies.min() < 1:
            raise ConfigError(f"tables need an even number of frequencies of 1 or more: {list(self.frequencies.shape)}")
        wrong = np.flatnonzero(self.frequencies.sum(axis=1) != TOTAL)
        if len(wrong):
            raise ConfigError(f"the frequencies of a table must add up to {TOTAL}, these of table {wrong[0]} do not")
        if self.centres.shape != self.groups.shape or self.groups.min() < 0 or self.groups.max() >= len(self.frequencies):
            raise ConfigError(
                f"each column needs a centre and a table that is there: {list(self.centres.shape)}, {list(self.groups.shape)}"
            )

    @property
    def reach(self) -> int:
        """The largest distance from its centre that a number may have without being written raw."""
        return int(self.frequencies.shape[1]) // 2 - 1


def encode(numbers: Numbers, tables: StaticTables) -> list[bytes]:
    """Numbers [films, d] int32 as a stream a film. Raises ConfigError for another number of columns than the tables have."""
    films, columns = numbers.shape
    if columns != len(tables.groups):
        raise ConfigError(f"tables are of {len(tables.groups)} columns, numbers have another number of them: {columns}")
    coder = _Encoder(films, columns)
    starts = _starts(tables.frequencies)
    everyone = np.ones(films, dtype=bool)
    for column in range(columns - 1, -1, -1):  # backwards: what is written last is read first
        group = tables.groups[column]
        symbols = numbers[:, column].astype(np.int64) - tables.centres[column] + tables.reach
        escape = tables.frequencies.shape[1] - 1
        is_beyond = (symbols < 0) | (symbols >= escape)
        if is_beyond.any():
            raw = numbers[:, column].astype(np.int64) & 0xFFFFFFFF
            for byte in range(_RAW_BYTES):
                coder.put(is_beyond, (raw >> (8 * byte) & 0xFF) * _RAW_FREQUENCY, np.full(films, _RAW_FREQUENCY))
        symbols = np.where(is_beyond, escape, symbols)
        coder.put(everyone, starts[group, symbols], tables.frequencies[group, symbols])
    return coder.finish()


def decode(streams: Sequence[bytes], tables: StaticTables) -> Numbers:
    """The numbers [films, d] int32 of `encode`. Raises ArchiveError for a stream that was cut, that has more, or that is none of these."""
    decoder = _Decoder(streams)
    lookup = np.stack([np.repeat(np.arange(len(row)), row) for row in tables.frequencies])
    starts = _starts(tables.frequencies)
    escape = tables.frequencies.shape[1] - 1
    found = np.zeros((len(streams), len(tables.groups)), dtype=np.int64)
    everyone = np.ones(len(streams), dtype=bool)
    for column, (group, centre) in enumerate(zip(tables.groups, tables.centres, strict=True)):
        symbols = lookup[group][decoder.slots]
        decoder.take(everyone, starts[group, symbols], tables.frequencies[group, symbols])
        found[:, column] = symbols - tables.reach + centre
        is_beyond = symbols == escape
        if is_beyond.any():
            raw = np.zeros(len(streams), dtype=np.int64)
            for _ in range(_RAW_BYTES):
                byte = decoder.slots // _RAW_FREQUENCY
                decoder.take(is_beyond, byte * _RAW_FREQUENCY, np.full(len(streams), _RAW_FREQUENCY))
                raw = raw << 8 | byte
            found[is_beyond, column] = (raw[is_beyond] ^ 0x80000000) - 0x80000000
    decoder.finish()
    return found.astype(np.int32)


class _Encoder:
    """The states of all films [n], and the bytes that they gave up, last byte first."""

    def __init__(self, films: int, columns: int) -> None:
        self._states = np.full(films, _LEAST, dtype=np.int64)
        # a number costs at most 2 bytes, one written raw 1 more each
        self._bytes = np.zeros((films, columns * (2 + _RAW_BYTES) + _STATE_BYTES), dtype=np.uint8)
        self._lengths = np.zeros(films, dtype=np.int64)

    def put(self, who: Any, starts: Integers, frequencies: Integers) -> None:
        """Codes one symbol of the films `who`, a mask [n]: that of `frequencies` [n] out of TOTAL, from `starts` [n] on."""
        limits = frequencies << (31 - PRECISION)
        while (full := np.flatnonzero(who & (self._states >= limits))).size:
            self._push(full)
        coded = (self._states // frequencies << PRECISION) + self._states % frequencies + starts
        self._states = np.where(who, coded, self._states)

    def finish(self) -> list[bytes]:
        """The streams, first byte first, each with its last state in front."""
        everyone = np.arange(len(self._states))
        for _ in range(_STATE_BYTES):
            self._push(everyone)
        return [row[:length][::-1].tobytes() for row, length in zip(self._bytes, self._lengths, strict=True)]

    def _push(self, who: Integers) -> None:
        self._bytes[who, self._lengths[who]] = self._states[who] & 0xFF
        self._lengths[who] += 1
        self._states[who] >>= 8


class _Decoder:
    """The states of all films [n], and how far each stream was read."""

    def __init__(self, streams: Sequence[bytes]) -> None:
        self._lengths = np.array([len(stream) for stream in streams], dtype=np.int64)
        self._bytes = np.zeros((len(streams), int(self._lengths.max(initial=0)) + 1), dtype=np.int64)
        for row, stream in zip(self._bytes, streams, strict=True):
            row[: len(stream)] = np.frombuffer(stream, dtype=np.uint8)
        self._read = np.zeros(len(streams), dtype=np.int64)
        self._states = np.zeros(len(streams), dtype=np.int64)
        for _ in range(_STATE_BYTES):
            self._pull(np.arange(len(streams)))

    @property
    def slots(self) -> Integers:
        """Where in [0, TOTAL) the next symbol of each film lies, [n]."""
        found: Integers = self._states & (TOTAL - 1)
        return found

    def take(self, who: Any, starts: Integers, frequencies: Integers) -> None:
        """Goes past one symbol of the films `who`."""
        rest = frequencies * (self._states >> PRECISION) + self.slots - starts
        self._states = np.where(who, rest, self._states)
        while (low := np.flatnonzero(who & (self._states < _LEAST) & (self._read < self._lengths))).size:
            self._pull(low)

    def finish(self) -> None:
        """Every stream must be read to its end and be back at the first state, or it is not what was written."""
        wrong = np.flatnonzero((self._states != _LEAST) | (self._read != self._lengths))
        if len(wrong):
            raise ArchiveError(f"{len(wrong)} streams of codes are damaged, the first of them is: {wrong[0]}")

    def _pull(self, who: Integers) -> None:
        # a stream too short for a state gives zeros, and `finish` sees that more was read than is there
        at = np.minimum(self._read[who], self._bytes.shape[1] - 1)
        self._states[who] = self._states[who] << 8 | self._bytes[who, at]
        self._read[who] += 1


def _starts(frequencies: Integers) -> Integers:
    found: Integers = np.cumsum(frequencies, axis=1) - frequencies
    return found
