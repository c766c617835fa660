"""`latentray status`: how far an archive is, from its commit records alone, also while a job runs."""

from __future__ import annotations

import argparse

from engine.verbs.output import emit

HELP = "how far an archive is: rows, ok, failed, pending, and why rows failed"


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
        *(f"{count:8,} {reason}" for reason, count in status["failed_by_reason"].items()),
    ]
    emit(args, "\n".join(lines), status)
    return 0
