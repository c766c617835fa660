"""The only file operations of an archive: written aside and linked into place, so that an object is whole or absent."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import ArchiveError

_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.partial$")
_ADVICE = {
    errno.ENOSPC: "the disk is full; free space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free space and run the same command again",
    errno.EFBIG: "a file may not grow this large here; raise the limit and run the same command again",
    errno.EACCES: "no permission; use another --archive or change the folder's rights",
    errno.EPERM: "the file system refuses (it may lack hard links); use another --archive or change the folder's rights",
    errno.EOPNOTSUPP: "the file system has no hard links, which the archive needs; use another --archive",
    errno.EROFS: "the file system is read-only; use another --archive",
}


@contextmanager
def clear_errors(what: Path, *, doing: str = "write") -> Iterator[None]:
    """Turns an OSError into an ArchiveError that says in one line what to do; `what` is the path to name."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, error.strerror or type(error).__name__)
        raise ArchiveError(f"cannot {doing} the archive: {advice}: {what}") from error


def stage(target: Path, data: bytes) -> Path:
    """Writes `data` durably to a temporary file beside `target` and returns its path; nothing is left of it when that fails."""
    temporary = target.with_name(f"{target.name}.{uuid.uuid4().hex}.partial")
    with clear_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    return temporary


def link_if_absent(temporary: Path, target: Path) -> bool:
    """Gives a staged file its final name unless that is taken; True when `target` now holds the very same bytes."""
    with clear_errors(target):
        try:
            os.link(temporary, target)
        except FileExistsError:
            return target.read_bytes() == temporary.read_bytes()
    return True


def put_if_absent(target: Path, data: bytes) -> bool:
    """Publishes one object. False when another one, with other bytes, has the name already; that one stays."""
    temporary = stage(target, data)
    try:
        return link_if_absent(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def replace(target: Path, data: bytes) -> None:
    """Puts `data` in the place of a file; a reader sees the old bytes or the new, never a mixture."""
    temporary = stage(target, data)
    with clear_errors(target):
        try:
            temporary.replace(target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    sync_folder(target.parent)


def read(target: Path) -> bytes:
    """The bytes of one object; raises ArchiveError when it cannot be read."""
    with clear_errors(target, doing="read"):
        return target.read_bytes()


def read_or_none(target: Path) -> bytes | None:
    """The bytes of one object, None where there is none; raises ArchiveError when it cannot be read."""
    with clear_errors(target, doing="read"):
        try:
            return target.read_bytes()
        except FileNotFoundError:
            return None


def file_sha256(target: Path) -> str:
    """Hex digest of a file of any size; raises ArchiveError when it cannot be read."""
    with clear_errors(target, doing="read"), target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """A new folder beside `target`, renamed to it at the end of the block, or removed when the block raises.

    Raises ArchiveError when `target` exists or comes into being meanwhile.
    """
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


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name was being written, and is an orphan when nobody writes any more."""
    return _TEMPORARY.search(name) is not None


def abandoned_beside(target: Path) -> list[Path]:
    """Folders beside `target` in which an earlier run, killed since, was creating it."""
    prefix = f".{target.name}."
    return sorted(path for path in target.parent.iterdir() if path.name.startswith(prefix) and is_temporary(path.name))


def walk(root: Path) -> Iterator[tuple[str, int]]:
    """Every file below `root` as (key, bytes); a key is the path from `root`, with slashes. Files that vanish meanwhile are left out."""
    folders = [""]
    while folders:
        prefix = folders.pop()
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{prefix}{entry.name}/")
                    continue
                try:
                    size = entry.stat().st_size
                except FileNotFoundError:
                    continue
                yield prefix + entry.name, size


def remove_if_equal(target: Path, data: bytes) -> None:
    """Removes one object if it holds these bytes; another one of that name stays."""
    if read_or_none(target) == data:
        remove(target)


def remove(path: Path) -> None:
    """Removes a file or a folder with all that is in it; nothing there is fine."""
    with clear_errors(path):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
