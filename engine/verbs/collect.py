"""`latentray gc`: removes what no commit record of an archive names."""

from __future__ import annotations

import argparse

from engine.verbs.output import emit

HELP = "remove what killed jobs left in an archive; no job may be writing to it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One archive."""
    parser.add_argument("archive", metavar="ARCHIVE")


def run(args: argparse.Namespace) -> int:
    """Prints what it freed, and what it left because it is no part of an archive."""
    from engine.archive.cleaning import collect_garbage

    freed = collect_garbage(args.archive)
    lines = [
        f"removed {freed.files:,} files, {freed.bytes:,} bytes",
        *(f"left alone, no part of an archive: {key}" for key in freed.foreign),
    ]
    emit(args, "\n".join(lines), {"files": freed.files, "bytes": freed.bytes, "foreign": list(freed.foreign)})
    return 0
