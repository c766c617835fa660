"""Removes what no commit record names. Nothing here may run while a writer is at work, and nothing committed is ever touched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.archive.commits import CommitLog
from engine.archive.folder_store import is_temporary
from engine.archive.root import COMMIT, ROOT_KEY, AnyPath, Root, examine, read_root
from engine.archive.store import is_url, open_store
from engine.errors import ArchiveError


@dataclass(frozen=True, slots=True)
class Freed:
    """What was removed, and `foreign`: keys of files that are no part of an archive and were left where they are."""

    files: int
    bytes: int
    foreign: tuple[str, ...]


def clean_uncommitted(path: AnyPath, shards: Iterable[int]) -> None:
    """Removes whatever unfinished attempts left of these shards, so that a new attempt can publish.

    A shard that has a commit record is left alone. Other shards may be written meanwhile.
    """
    root = read_root(path)
    wanted = {str(shard) for shard in set(shards) - CommitLog(root).committed()}
    # Records last: one that a late writer adds before their folder is listed goes with its objects, and the shard is simply done again.
    # One that comes later finds its objects gone, and its writer takes it back (ShardWriter._commit).
    for array in (*root.columns, COMMIT):
        if wanted:
            root.store.clear(f"{array}/c", wanted)


def withdraw_hollow(path: AnyPath) -> set[int]:
    """Takes back the records of an unfinished archive that name objects which are not there, and returns the shards that have others.

    Such a record is left when a writer that was taken for dead links it after its objects were cleaned away, and is killed before it can
    look again. What was finalised is left as it is: there a missing object is damage, for `verify` to find.
    """
    root = read_root(path)
    log = CommitLog(root)
    committed = log.committed()
    if "content" in root.attributes or not committed:
        return committed
    receipts = {shard: receipt for shard, receipt in log.read_each().items() if receipt is not None}
    sizes = dict(root.store.walk())  # after the records: what a record names was there before it
    hollow = {
        shard
        for shard, receipt in receipts.items()
        if any(sizes.get(key) != (entry and entry["bytes"]) for key, entry in receipt.objects.items())
    }
    for shard in hollow:
        root.store.remove_if_equal(log.key(shard), log.encode(receipts[shard]))
    return committed - hollow


def remove_temporaries(path: AnyPath) -> list[tuple[str, int]]:
    """Removes every file that a killed writer was still writing; returns their keys and sizes."""
    root = read_root(path)
    orphans = root.store.temporaries()
    for key, _ in orphans:
        root.store.remove(key)
    return orphans


def collect_garbage(path: AnyPath) -> Freed:
    """Removes temporary files, objects of shards without a record, and folders in which the archive was being created.

    Raises ArchiveError when a commit record cannot be read, since it is unknown then what it names, and while a run is writing.
    """
    root = read_root(path)
    with root.store.held():
        return _collect(root)


def _collect(root: Root) -> Freed:
    log = CommitLog(root)
    named = {ROOT_KEY, *root.static_objects, *map(log.key, log.committed())}
    named |= {key for receipt in log.read_all() for key, entry in receipt.objects.items() if entry is not None}
    arrays = tuple(f"{array}/c/" for array in (*root.columns, COMMIT))
    files = freed = 0
    foreign = []
    for key, size in list(root.store.walk()):
        if key in named:
            continue
        if not is_temporary(key) and not key.startswith(arrays):
            foreign.append(key)
            continue
        root.store.remove(key)
        files, freed = files + 1, freed + size
    abandoned = root.store.remove_abandoned()
    files, freed = files + len(abandoned), freed + sum(abandoned)
    return Freed(files, freed, tuple(sorted(foreign)))


def remove_archive(path: AnyPath) -> None:
    """Removes a whole archive, or nothing where there is none; raises ArchiveError for what is no archive, and while a run is writing."""
    if not is_url(path) and not Path(path).exists():
        return
    if not is_url(path) and not Path(path).is_dir():
        raise ArchiveError(f"this is not a latentray archive, and is left alone: {path}")
    store = open_store(path)
    if store.has_any(""):
        examine(path)  # refuses what is not ours
        with store.held():
            store.remove_all()
