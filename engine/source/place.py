"""Where films and manifests lie: this machine's folders, or an object store behind an fsspec URL, with one way to list and open both."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, Protocol, cast
from urllib.parse import quote, unquote_to_bytes

from engine.errors import SourceError

_UNDECODABLE = re.compile("[\udc80-\udcff]")  # how Python spells the bytes of a file name that are not UTF-8
_EXTRAS = {"s3": "pip install 'latentray[s3]'", "s3a": "pip install 'latentray[s3]'"}


class Item(NamedTuple):
    """One name in a folder. A link is told apart only where it leads to a folder."""

    name: str
    is_folder: bool
    is_link: bool


class Place(Protocol):
    """A file system as far as listing needs it. Paths are absolute, with `/`; errors are SourceError."""

    def is_folder(self, path: str) -> bool: ...
    def is_file(self, path: str) -> bool: ...
    def items(self, folder: str) -> Iterator[Item]: ...
    def identity(self, folder: str) -> tuple[int, int] | None: ...
    def open(self, path: str) -> BinaryIO: ...
    def uri(self, path: str) -> str: ...


def is_uri(text: str) -> bool:
    """Whether a manifest's `path` names something by URL rather than by a path on this machine."""
    return "://" in text or text.startswith("phantom:")


def local_path(uri: str) -> str | None:
    """The path on this machine that `uri` names, or None where it names something elsewhere. `file://` is percent-decoded (RFC 8089)."""
    if uri.startswith("file://"):
        return os.fsdecode(unquote_to_bytes(os.fsencode(uri[len("file://") :])))
    return None if is_uri(uri) else uri


def local_uri(path: str) -> str:
    """A path as the plan holds it: itself, or percent-encoded behind `file://` where its bytes are not UTF-8; undone by `local_path`."""
    if path.isascii() or not _UNDECODABLE.search(path):
        return path
    return "file://" + quote(os.fsencode(path))


def escape_undecodable(text: str) -> str:
    """`text` with each byte that is not UTF-8 spelt `%FF`, so that it can be printed and stored."""
    return _UNDECODABLE.sub(lambda match: f"%{ord(match[0]) - 0xDC00:02X}", text)


def why(error: Exception) -> str:
    """What went wrong in a few words, without the path that an OSError's own text would show."""
    if isinstance(error, OSError) and error.errno is not None:
        return (os.strerror(error.errno)).lower()
    return type(error).__name__


def connect(url: str) -> tuple[Any, str]:
    """The fsspec file system of `url` and the path in it. Raises SourceError where its driver is missing or the URL cannot be used."""
    from fsspec.core import url_to_fs

    protocol = url.partition("://")[0]
    if "::" in url:
        raise SourceError(f"chained URLs cannot be read; unpack the films first: {url}")
    try:
        fs, path = url_to_fs(url)
    except ImportError:
        install = _EXTRAS.get(protocol, "install its fsspec driver")
        raise SourceError(f"the driver for {protocol}:// is not installed; {install}: {url}") from None
    except ValueError:
        raise SourceError(f"no fsspec driver knows this kind of URL: {url}") from None
    return fs, path


def find_place(source: str) -> tuple[Place, str]:
    """The place of a path or URL, and the absolute path in it, without a trailing `/`."""
    path = local_path(source)
    if path is not None:
        return LocalPlace(), os.path.abspath(path)
    fs, inner = connect(source)
    before = source.rstrip("/").removesuffix(inner.rstrip("/"))
    return RemotePlace(fs, before), inner.rstrip("/")


class LocalPlace:
    """This machine's file system."""

    def is_folder(self, path: str) -> bool:
        return os.path.isdir(path)

    def is_file(self, path: str) -> bool:
        return os.path.lexists(path) and not os.path.isdir(path)

    def items(self, folder: str) -> Iterator[Item]:
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    is_folder = _leads_to_folder(entry)
                    yield Item(entry.name, is_folder, is_folder and entry.is_symlink())
        except OSError as error:
            raise SourceError(f"folder cannot be read: {why(error)}: {escape_undecodable(folder)}") from None

    def identity(self, folder: str) -> tuple[int, int] | None:
        try:
            stat = os.stat(folder)
        except OSError as error:
            raise SourceError(f"folder cannot be read: {why(error)}: {escape_undecodable(folder)}") from None
        return stat.st_dev, stat.st_ino

    def open(self, path: str) -> BinaryIO:
        try:
            return open(path, "rb")
        except OSError as error:
            raise SourceError(f"manifest cannot be read: {why(error)}: {escape_undecodable(path)}") from None

    def uri(self, path: str) -> str:
        return local_uri(path)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link onto itself: a row that fails when it is read, like every link that leads nowhere
        return False


class RemotePlace:
    """An object store or other file system behind fsspec. Its drivers raise classes of their own (botocore, aiohttp, paramiko ...)
    that share no base with OSError, hence `except Exception` around each call into them."""

    def __init__(self, fs: Any, before: str) -> None:
        self.fs = fs
        self.before = before  # what stands before a path in its URL, such as `s3://` or `sftp://user@host`

    def is_folder(self, path: str) -> bool:
        return self._ask(self.fs.isdir, path)

    def is_file(self, path: str) -> bool:
        return self._ask(self.fs.isfile, path)

    def items(self, folder: str) -> Iterator[Item]:
        for item in self._list(folder):
            name = item["name"].rstrip("/").rpartition("/")[2]
            if item["name"].strip("/") != folder.strip("/"):  # stores may list the empty object that marks a folder
                yield Item(name, item["type"] == "directory", False)

    def identity(self, folder: str) -> tuple[int, int] | None:
        return None

    def open(self, path: str) -> BinaryIO:
        try:
            return cast(BinaryIO, self.fs.open(path, "rb"))
        except Exception as error:
            raise SourceError(f"manifest cannot be read: {why(error)}: {self.uri(path)}") from None

    def uri(self, path: str) -> str:
        return self.before + path

    def _list(self, folder: str) -> list[dict[str, Any]]:
        try:
            found = self.fs.ls(folder, detail=True)
        except Exception as error:
            raise SourceError(f"folder cannot be read: {why(error)}: {self.uri(folder)}") from None
        self.fs.invalidate_cache(folder)  # drivers keep every listing they made, which would grow with the data set
        return cast(list[dict[str, Any]], found)

    def _ask(self, question: Any, path: str) -> bool:
        try:
            return bool(question(path))
        except Exception as error:
            raise SourceError(f"source cannot be reached: {why(error)}: {self.uri(path)}") from None
