"""Where the objects of an archive lie, and all that is ever done with them; `open_store` finds out which kind of place it is."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from engine.archive.folder_store import ROOT_KEY, WHOLE, FolderStore, Room, clear_errors, is_temporary, sync_folder
from engine.errors import ArchiveError

AnyPath = str | PathLike[str]
UPLOADS = 64  # objects that are held in memory together


class Store(Protocol):
    """A folder or a prefix of a bucket. A key is a path below it, with slashes; every operation raises ArchiveError where the place fails.

    An object is whole or absent, whoever is killed when. None is changed but through `replace`.
    """

    @property
    def where(self) -> str:
        """What messages call it: a path, or a URL without secrets."""
        ...

    @property
    def name(self) -> str:
        """The last part of that: `films.zarr`."""
        ...

    def exists(self) -> bool:
        """Whether the name is taken: by anything on a file system, by an archive in an object store."""
        ...

    def has(self, key: str) -> bool:
        """Whether there is such an object."""
        ...

    def has_any(self, folder: str) -> bool:
        """Whether there is any object below a folder; "" stands for the whole place."""
        ...

    def read(self, key: str) -> bytes:
        """One object."""
        ...

    def read_or_none(self, key: str) -> bytes | None:
        """One object, None where there is none."""
        ...

    def read_into(self, key: str, room: Room, part: slice = WHOLE) -> memoryview | None:
        """One object in the bytes that `room` gives for its size, or in its own; read-only. None where there is none.

        `part`: only these of its bytes, fewer where it is shorter: `slice(first, last)`, or the last ones, `slice(-count, None)`.
        """
        ...

    def sha256(self, key: str) -> str:
        """Hex digest of one object."""
        ...

    def names(self, folder: str) -> list[str]:
        """What lies right below a folder, objects and folders, in any order; nothing where there is no such folder."""
        ...

    def walk(self) -> Iterator[tuple[str, int]]:
        """Every object as key and bytes, in any order. Those that vanish meanwhile are left out."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Writes one object. False when another one, with other bytes, has the name already; that one stays."""
        ...

    def put_all_if_absent(self, objects: Mapping[str, bytes]) -> bool:
        """Writes several, durably; the first two get their names before all others do. False as soon as a name holds other bytes."""
        ...

    def replace(self, key: str, data: bytes) -> None:
        """Puts an object in the place of one; a reader sees the old bytes or the new, never a mixture."""
        ...

    def remove(self, key: str) -> None:
        """Removes one object; nothing there is fine."""
        ...

    def remove_if_equal(self, key: str, data: bytes) -> None:
        """Removes one object if it holds these bytes; another one of that name stays."""
        ...

    def clear(self, folder: str, names: set[str]) -> None:
        """Removes these entries of a folder with all below them, and what killed writers left of them."""
        ...

    def temporaries(self) -> list[tuple[str, int]]:
        """Keys and bytes of what killed writers left. Kinds of places that show no object before it is whole have none."""
        ...

    def remove_abandoned(self) -> list[int]:
        """Removes what runs that were killed left beside it while they were creating it; the bytes of each object."""
        ...

    def remove_all(self) -> None:
        """Removes the whole place, so that a kill on the way leaves nothing that looks like an archive."""
        ...

    def beside(self, name: str) -> Path:
        """A file beside it as a local path where it can be read, which may be a copy; nothing is there if there is none."""
        ...

    def put_beside(self, name: str, file: Path) -> None:
        """Copies a local file to beside it, whole or not at all."""
        ...

    def remove_beside(self, name: str) -> None:
        """Removes a file beside it; nothing there is fine."""
        ...

    def for_zarr(self) -> Any:
        """What `zarr` and xarray open, to read."""
        ...

    def held(self) -> AbstractContextManager[None]:
        """Keeps other runs out while the block lasts; raises ArchiveError while one is at work. Not every kind of place can."""
        ...


def is_url(place: AnyPath) -> bool:
    """Whether a place lies behind a URL such as s3://bucket/films.zarr."""
    return "://" in os.fspath(place)


def open_store(place: AnyPath) -> Store:
    """The store at a path or URL, whether or not anything is there. Raises ArchiveError for a URL that nothing here can open."""
    if not is_url(place):
        return FolderStore(place)
    from engine.archive.object_store import ObjectStore  # here, since its library is an extra

    return ObjectStore(os.fspath(place))


@contextmanager
def written_aside(target: AnyPath) -> Iterator[Path]:
    """A new local folder that becomes the archive `target` at the end of the block, whole or not at all.

    Of an archive on a file system it lies beside it, and is renamed. Of one in an object store it is a scratch folder, and uploaded, the
    root document last: before that is there, nothing is an archive. Raises ArchiveError when `target` exists or comes into being meanwhile.
    """
    store = open_store(target)
    if isinstance(store, FolderStore):
        with _renamed(store.path) as aside:
            yield aside
        return
    if store.exists():
        raise ArchiveError(f"there is something of that name already: {store.where}")
    with TemporaryDirectory(prefix="latentray-") as scratch:
        yield Path(scratch)
        _upload(FolderStore(scratch), store)


@contextmanager
def _renamed(target: Path) -> Iterator[Path]:
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    with clear_errors(target):
        if target.exists():
            raise ArchiveError(f"there is something of that name already: {target}")
        aside.mkdir(parents=True)
    try:
        yield aside
        with clear_errors(target):
            aside.rename(target)
            sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _upload(folder: FolderStore, store: Store) -> None:
    keys = [key for key, _ in folder.walk() if key != ROOT_KEY and not is_temporary(key)]
    for first in range(0, len(keys), UPLOADS):
        if not store.put_all_if_absent({key: folder.read(key) for key in keys[first : first + UPLOADS]}):
            raise ArchiveError(f"a run that was given up left other objects here; use --overwrite, or another name: {store.where}")
    if not store.put_if_absent(ROOT_KEY, folder.read(ROOT_KEY)):
        raise ArchiveError(f"there is something of that name already: {store.where}")
