"""Strict reading of JSON into frozen dataclasses: every field known, present and of its type, or one clear line."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from engine.errors import CodecError

Record = TypeVar("Record")


def read_settings(kind: type[Record], data: Any, where: str) -> Record:
    """An instance of the dataclass `kind` from a JSON object; `where` names the object in messages.

    Fields are bool, int, float, str, dict, a Literal of strings, or tuples of one type (JSON lists).
    Raises CodecError on an unknown or missing field, and on a value of another type.
    """
    if not isinstance(data, dict):
        raise CodecError(f"{where} must be a JSON object: {shortened(data)}")
    hints = get_type_hints(kind)
    known = fields(kind)  # type: ignore[arg-type]  # a dataclass, which `type[Record]` cannot say
    refuse_unknown(data, {field.name for field in known}, where)
    needed = [field.name for field in known if field.default is MISSING and field.default_factory is MISSING]
    missing = [name for name in needed if name not in data]
    if missing:
        raise CodecError(f"{where} lacks fields: {', '.join(missing)}")
    return kind(**{name: typed(hints[name], value, f"{where}.{name}") for name, value in data.items()})


def refuse_unknown(data: dict[str, Any], known: set[str], where: str) -> None:
    """Raises CodecError on a field that nobody would read: ignoring it could change pixels silently."""
    unknown = sorted(set(data) - known)
    if unknown:
        raise CodecError(f"{where} has unknown fields: {shortened(', '.join(unknown))}")


def typed(kind: Any, value: Any, where: str) -> Any:
    """`value` as `kind`, the type of a field; raises CodecError where JSON has another type."""
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or len(value) > 1000:
            raise CodecError(f"{where} must be a list: {shortened(value)}")
        return tuple(typed(get_args(kind)[0], item, where) for item in value)
    kind = str if get_origin(kind) is Literal else get_origin(kind) or kind  # which string, the dataclass checks
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise CodecError(f"{where} must be of type {kind.__name__}: {shortened(value)}")
    if kind is float and not math.isfinite(value):
        raise CodecError(f"{where} must be a finite number: {value}")
    return value


def shortened(value: Any) -> str:
    """A value for the end of a message: on one line, never longer than a line, and with nothing that a terminal would obey."""
    text = " ".join(str(value).split())
    text = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text[:121])
    return text if len(text) <= 120 else text[:117] + "..."
