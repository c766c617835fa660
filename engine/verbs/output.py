"""How every verb prints: what it found on stdout, as text or with --json as one JSON object on the last line."""

from __future__ import annotations

import argparse
import json
from typing import Any


def emit(args: argparse.Namespace, human_text: str, data: dict[str, Any]) -> None:
    """Prints `human_text`, or with --json `data` as one line of JSON (NaN as null, so that any parser reads it)."""
    print(json.dumps(_plain(data), sort_keys=False, allow_nan=False) if args.json else printable(human_text), flush=True)


def printable(text: str) -> str:
    """The text with what a terminal would obey, or could not show, written out: an id of somebody's archive may hold anything."""
    return "".join(each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode() for each in text)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
