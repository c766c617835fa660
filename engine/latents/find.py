"""Directions of an archive's codes, ready to be kept: by labels, by pairs of films, and made independent of one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from engine.errors import ArchiveError, ConfigError
from engine.labels import LabelSpec
from engine.latents.codes import Codes, Values
from engine.latents.direction_file import Direction
from engine.latents.directions import Array, conditioned, find_direction, judge_direction, paired
from engine.latents.film_labels import Marked


def by_labels(codes: Codes, marked: Marked, attribute: str, method: str, *, seed: int) -> Direction:
    """The direction of an attribute by "svm", "lda" or "mean", with its figures as provenance. Raises ConfigError for too few films."""
    some = codes.take(marked.places)
    figures = judge_direction(some.values, marked.marks, method, seed=seed)
    vector = find_direction(some.values, marked.marks, method)
    found = {"films": len(some), "unknown": marked.unknown, "seed": seed, **asdict(figures)}
    return _direction(codes, some.values, vector, attribute, method, found)


def by_pairs(codes: Codes, edited: Codes, attribute: str) -> Direction:
    """The direction from films to the same films edited, which have the same ids; the others only say how far codes spread along it.

    One film alone has no spread: then alpha 1 is the edit itself. Raises ConfigError for codes of two codecs, ArchiveError where no id is
    in both.
    """
    if edited.space.digest != codes.space.digest:
        raise ConfigError(f"archives of a pair must be of one codec: {codes.space.codec}, {edited.space.codec}")
    both = [name for name in codes.ids if name in edited.place_of]
    if not both:
        raise ArchiveError(f"archives of a pair must share ids, these share none: {codes.ids[0]}, {edited.ids[0]}")
    before, after = codes.take([codes.place(name) for name in both]), edited.take([edited.place(name) for name in both])
    vector = paired(before.values, after.values)
    length = float((after.values - before.values).astype("f8").mean(axis=0) @ vector)
    direction = _direction(codes, codes.values, vector, attribute, "paired", {"films": len(both), "length": length})
    return direction if len(codes) > 1 else replace(direction, spread=length)


def independent_of(direction: Direction, others: Sequence[Direction], values: Values) -> Direction:
    """The direction without what it shares with others, so that films keep those attributes; `values` [n, d] give its new spread.

    Raises ConfigError for directions of another codec, and where nothing is left.
    """
    for other in others:
        if other.digest != direction.digest:
            raise ConfigError(f"directions are of two codecs, {direction.codec} and {other.codec}: {other.attribute}")
    vector = conditioned(direction.vector, [other.vector for other in others])
    known = {"independent_of": [other.attribute for other in others]}
    return replace(direction, vector=vector, spread=_spread_along(values, vector), provenance=direction.provenance | known)


def _direction(codes: Codes, values: Values, vector: Array, attribute: str, method: str, found: dict[str, Any]) -> Direction:
    space = codes.space
    return Direction(
        attribute=LabelSpec.parse(attribute).name,
        method=method,
        vector=vector,
        spread=_spread_along(values, vector),
        shape=space.shape,
        codec=space.codec,
        digest=space.digest,
        provenance={"asked": attribute, **found},
    )


def _spread_along(values: Values, vector: Array) -> float:
    """Standard deviation of codes [n, d] along a unit vector [d]."""
    return float((values.astype("f8") @ vector).std())
