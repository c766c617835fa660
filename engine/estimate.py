"""What a run would cost, before it is started: a plan in a scratch folder and a few films coded for the clock. Writes nothing."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from engine.archive.reader import archive_status
from engine.flow import build_flow
from engine.job import JobConfig, decide, fingerprint_of
from engine.records import ImageRef

ROW_OVERHEAD = 80  # bytes a row beside the code: digest, status, sizes, quality, id


def estimate(job: JobConfig) -> dict[str, Any]:
    """Rows, shards, bytes and seconds of a job, and its settings, as plain JSON values.

    The rate is measured on up to two batches of the job's own films, after a first film that warms up; it is that of one worker in
    this process, and `seconds` divides by the number of workers asked for.
    """
    with tempfile.TemporaryDirectory(prefix="latentray-") as scratch:
        job, codec, plan, continues = decide(job, Path(scratch))
        refs = list(next(iter(plan.shards([0]))).refs)
        parts = fingerprint_of(job, codec, plan)
    pending = int(archive_status(job.engine.archive)["pending"]) if continues else plan.num_rows
    rate = _measure(job, refs[: 2 * job.engine.batch_size + 1])
    code_bytes = math.prod(codec.code_shape) * np.dtype(job.dtype).itemsize
    return {
        "rows": plan.num_rows,
        "pending": pending,
        "shards": plan.num_shards,
        "shard_rows": plan.shard_rows,
        "bytes_per_film": code_bytes + ROW_OVERHEAD,
        "bytes": plan.num_rows * (code_bytes + ROW_OVERHEAD),
        "images_per_second_one_worker": rate,
        "seconds": pending / rate / max(job.workers or 1, 1),
        "archive": job.engine.archive,
        "settings": parts,
    }


def _measure(job: JobConfig, refs: list[ImageRef]) -> float:
    flow = build_flow(job.engine, write=False)
    try:
        flow.rehearse(refs[:1])
        timed = refs[1:] or refs
        start = perf_counter()
        flow.rehearse(timed)
        return len(timed) / (perf_counter() - start)
    finally:
        flow.close()
