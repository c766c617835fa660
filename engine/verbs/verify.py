"""`latentray verify`: says which object of an archive is missing, damaged or wrong."""

from __future__ import annotations

import argparse

from engine.errors import ConfigError
from engine.verbs.output import emit

HELP = "check that every object of an archive is there, whole and as committed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One archive, how deep to look, and for level 4 which films."""
    parser.add_argument("archive", metavar="ARCHIVE")
    parser.add_argument(
        "--level",
        type=int,
        choices=(1, 2, 3, 4),
        default=3,
        help="1 sizes, 2 and digests, 3 and every row decoded, 4 and some films read and compared again",
    )
    parser.add_argument("--count", type=int, default=16, metavar="N", help="films that level 4 reads again")
    parser.add_argument("--codec", metavar="DIR", help="the codec that level 4 uses, where the archive holds none")
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="which films those are")


def run(args: argparse.Namespace) -> int:
    """Prints a line for each problem; 1 when there is any."""
    from engine.archive.root import plan_beside
    from engine.archive.verify import verify_archive

    if args.count < 1:
        raise ConfigError(f"count must be 1 or more: {args.count}")
    found = verify_archive(args.archive, level=args.level)
    problems = [problem for problem in found if not problem.is_note]
    lines = [str(problem) for problem in found]
    objects = [{"object": it.object, "what": it.what, "note": it.is_note} for it in found]
    if args.level == 4 and not problems:  # damage is the answer already, and films could not be held against it
        from engine.audit import audit_rows

        wrong = audit_rows(args.archive, plan_beside(args.archive), count=args.count, seed=args.seed, codec=args.codec)
        lines += [f"{sample_id}: {what}" for sample_id, what in wrong]
        objects += [{"object": sample_id, "what": what, "note": False} for sample_id, what in wrong]
    count = sum(not entry["note"] for entry in objects)
    lines.append(f"level {args.level}: " + (f"{count} problems" if count else "whole"))
    emit(args, "\n".join(lines), {"level": args.level, "ok": count == 0, "problems": objects})
    return 1 if count else 0
