"""The bytes of one film: from a path, an fsspec URL or a phantom's uri; every way it can go wrong is a ReadError without the path."""

from __future__ import annotations

import os
import re
import stat

from engine.errors import ReadError, SourceError
from engine.source.place import connect, local_path, why


def read_bytes(uri: str, *, max_bytes: int) -> bytes:
    """All bytes of the film that `uri` names.

    Raises ReadError, with a reason that names no path, where the file has vanished, is empty, is larger than `max_bytes`, is not a
    regular file, cannot be read, or changes while it is read.
    """
    if uri.startswith("phantom:"):
        return _within(_draw_phantom(uri), max_bytes)
    path = local_path(uri)
    return _within(_read_remote(uri, max_bytes), max_bytes) if path is None else _read_local(path, max_bytes)


def _read_local(path: str, max_bytes: int) -> bytes:
    try:
        # Asked before opening: to open a named pipe would wait for its writer.
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise ReadError("is a folder, not a file" if stat.S_ISDIR(found.st_mode) else "is not a regular file")
        _check_size(found.st_size, max_bytes)
        with open(path, "rb") as file:
            data = file.read(found.st_size + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise ReadError("file vanished") from None
    except OSError as error:
        raise ReadError(f"cannot be read: {why(error)}") from None
    except ValueError:  # NUL, or characters that no file name can hold
        raise ReadError("cannot be read: its name is not valid") from None
    if len(data) != found.st_size:
        raise ReadError("file changed while it was read")
    return data


def _read_remote(uri: str, max_bytes: int) -> bytes:
    try:
        fs, path = connect(uri)
        with fs.open(path, "rb") as file:
            data: bytes = file.read(max_bytes + 1)
            size = getattr(file, "size", None)
    except SourceError:
        raise ReadError(f"cannot be read: no driver for {_kind(uri)}") from None
    except FileNotFoundError:
        raise ReadError("file vanished") from None
    except IsADirectoryError:
        raise ReadError("is a folder, not a file") from None
    # Drivers raise classes of their own (botocore, aiohttp, paramiko ...) that share no base with OSError.
    except Exception as error:
        raise ReadError(f"cannot be read: {why(error)}") from None
    if isinstance(size, int):
        _check_size(size, max_bytes)
    return data


def _kind(uri: str) -> str:
    """The protocol, where what stands before `://` is one; in a chained URL or a mistake it can be a path, which no reason may show."""
    protocol = uri.partition("://")[0]
    return f"{protocol}://" if re.fullmatch("[a-z0-9+.-]+", protocol) else "this kind of URL"


def _draw_phantom(uri: str) -> bytes:
    from engine.source.phantom import parse_phantom_uri, phantom_png

    try:
        address = parse_phantom_uri(uri)
    except SourceError:
        raise ReadError("is not a phantom that can be drawn") from None
    return phantom_png(address.seed, address.index, size=address.size)


def _within(data: bytes, max_bytes: int) -> bytes:
    _check_size(len(data), max_bytes)
    return data


def _check_size(size: int, max_bytes: int) -> None:
    if size == 0:
        raise ReadError("file is empty")
    if size > max_bytes:
        raise ReadError(f"file is larger than the limit: {size} > {max_bytes} bytes")
