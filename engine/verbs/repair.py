"""`latentray repair`: mends a damaged archive from a copy, and makes what stays damaged pending again, and nothing else."""

from __future__ import annotations

import argparse

from engine.verbs.output import emit

HELP = "make damaged shards pending again, and no others; or mend them from a copy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One archive, a copy of it where there is one, and how deep to look."""
    parser.add_argument("archive", metavar="ARCHIVE", help="no job may be writing to it")
    parser.add_argument("--from", dest="copy", metavar="COPY.zarr", help="an archive of the same run, such as a backup")
    parser.add_argument("--level", type=int, choices=(1, 2, 3), default=3, help="as in verify; level 1 finds what is missing or cut")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")


def run(args: argparse.Namespace) -> int:
    """Prints what was done; 1 where something is left that it cannot mend."""
    from dataclasses import asdict

    from engine.archive.repair import repair_archive

    done = repair_archive(args.archive, copy=args.copy, level=args.level, dry_run=args.dry_run)
    would = "would be " if args.dry_run else ""
    lines = [f"{key}: {would}put back as it was" for key in done.restored]
    lines += [f"shard {shard}: {would}pending again" for shard in done.requeued]
    lines += [f"the plan: {would}removed, to be written anew"] if done.plan else []
    lines += [f"{problem}; not to be mended here" for problem in done.left]
    if done.requeued or done.plan:
        lines.append(f"give the same `encode` again: it does {len(done.requeued)} shards and leaves the others as they are")
    emit(args, "\n".join(lines or ["whole, nothing to mend"]), {"dry_run": args.dry_run, **asdict(done)})
    return 1 if done.left else 0
