"""What a run would cost, before it is started: bytes and operations counted, seconds measured on a few films. Writes nothing."""

from __future__ import annotations

import math
import tempfile
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from engine.archive.reader import archive_status
from engine.archive.root import read_root
from engine.archive.schema import RowArray
from engine.decompose import map_arrays
from engine.job import JobConfig, decide, fingerprint_of, has_layer, with_films
from engine.rehearsal import TIMED_BATCHES, Rehearsal, rehearse
from engine.workload import FilmWork, film_work

ROW_OVERHEAD = 80  # bytes a row beside the code: digest, status, sizes, quality, id

MEASURED = (
    "decode, encode, maps, fidelity and metrics on films of this source; of each refinement level one step of a batch, after one that "
    "warms up; the time to load, compile and check a worker"
)
EXTRAPOLATED = (
    "the steps of each level from its one step; a refined film's metrics, which are taken twice; all films from the few; workers, as if "
    "none had to share a core with another. At most: films that end early leave their place to others, decoding overlaps with the rest, "
    "and bytes are those before compression, of which maps need fewer than codes"
)


def estimate(job: JobConfig) -> dict[str, Any]:
    """Rows, shards, bytes, operations and seconds of a job, and its settings, as plain JSON values.

    `parts` tells of one film what each stage and refinement level costs at most: GFLOP counted, seconds of one worker measured or
    extrapolated as `measured` and `extrapolated` say. `seconds` is the whole run's, by the workers asked for, after `seconds_to_start`.
    """
    with tempfile.TemporaryDirectory(prefix="latentray-") as scratch:
        job, codec, plan, continues = decide(job, Path(scratch))
        refs = list(islice(chain.from_iterable(shard.refs for shard in plan.shards()), 1 + TIMED_BATCHES * job.engine.batch_size))
        settings = fingerprint_of(job, codec, plan)
    pending = int(archive_status(job.engine.archive)["pending"]) if continues else plan.num_rows
    workers = max(job.workers or 1, 1)
    has_maps = job.engine.maps is not None
    work = film_work(codec, job.engine.refine, metrics=job.engine.metrics != "none", maps=has_maps)
    found = rehearse(with_films(job.engine, pending, workers), refs)
    parts = _parts(work, found)
    seconds = sum(part["seconds"] for part in parts)
    code_bytes = math.prod(codec.code_shape) * np.dtype(job.dtype).itemsize
    map_bytes = sum(map(_row_bytes, map_arrays(codec.recipe.resolution).values())) if has_maps else 0
    layer_bytes = _layer_bytes(job) if has_layer(job) else 0
    film_bytes = code_bytes + map_bytes + layer_bytes + ROW_OVERHEAD
    return {
        "rows": plan.num_rows,
        "pending": pending,
        "shards": plan.num_shards,
        "shard_rows": plan.shard_rows,
        "bytes_per_film": film_bytes,
        **({"bytes_of_maps_per_film": map_bytes} if has_maps else {}),
        **({"bytes_of_layer_per_film": layer_bytes} if has_layer(job) else {}),
        "bytes": plan.num_rows * film_bytes,
        "gflop_per_film": work.gflop,
        "gflop_per_second": _rate(work.gflop, sum(part["seconds"] for part in parts if part["gflop"])),
        "seconds_per_film": seconds,
        "parts": parts,
        "images_per_second_one_worker": _rate(1, seconds),
        "workers": workers,
        "seconds": pending * seconds / workers,
        "seconds_to_start": found.seconds_to_start,
        **{name: found.made_by[name] for name in ("backend", "precision", "device", "decoder", "threads")},
        "measured": MEASURED,
        "extrapolated": EXTRAPOLATED,
        "archive": job.engine.archive,
        "settings": settings,
    }


def _parts(work: FilmWork, found: Rehearsal) -> list[dict[str, Any]]:
    """One entry a stage or level, in the order in which a film meets them."""
    levels = []
    for level, timed in zip(work.refine, found.levels, strict=True):
        seconds = timed.seconds_once + (level.steps + 1) * timed.seconds_a_step
        ran = found.made_by["parity"]["refine"][str(level.resolution)]  # which may be another backend than that of encoder and generator
        gflop = level.generator + sum(level.loss.values())
        part = _part(f"refine {level.resolution}x{level.resolution}", level.gflop, seconds)
        part |= {"steps": level.steps, "seconds_per_step": timed.seconds_a_step, "gflop_per_step": gflop, "loss_gflop_per_step": level.loss}
        levels.append(part | {"backend": ran["backend"], "precision": ran["precision"]})
    twice = 2 if levels else 1
    coding = [_part("decode", 0.0, found.seconds("decode")), _part("encode", work.encode, found.seconds("encode"))]
    maps = [_part("maps", work.maps, found.seconds("maps"))] if work.maps else []
    layers = [_part("fidelity", 0.0, found.seconds("fidelity"))] if found.seconds("fidelity") else []
    return [*coding, *levels, *maps, *layers, _part("metrics", work.metrics, twice * found.seconds("metrics"))]


def _row_bytes(array: RowArray) -> int:
    """Of one film in one more array, before compression."""
    return math.prod(array.shape) * np.dtype(array.dtype).itemsize


def _layer_bytes(job: JobConfig) -> int:
    """Of one film in its layer, as the way of the archive gave it on its first films."""
    ways = job.engine.fidelity.figures or read_root(job.engine.archive).attributes["fidelity"]["ways"]
    return round(ways[0]["bytes"]) if ways else 0  # the way that was taken stands first


def _part(name: str, gflop: float, seconds: float) -> dict[str, Any]:
    return {"part": name, "gflop": gflop, "seconds": seconds, "gflop_per_second": _rate(gflop, seconds)}


def _rate(amount: float, seconds: float) -> float | None:
    return amount / seconds if amount and seconds else None
