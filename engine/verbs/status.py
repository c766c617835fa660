"""`latentray status`: how far an archive is, from its commit records alone, also while a job runs."""

from __future__ import annotations

import argparse
from typing import Any

from engine.verbs.output import emit

HELP = "how far an archive is: rows, ok, failed, pending, why rows failed, seconds a film and left"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One archive."""
    parser.add_argument("archive", metavar="ARCHIVE")


def run(args: argparse.Namespace) -> int:
    """Prints the counts."""
    from engine.archive.reader import archive_status

    status = archive_status(args.archive)
    shape = "x".join(map(str, status["latent_shape"]))
    lines = [
        f"{status['rows']:,} rows: {status['ok']:,} ok, {status['failed']:,} failed, {status['pending']:,} pending",
        f"{status['shards_done']:,} of {status['shards']:,} shards done, {status['bytes']:,} bytes",
        f"codec {status['codec']}, codes of {shape}",
        *_pace(status),
        *(f"{count:8,} {reason}" for reason, count in status["failed_by_reason"].items()),
    ]
    emit(args, "\n".join(lines), status)
    return 0


def _pace(status: dict[str, Any]) -> list[str]:
    from engine.cluster.progress import duration

    if status["seconds_per_film"] is None:
        return []
    stages = ", ".join(f"{stage} {seconds:.3g}" for stage, seconds in status["seconds_per_film"].items())
    lines = [f"{sum(status['seconds_per_film'].values()):.3g} seconds a film of a worker: {stages}"]
    if status["pending"]:
        lines.append(f"{duration(status['seconds_left'])} left at this pace; workers seen: {status['workers']}")
    return lines
