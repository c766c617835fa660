"""JSON of a model directory, read strictly: one object of limited size, each field once, and no value that JSON does not have."""

from __future__ import annotations

import json
from typing import Any

from engine.errors import CodecError
from engine.json_object import MAX_BYTES, read_json_object
from engine.networks.settings import shortened

MAX_JSON_BYTES = MAX_BYTES


def read_object(raw: bytes, name: str) -> dict[str, Any]:
    """The JSON object in the bytes of the file `name`. Raises CodecError, naming the file, for anything else."""
    try:
        return read_json_object(raw, max_bytes=MAX_JSON_BYTES)
    except ValueError as error:
        raise CodecError(f"{name} is not valid JSON: {shortened(error)}") from None


def read_versioned(raw: bytes, name: str, *, format_name: str, version: int) -> dict[str, Any]:
    """The same without its `format` and `format_version`, which must be these. Raises CodecError where they are not."""
    data = read_object(raw, name)
    if data.pop("format", None) != format_name:
        raise CodecError(f"{name} does not say that it is one of ours (format must be {format_name})")
    found = data.pop("format_version", None)
    if found != version or isinstance(found, bool):
        raise CodecError(f"{name} has a version that this release cannot read (it reads {version}): {shortened(found)}")
    return data


def to_json_bytes(plain: dict[str, Any], *, format_name: str, version: int) -> bytes:
    """The bytes of such a file: the same for equal values."""
    return (json.dumps({"format": format_name, "format_version": version, **plain}, indent=2, allow_nan=False) + "\n").encode()
