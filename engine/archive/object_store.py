"""An archive in an object store behind a URL (S3 and its like, Google Cloud, Azure): each object is put whole, and only if absent."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from engine.archive.folder_store import ROOT_KEY, WHOLE, Room
from engine.archive.store_client import ATTEMPTS, opened, present, tried
from engine.errors import ArchiveError

T = TypeVar("T")

PUTS = 8  # at a time
REMOVED_AT_ONCE = 1000  # as many as S3 takes in a request
LISTED_APART = 8  # entries of a folder: more are found by one listing of it all
SINGLE_PUT = 5 * 2**30  # bytes: the most that one put may hold, and larger ones cannot be put if absent


class ObjectStore:
    """A prefix of a bucket; see `Store`. Who may read and write is found as the store's own tools find it, and never kept or shown.

    Every operation may be done twice with the same outcome, so a request that failed, or whose answer was lost, is simply made again:
    an object that is there already with the same bytes is as good as one's own.
    """

    def __init__(self, url: str) -> None:
        self.where = url.rstrip("/")
        self._within = opened(self.where)

    def __reduce__(self) -> tuple[type[ObjectStore], tuple[str]]:
        return ObjectStore, (self.where,)

    @property
    def name(self) -> str:
        return self.where.rpartition("/")[2]

    @property
    def _around(self) -> Any:
        return opened(self.where.rpartition("/")[0])

    def exists(self) -> bool:
        return self.has(ROOT_KEY)

    def has(self, key: str) -> bool:
        import obstore

        return self._tried(lambda: present(lambda: obstore.head(self._within, key)) is not None, doing="read")

    def has_any(self, folder: str) -> bool:
        import obstore

        return self._tried(lambda: any(obstore.list(self._within, folder or None, chunk_size=1)), doing="read")

    def read(self, key: str) -> bytes:
        data = self.read_or_none(key)
        if data is None:
            raise ArchiveError(f"cannot read the archive: there is no such object: {self.where}/{key}")
        return data

    def read_or_none(self, key: str, part: slice = WHOLE) -> bytes | None:
        import obstore

        wanted: Any = {} if part == WHOLE else {"range": (part.start, part.stop) if part.stop else {"suffix": -part.start}}
        return self._tried(lambda: present(lambda: bytes(obstore.get(self._within, key, options=wanted).bytes())), doing="read")

    def read_into(self, key: str, room: Room, part: slice = WHOLE) -> memoryview | None:
        data = self.read_or_none(key, part)
        return None if data is None else memoryview(data)

    def sha256(self, key: str) -> str:
        return hashlib.sha256(self.read(key)).hexdigest()

    def names(self, folder: str) -> list[str]:
        import obstore

        found = self._tried(lambda: obstore.list_with_delimiter(self._within, folder or None), doing="read")
        paths = [meta["path"] for meta in found["objects"]] + list(found["common_prefixes"])
        return [path.rstrip("/").rpartition("/")[2] for path in paths]

    def walk(self) -> Iterator[tuple[str, int]]:
        return iter(self._below(None))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        if len(data) > SINGLE_PUT:
            raise ArchiveError(f"an object is too large for the store, {len(data):,} bytes; use smaller --shard-rows: {self.where}/{key}")

        def put() -> bool:
            try:
                obstore.put(self._within, key, data, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
            return True

        return self._tried(put) or self.read_or_none(key) == data

    def put_all_if_absent(self, objects: Mapping[str, bytes]) -> bool:
        items = list(objects.items())
        if not all(self.put_if_absent(key, data) for key, data in items[:2]):
            return False
        with ThreadPoolExecutor(PUTS) as pool:
            return all(pool.map(lambda item: self.put_if_absent(*item), items[2:]))

    def replace(self, key: str, data: bytes) -> None:
        import obstore

        self._tried(lambda: obstore.put(self._within, key, data, use_multipart=False))

    def remove(self, key: str) -> None:
        self._remove([key])

    def remove_if_equal(self, key: str, data: bytes) -> None:
        if self.read_or_none(key) == data:
            self.remove(key)

    def clear(self, folder: str, names: set[str]) -> None:
        if len(names) > LISTED_APART:
            found = [key for key, _ in self._below(folder)]
        else:
            found = [f"{folder}/{name}" for name in names if self.has(f"{folder}/{name}")]
            found += [key for name in names for key, _ in self._below(f"{folder}/{name}/")]
        at = len(folder) + 1
        self._remove(key for key in found if key[at:].partition("/")[0] in names)

    def temporaries(self) -> list[tuple[str, int]]:
        return []

    def remove_abandoned(self) -> list[int]:
        return []

    def remove_all(self) -> None:
        self.remove(ROOT_KEY)  # what makes it an archive
        self._remove(key for key, _ in self._below(None))

    def beside(self, name: str) -> Path:
        """A copy in a folder of this process, fetched anew when the object has changed since."""
        import obstore

        head = self._tried(lambda: present(lambda: obstore.head(self._around, name)), doing="read")
        mark = "" if head is None else f"{head['e_tag']}-{head['size']}-{head['last_modified']}"
        folder = Path(_scratch().name) / hashlib.sha256(f"{self.where} {mark}".encode()).hexdigest()[:16]
        copy = folder / name
        if head is not None and not copy.exists():
            folder.mkdir(exist_ok=True)
            aside = copy.with_name(f".{name}.{os.getpid()}.{random.getrandbits(64):x}")
            self._tried(lambda: _download(self._around, name, aside), doing="read")
            aside.replace(copy)
        return copy

    def put_beside(self, name: str, file: Path) -> None:
        import obstore

        self._tried(lambda: obstore.put(self._around, name, file))

    def remove_beside(self, name: str) -> None:
        import obstore

        self._tried(lambda: present(lambda: obstore.delete(self._around, name)))

    def for_zarr(self) -> Any:
        from zarr.storage import ObjectStore as ZarrStore

        return ZarrStore(opened(self.where, retries=ATTEMPTS), read_only=True)  # Zarr asks once

    def held(self) -> AbstractContextManager[None]:
        """Never: a store knows no lock that goes with its holder. Two runs disturb one another there, and lose nothing."""
        return nullcontext()

    def _below(self, folder: str | None) -> list[tuple[str, int]]:
        import obstore

        listed = self._tried(lambda: [meta for page in obstore.list(self._within, folder) for meta in page], doing="read")
        return [(meta["path"], meta["size"]) for meta in listed]

    def _remove(self, keys: Iterable[str]) -> None:
        import obstore

        rest = iter(keys)
        while portion := list(islice(rest, REMOVED_AT_ONCE)):
            self._tried(lambda portion=portion: present(lambda: obstore.delete(self._within, portion)))  # type: ignore[misc]

    def _tried(self, ask: Callable[[], T], *, doing: str = "write") -> T:
        return tried(ask, doing=doing, where=self.where)


def _download(store: Any, key: str, to: Path) -> None:
    import obstore

    with to.open("wb") as file:
        for chunk in obstore.get(store, key).stream():
            file.write(chunk)


@cache
def _scratch() -> TemporaryDirectory[str]:
    """A folder of this process for copies of plans; it goes when the process ends."""
    return TemporaryDirectory(prefix="latentray-")
