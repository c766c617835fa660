#!/usr/bin/env python3
"""The main job: a data set of films in, a verified archive of codes out. A script, a Ray job, or the function `encode_dataset`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # as a script, Python puts this folder first on the path; `import engine` needs the one above
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from engine.archive.cleaning import clean_uncommitted, withdraw_hollow
from engine.archive.reader import archive_status, mean_quality
from engine.archive.writer import finalise
from engine.cluster.driver import Driver
from engine.cluster.pools import open_pool
from engine.cluster.progress import Progress
from engine.job import JobConfig, job_config, open_job, resolve_workers, with_films
from engine.records import Summary
from engine.source.plan import Plan


def encode_dataset(source: str, archive: str, codec: str, **settings: Any) -> Summary:
    """Encodes every film of `source` with a codec into `archive`, and returns what came of it.

    `settings` are those of the command line with underscores (`refine_steps=20`, `workers=0`, `metrics="none"`). An archive that
    exists is continued when its fingerprint matches. Raises a LatentrayError for the request as a whole, never for a single film.
    """
    return run_job(job_config(source, archive, codec, **settings))


def run_job(job: JobConfig) -> Summary:
    """Opens or makes the archive, runs the shards that have no commit record, finalises. Safe to repeat after any interruption."""
    with open_job(job) as (ready, plan):
        return _run(ready, plan)


def _run(job: JobConfig, plan: Plan) -> Summary:
    archive = job.engine.archive
    done = withdraw_hollow(archive)
    missing = [index for index in range(plan.num_shards) if index not in done]
    clean_uncommitted(archive, missing)
    before = archive_status(archive)
    progress = Progress(total=plan.num_rows, done=before["ok"] + before["failed"], failed=before["failed"], quiet=job.quiet)
    if missing:
        workers = resolve_workers(job)
        settings = with_films(job.engine, before["pending"], workers)
        pool = open_pool(settings, workers=workers, address=job.address, share=job.worker_share)
        driver = Driver(pool, clean=lambda index: clean_uncommitted(archive, [index]), on_receipt=progress.on_receipt)
        try:
            driver.run(plan.shards(missing), tick=progress.tick)
        finally:
            progress.close()
            pool.close()
    finalise(archive)
    return summarise(archive, encoded_now=progress.encoded_now, seconds=progress.seconds)


def summarise(archive: str, *, encoded_now: int, seconds: float) -> Summary:
    """Counts over the whole archive and mean quality over its ok rows; time and rate of this run."""
    status = archive_status(archive)
    quality = mean_quality(archive)
    return Summary(
        archive=archive,
        rows=status["rows"],
        ok=status["ok"],
        failed=status["failed"],
        pending=status["pending"],
        shards=status["shards"],
        shards_done=status["shards_done"],
        failed_by_reason=status["failed_by_reason"],
        bytes=status["bytes"],
        psnr=quality.get("psnr"),
        ssim=quality.get("ssim"),
        encoded_now=encoded_now,
        seconds=seconds,
        images_per_second=encoded_now / seconds if seconds else 0.0,
    )


if __name__ == "__main__":
    from engine.cli import run_verb
    from engine.verbs import encode

    sys.exit(run_verb("encode", encode, sys.argv[1:]))
