"""Tables for the static coder, fitted once to the codes of films that are not measured, and kept as whole numbers from then on."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.rates.static_coder import TOTAL, Integers, Numbers, StaticTables

GROUPS = 8  # tables of a codec: columns of like spread share one, since a hundred films say little about each alone
MOST_REACH = 512

Floats = np.ndarray[Any, np.dtype[np.float64]]


def to_numbers(codes: np.ndarray[Any, np.dtype[np.float32]], step: float) -> Numbers:
    """Codes [films, d] as multiples of a power of two, half to even: [films, d] int32."""
    numbers: Numbers = np.rint(codes / np.float32(step)).astype(np.int32)
    return numbers


def fit_tables(numbers: Numbers, *, groups: int = GROUPS) -> StaticTables:
    """Tables from numbers [films, d] of other films: a centre a column, and a table for each group of columns of like spread.

    A table is its columns' counts, with a normal distribution of the same spread mixed in where counts are few; 1 at least a number.
    """
    centres = np.rint(numbers.mean(axis=0)).astype(np.int64)
    away = numbers.astype(np.int64) - centres
    spreads = np.sqrt(np.square(away).mean(axis=0) + 0.1)
    members = np.array_split(np.argsort(spreads, kind="stable"), min(groups, numbers.shape[1]))
    reach = int(min(MOST_REACH, max(1, np.abs(away).max(initial=0))))
    of_column = np.empty(numbers.shape[1], dtype=np.int64)
    tables = []
    for group, columns in enumerate(members):
        of_column[columns] = group
        tables.append(_frequencies(_expected(away[:, columns].ravel(), float(spreads[columns].mean()), reach)))
    return StaticTables(centres=centres, groups=of_column, frequencies=np.stack(tables))


def _expected(away: Integers, spread: float, reach: int) -> Floats:
    """How often each number in [-reach, reach] is expected, and last all others; adds up to about 1."""
    inside = away[np.abs(away) <= reach]
    counts = np.bincount(inside + reach, minlength=2 * reach + 1)
    at = np.arange(-reach, reach + 1) / spread
    smooth = np.exp(-0.5 * np.square(at)) + 0.01 * np.exp(-np.abs(at) / 2)
    # as much weight as a few films have, and more where a table is wide for its counts
    weight = 0.1 * len(away) + 8 * spread
    found = counts + weight * smooth / smooth.sum()
    return np.append(found, len(away) - len(inside) + 0.5) / (len(away) + weight + 0.5)


def _frequencies(expected: Floats) -> Integers:
    """Whole numbers of 1 or more that add up to TOTAL, by largest remainder."""
    room = TOTAL - len(expected)
    shares = expected / expected.sum() * room
    found: Integers = np.floor(shares).astype(np.int64)
    left = room - int(found.sum())
    found[np.argsort(found - shares, kind="stable")[:left]] += 1
    found += 1
    return found
