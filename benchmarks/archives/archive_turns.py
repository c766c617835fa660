"""One process of a benchmark of files of codes: it writes one, or reads it in every way, and says how long that took."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.archives.archive_formats import FORMATS
from benchmarks.archives.archive_made import NUMBERS, SEED, draw_codes

ROWS_SEED = SEED + 2
DISK_BLOCK = 512  # of `st_blocks`, whatever the file system's own is
OPENINGS, RANDOM_ROWS, FULL_READS = 20, 60, 5  # turns of a process, as long as its share of seconds lasts


def make_all(*, names: list[str], folder: str, rows: int, shard_rows: int) -> dict[str, Any]:
    """Writes the files of these formats, those that share one once; an archive has shards of `shard_rows`.

    Returns the `digest` of the codes, and of each format by name its `bytes` a row and those on `disk`, or why it `failed`.
    """
    codes = draw_codes(rows)
    made: dict[str, dict[str, Any]] = {}
    for name in names:
        path = Path(folder) / FORMATS[name].file
        try:
            if not path.exists():
                FORMATS[name].write(str(path), codes, shard_rows)
        except (OSError, ValueError, RuntimeError) as error:
            made[name] = {"failed": f"cannot be written: {error}"}
            continue
        files = [each.stat() for each in files_of(str(path))]
        on_disk = sum(each.st_blocks * DISK_BLOCK for each in files)
        made[name] = {"bytes": sum(each.st_size for each in files) / rows, "disk": on_disk / rows}
    return {"digest": hashlib.sha256(codes.data).hexdigest(), "made": made}


def read(*, name: str, path: str, rows: int, seconds: float) -> dict[str, Any]:
    """Seconds of each kind of read, each as often as `seconds` allow; the digest of all codes, and how many rows were other than there."""
    format_ = FORMATS[name]
    handle = format_.open(path)  # imports what it needs
    openings = timed(lambda turn: format_.open(path).shape, OPENINGS, seconds)
    wanted = np.random.default_rng(ROWS_SEED).integers(0, rows, RANDOM_ROWS + 1).tolist()
    codes: dict[int, Any] = {}
    of_rows = timed(lambda turn: codes.__setitem__(wanted[turn], format_.row(handle, wanted[turn])), RANDOM_ROWS, seconds)
    kept: list[Any] = []

    def read_all(turn: int) -> None:
        kept.append(format_.read(path))

    in_full = timed(read_all, FULL_READS, seconds, before=kept.clear)
    everything = np.ascontiguousarray(kept[-1]).reshape(rows, NUMBERS)
    wrong = sum(not np.array_equal(code.reshape(-1), everything[row]) for row, code in codes.items())
    digest = hashlib.sha256(everything.data).hexdigest()
    return {"open": openings, "random row": of_rows, "full read": in_full, "digest": digest, "wrong rows": wrong}


def timed(do: Callable[[int], Any], turns: int, seconds: float, *, before: Callable[[], None] | None = None) -> list[float]:
    """Seconds of each turn after one that warms up, until `turns` or `seconds` are used up; of that one where it takes all of them.

    `before` is called before each turn, and not timed.
    """
    found: list[float] = []
    while len(found) <= turns and sum(found) <= seconds:
        if before is not None:
            before()
        start = perf_counter()
        do(len(found))
        found.append(perf_counter() - start)
    return found[1:] or found


def files_of(path: str) -> list[Path]:
    """The files of one, which may be a folder."""
    where = Path(path)
    return [where] if where.is_file() else [each for each in where.rglob("*") if each.is_file()]
