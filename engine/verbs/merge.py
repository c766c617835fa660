"""`latentray merge`: joins archives that were made alike from different films."""

from __future__ import annotations

import argparse

from engine.verbs.output import emit

HELP = "join archives of one fingerprint into a new one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The archives, in the order of their rows, and the new one."""
    parser.add_argument("archives", metavar="ARCHIVE", nargs="+")
    parser.add_argument("--out", metavar="OUT.zarr", required=True)


def run(args: argparse.Namespace) -> int:
    """Prints what the new archive holds."""
    from engine.archive.merge import merge_archives

    root = merge_archives(args.archives, args.out)
    text = f"{len(args.archives)} archives with {root.num_rows:,} rows in {root.num_shards:,} shards: {args.out}"
    emit(args, text, {"archive": str(args.out), "merged": len(args.archives), "rows": root.num_rows, "shards": root.num_shards})
    return 0
