"""Inside a child: counts what it does to files, and dies or stands still at the n-th such operation."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = ("os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir")


@dataclass(frozen=True)
class Strike:
    """Where a process is struck: before the operation number `at` (from 0) on anything below `folder`.

    `kind`: "kill" is SIGKILL, "torn" is SIGKILL after the file that is being flushed was cut to half, "stop" is SIGSTOP. With `at` -1
    the process only counts, and writes the number to `count`, a file, when it ends. `dies_at`: where it gets SIGKILL after all.
    """

    folder: str
    at: int = -1
    kind: str = "kill"
    count: str = ""
    dies_at: int = -1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Operations:
    """The count of one process. Openings for writing, links, renames, removals, new folders and flushes are operations."""

    def __init__(self, strike: Strike) -> None:
        self._strike, self.done, self._lock = strike, 0, threading.RLock()

    def install(self) -> None:
        """Watches this process from now on; cannot be undone."""
        flush = os.fsync

        def watched(handle: int) -> None:
            self._next(handle)
            flush(handle)

        os.fsync = watched
        sys.addaudithook(self._on_event)

    def _on_event(self, event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & WRITING
        if writes or event in EVENTS:
            names = [os.fsdecode(arg) for arg in args if isinstance(arg, str | bytes | os.PathLike)]
            inside_open_folder = event in ("os.remove", "os.rmdir") and args[-1] != -1  # names there have no path
            if inside_open_folder or any(name.startswith(self._strike.folder) for name in names):
                self._next(None)

    def _next(self, flushed: int | None) -> None:
        with self._lock:
            at, self.done = self.done, self.done + 1
            if at == self._strike.dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if at != self._strike.at:
                return
            if self._strike.kind == "torn" and flushed is not None and stat.S_ISREG(os.fstat(flushed).st_mode):
                with suppress(OSError):
                    os.ftruncate(flushed, os.fstat(flushed).st_size // 2)
            os.kill(os.getpid(), signal.SIGSTOP if self._strike.kind == "stop" else signal.SIGKILL)

    def write_count(self) -> None:
        """Tells how many there were, if that was asked for."""
        if self._strike.count:
            Path(self._strike.count).write_text(str(self.done))
