"""Archives without films: codes drawn by row, and shards of them written as workers write theirs, by one process or several."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.commands import StepFailed
from engine.archive.root import read_root
from engine.archive.schema import ArchiveSpec
from engine.archive.writer import ShardWriter, create_archive, finalise
from engine.records import ImageRef, Shard, ShardRows, Status

NUMBERS = 512  # of a code
SEED = 7
PART = 1024  # rows that are drawn together
Codes = np.ndarray[Any, np.dtype[np.float16]]


def draw_codes(rows: int) -> Codes:
    """The first codes of the series, [rows, 512]: normal numbers as half precision rounds them, which is what an encoder gives."""
    out: Codes = np.empty((rows, NUMBERS), dtype="f2")
    for first in range(0, rows, PART):
        last = min(first + PART, rows)
        out[first:last] = draw_part(first // PART)[: last - first]
    return out


def draw_part(part: int) -> Codes:
    """Rows 1024 * part and on, [1024, 512]."""
    return np.random.default_rng([SEED, part]).standard_normal((PART, NUMBERS), dtype=np.float32).astype("f2")


def shard_rows_for(rows: int) -> int:
    """Rows of a shard, as `encode` chooses them for so many films."""
    from engine.config import EngineConfig
    from engine.job import default_shard_rows

    return default_shard_rows(rows, EngineConfig(codec="", archive=""))


def make_archive(path: str, codes: Codes, shard_rows: int) -> None:
    """Writes codes as a finished archive, one shard after another."""
    create_empty(path, len(codes), shard_rows)
    writer = ShardWriter(path)
    for shard, rows in filled_shards(path, codes):
        writer.publish(shard, rows, made_by={}, seconds={"archive": 0.0})
    finalise(path)


def create_empty(path: str, rows: int, shard_rows: int) -> None:
    """An archive of pending shards."""
    create_archive(
        path,
        ArchiveSpec(
            num_rows=rows,
            shard_rows=shard_rows,
            latent_dims=("layer", "channel"),
            latent_shape=(1, NUMBERS),
            latent_dtype="f2",
            fingerprint_parts={"codec": {"name": "drawn", "digest": "0" * 64}, "shard_rows": shard_rows, "plan": ""},
            plan_digest="",
            plan_sha256="",
            software={},
        ),
    )


def filled_shards(path: str, codes: Codes) -> Iterator[tuple[Shard, ShardRows]]:
    """Every shard of an archive with the rows that a worker would hand over: codes, ids, quality, and what is kept of the source."""
    root = read_root(path)
    for index in range(root.num_shards):
        first, last = root.rows_of(index)
        n, rng = last - first, np.random.default_rng([SEED + 1, index])
        names = [f"{row:08d}_000" for row in range(first, last)]
        columns: dict[str, Any] = {
            "latent": codes[first:last].reshape(n, 1, NUMBERS),
            "sample_id": np.array(names, dtype=object),
            "status": np.full(n, int(Status.OK), dtype="u1"),
            **{name: rng.random(n, dtype=np.float32) for name in ("mse_initial", "mse", "psnr", "ssim")},
            "steps": np.zeros(n, dtype="u2"),
            "source_sha256": rng.integers(0, 256, (n, 32), dtype="u1"),
            "source_height": np.full(n, 1024, dtype="u2"),
            "source_width": np.full(n, 1024, dtype="u2"),
            "source_bits": np.full(n, 8, dtype="u1"),
        }
        refs = tuple(ImageRef(first + at, name, "") for at, name in enumerate(names))
        yield Shard(index, refs, ""), ShardRows(columns=columns, failures=[])


def write_side_by_side(*, path: str, rows: int, shard_rows: int, writers: int) -> dict[str, Any]:
    """Rows a second of so many processes that write the shards of one archive in turn, from the moment when all have theirs at hand.

    Returns `rate` and `content`, the digest of all rows. Raises StepFailed where a writer ends early.
    """
    create_empty(path, rows, shard_rows)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(writers), context.SimpleQueue()
    write = partial(_write_some, path, rows, writers, barrier, results)
    children = [context.Process(target=write, args=(writer,)) for writer in range(writers)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    if any(child.exitcode for child in children):
        raise StepFailed(f"a writer ended with {[child.exitcode for child in children]}")
    spans = [results.get() for _ in children]
    finalise(path)
    seconds = max(end for _, end in spans) - min(start for start, _ in spans)
    return {"rate": rows / seconds, "content": read_root(path).attributes["content"]}


def _write_some(path: str, rows: int, writers: int, barrier: Any, results: Any, writer: int) -> None:
    codes = draw_codes(rows)
    mine = [filled for filled in filled_shards(path, codes) if filled[0].index % writers == writer]
    publisher = ShardWriter(path)
    barrier.wait(timeout=120)
    start = perf_counter()  # one clock for all processes of a machine
    for shard, filled in mine:
        publisher.publish(shard, filled, made_by={}, seconds={})
    results.put((start, perf_counter()))
