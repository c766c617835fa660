"""The key of --hash-ids: a file of 16 bytes or more, the same for every command that has to find a film by its hashed id."""

from __future__ import annotations

from pathlib import Path

from engine.errors import ConfigError


def read_key(path: str | None) -> bytes | None:
    """The bytes of the file, without white space around them; None for None. Raises ConfigError when it cannot be read or is short."""
    if path is None:
        return None
    try:
        key = Path(path).read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"the key file of --hash-ids cannot be read: {error.strerror}: {path}") from None
    if len(key) < 16:
        raise ConfigError(f"the key of --hash-ids must be 16 bytes or more: {len(key)}")
    return key
