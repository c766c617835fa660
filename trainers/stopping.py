"""How a run is told to stop and save: by SIGTERM, by Ctrl-C, or by a file `stop` in its directory, which reaches processes elsewhere."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STOP = "stop"


@contextmanager
def told_to_stop(out: Path) -> Iterator[Callable[[], bool]]:
    """A question that is answered True once the process was told to stop. A second Ctrl-C ends it at once.

    Off the main thread, where signals cannot be caught, only the file counts.
    """
    told = threading.Event()
    file = out / STOP

    def is_told() -> bool:
        return told.is_set() or file.exists()

    if threading.current_thread() is not threading.main_thread():
        yield is_told
        return

    def hear(number: int, frame: object) -> None:
        told.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    former: dict[signal.Signals, Any] = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield is_told
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
