"""`latentray failures`: a row for each film that did not make it."""

from __future__ import annotations

import argparse

from engine.verbs.output import emit

HELP = "a row for each failed film: id, stage, reason"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One archive."""
    parser.add_argument("archive", metavar="ARCHIVE")


def run(args: argparse.Namespace) -> int:
    """Prints a table with tabs between its columns."""
    from engine.archive.reader import list_failures

    rows = [
        {"row": it.row, "id": it.sample_id, "status": it.status.name.lower(), "stage": it.stage, "reason": it.reason}
        for it in list_failures(args.archive)
    ]
    table = ["id\tstage\treason", *(f"{row['id']}\t{row['stage']}\t{row['reason']}" for row in rows)]
    emit(args, "\n".join(table), {"failures": rows})
    return 0
