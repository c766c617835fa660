"""A JSON object that anybody may have written: of limited size and depth, each field once, and nothing in it that JSON does not have."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

MAX_BYTES = 2**20
MAX_DEPTH = 100
_MAX_DIGITS = 40  # of a whole number: 128 bits, and never too large for a float


def read_json_object(text: bytes | str, *, max_bytes: int = MAX_BYTES, finite: bool = True) -> dict[str, Any]:
    """The object. Raises ValueError, in one line, for anything else; `finite` False takes NaN and Infinity, as Python writes them.

    Objects and lists may lie in one another MAX_DEPTH deep, and texts must be such that they can be printed.
    """
    if len(text) > max_bytes:
        raise ValueError(f"it must be {max_bytes} bytes or less: {len(text)}")
    try:
        found = json.loads(
            text,
            object_pairs_hook=_once,
            parse_int=_whole,
            parse_float=_finite if finite else None,
            parse_constant=_no_constant if finite else None,
        )
    except RecursionError:
        raise ValueError(f"objects and lists lie in one another more than {MAX_DEPTH} deep") from None
    if not isinstance(found, dict):
        raise ValueError(f"it must be an object, not {_WORDS.get(type(found), 'a number')}")
    _check(found)
    return found


_WORDS = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}


def _check(found: dict[str, Any]) -> None:
    """Raises ValueError for what is nested too deeply, and for texts with halves of characters, which no encoding can hold."""
    level: list[Any] = [found]
    for _ in range(MAX_DEPTH):
        for item in _texts(level):
            try:
                item.encode()
            except UnicodeEncodeError:
                raise ValueError(f"a text has half a character: {item!a:.100}") from None
        level = [inner for item in level if isinstance(item, dict | list) for inner in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return
    raise ValueError(f"objects and lists lie in one another more than {MAX_DEPTH} deep")


def _texts(level: list[Any]) -> Iterator[str]:
    for item in level:
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            yield from item


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"a field is given twice: {next(name for name in names if names.count(name) > 1)!a:.100}")
    return found


def _whole(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number has more than {_MAX_DIGITS} digits: {digits[:20]}...")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"a number is too large: {text[:40]}")
    return value


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
