"""An archive in a folder: objects are written aside and hard-linked into place, so that each is whole or absent."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path

from engine.errors import ArchiveError

ROOT_KEY = "zarr.json"  # the object that makes the others an archive
WRITERS = 8  # objects that the disk flushes together
REMOVALS = 20  # of a folder that is being written to: more than a writer has objects
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
Room = Callable[[int], memoryview]  # so many bytes to write to, which may be those of an earlier call
WHOLE = slice(None)  # of an object's bytes


class FolderStore:
    """A folder on a file system with hard links; see `Store`."""

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self._place = os.fspath(place) or os.curdir  # as it is: a Path would take a quarter of the time of opening an archive

    @cached_property
    def path(self) -> Path:
        return Path(self._place)

    @property
    def where(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    def exists(self) -> bool:
        return self.path.exists()

    def has(self, key: str) -> bool:
        return (self.path / key).exists()

    def has_any(self, folder: str) -> bool:
        return (self.path / folder).is_dir()

    def read(self, key: str) -> bytes:
        place = f"{self._place}/{key}"  # many thousand records are read: this is quicker than a Path
        with clear_errors(place, doing="read"), open(place, "rb", buffering=0) as file:
            return file.read()

    def read_or_none(self, key: str) -> bytes | None:
        place = f"{self._place}/{key}"
        with clear_errors(place, doing="read"):
            try:
                with open(place, "rb", buffering=0) as file:
                    return file.read()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def read_into(self, key: str, room: Room, part: slice = WHOLE) -> memoryview | None:
        place = f"{self._place}/{key}"
        with clear_errors(place, doing="read"):
            try:
                return _read_part(place, room, part)
            except (FileNotFoundError, NotADirectoryError):
                return None

    def sha256(self, key: str) -> str:
        return file_sha256(self.path / key)

    def names(self, folder: str) -> list[str]:
        with clear_errors(self.path / folder, doing="read"):
            try:
                return os.listdir(self.path / folder)
            except (FileNotFoundError, NotADirectoryError):
                return []

    def walk(self) -> Iterator[tuple[str, int]]:
        return walk(self.path)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        target = self.path / key
        temporary = _stage(target, data)
        try:
            return _link_if_absent(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def put_all_if_absent(self, objects: Mapping[str, bytes]) -> bool:
        with ThreadPoolExecutor(WRITERS) as pool:  # so that the disk flushes them together
            futures = {key: pool.submit(_stage, self.path / key, data) for key, data in objects.items()}
        staged = {key: future.result() for key, future in futures.items() if future.exception() is None}
        try:
            for future in futures.values():
                future.result()
            if not all(_link_if_absent(temporary, self.path / key) for key, temporary in staged.items()):
                return False
            for folder in {(self.path / key).parent for key in objects}:
                sync_folder(folder)
        finally:
            for temporary in staged.values():
                temporary.unlink(missing_ok=True)
        return True

    def replace(self, key: str, data: bytes) -> None:
        target = self.path / key
        _rename_onto(_stage(target, data), target)

    def remove(self, key: str) -> None:
        with clear_errors(self.path / key):
            (self.path / key).unlink(missing_ok=True)

    def remove_if_equal(self, key: str, data: bytes) -> None:
        if self.read_or_none(key) == data:
            self.remove(key)

    def clear(self, folder: str, names: set[str]) -> None:
        for name in self.names(folder):  # `3`, a file or a folder, or `3.<hex>.partial`, which its writer never finished
            if name.partition(".")[0] in names:
                _remove_tree(self.path / folder / name)

    def temporaries(self) -> list[tuple[str, int]]:
        return [(key, size) for key, size in self.walk() if is_temporary(key)]

    def remove_abandoned(self) -> list[int]:
        found = []
        for left in abandoned_beside(self.path):
            found += [size for _, size in walk(left)] if left.is_dir() else [left.stat().st_size]
            _remove_tree(left)
        return found

    def remove_all(self) -> None:
        doomed = _aside(self.path)
        with clear_errors(self.path):
            self.path.rename(doomed)  # gone at once: a kill while files are being removed leaves no half archive
            shutil.rmtree(doomed)

    def beside(self, name: str) -> Path:
        return self.path.with_name(name)

    def put_beside(self, name: str, file: Path) -> None:
        target, temporary = self.beside(name), _aside(self.path)  # named after the archive, so that `gc` knows whose it is
        with clear_errors(target):
            try:
                shutil.copyfile(file, temporary)
                _flush(temporary)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
        _rename_onto(temporary, target)

    def remove_beside(self, name: str) -> None:
        with clear_errors(self.beside(name)):
            self.beside(name).unlink(missing_ok=True)

    def for_zarr(self) -> str:
        return str(self.path)

    @contextmanager
    def held(self) -> Iterator[None]:
        """By a lock on the folder itself: it leaves nothing behind, and goes with the process that holds it, however that ends."""
        taken = f"another run is writing this archive; wait for it, or use another --archive: {self.path}"
        with clear_errors(self.path):
            try:
                handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:  # it was there a moment ago
                raise ArchiveError(taken) from None
        try:
            is_free = True
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                is_free = False
            except OSError:
                pass  # a network file system without such locks: two runs disturb one another there, and lose nothing
            if not is_free or not (self.path.exists() and os.path.samestat(os.fstat(handle), self.path.stat())):
                raise ArchiveError(taken)
            yield
        finally:
            os.close(handle)


@contextmanager
def clear_errors(what: Path | str, *, doing: str = "write") -> Iterator[None]:
    """Turns an OSError into an ArchiveError that says in one line what to do; `what` is the path to name."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, error.strerror or type(error).__name__)
        raise ArchiveError(f"cannot {doing} the archive: {advice}: {what}") from error


def _read_part(place: str, room: Room, part: slice) -> memoryview:
    file = os.open(place, os.O_RDONLY)
    try:
        first, last, _ = part.indices(os.fstat(file).st_size)
        view, done = room(max(0, last - first)), 0
        os.lseek(file, first, os.SEEK_SET)
        while done < len(view):
            count = os.readv(file, [view[done:]])
            if not count:
                break  # cut meanwhile: what is there fails its checksum
            done += count
        return view[:done].toreadonly()
    finally:
        os.close(file)


def file_sha256(target: Path) -> str:
    """Hex digest of a file of any size; raises ArchiveError when it cannot be read."""
    with clear_errors(target, doing="read"), target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder outlast a power cut."""
    _flush(folder)


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name was being written, and is an orphan when nobody writes any more."""
    return _TEMPORARY.search(name) is not None


def abandoned_beside(target: Path) -> list[Path]:
    """What lies beside `target` of earlier runs, killed since, that were creating or removing it, or writing its plan."""
    prefix = f".{target.name}."
    return sorted(path for path in target.parent.iterdir() if path.name.startswith(prefix) and is_temporary(path.name))


def walk(root: Path) -> Iterator[tuple[str, int]]:
    """Every file below `root` as (key, bytes); a key is the path from `root`, with slashes. What vanishes meanwhile is left out."""
    folders = [""]
    while folders:
        prefix = folders.pop()
        with ExitStack() as stack:
            try:
                entries = stack.enter_context(os.scandir(root / prefix))
            except FileNotFoundError:
                continue
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{prefix}{entry.name}/")
                    continue
                try:
                    size = entry.stat().st_size
                except FileNotFoundError:
                    continue
                yield prefix + entry.name, size


def _stage(target: Path, data: bytes) -> Path:
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


def _link_if_absent(temporary: Path, target: Path) -> bool:
    """Gives a staged file its final name unless that is taken; True when `target` now holds the very same bytes.

    False as well where a cleaner, which took this writer for dead, has removed one of the two or their folder.
    """
    with clear_errors(target):
        try:
            os.link(temporary, target)
        except FileExistsError:
            with suppress(FileNotFoundError):
                return target.read_bytes() == temporary.read_bytes()
            return False
        except FileNotFoundError:
            return False
    return True


def _rename_onto(temporary: Path, target: Path) -> None:
    with clear_errors(target):
        try:
            temporary.replace(target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    sync_folder(target.parent)


def _remove_tree(path: Path) -> None:
    """Removes a file or a folder, also while a writer that was taken for dead still adds to it or takes its own from it."""
    with clear_errors(path):
        for attempt in range(1, REMOVALS + 1):
            try:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
                return
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTEMPTY) or attempt == REMOVALS:
                    raise


def _aside(archive: Path) -> Path:
    """A new name beside an archive, by which `abandoned_beside` finds what is left there."""
    return archive.with_name(f".{archive.name}.{uuid.uuid4().hex}.partial")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
