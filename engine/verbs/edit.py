"""`latentray edit`: films moved along a direction, as strips to look at and as an archive of their codes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

HELP = "films moved along a direction: strips of pictures, and an archive of the edited codes"

SHOWN = 8  # films, where none are named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options as INTERFACE names them."""
    parser.add_argument("archive", help="an archive made by encode")
    parser.add_argument("--direction", required=True, metavar="FILE", help="as `latentray direction` writes it")
    parser.add_argument("--alpha", default="-3,-1.5,0,1.5,3", metavar="LIST", help="how far, in standard deviations of codes along it")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--rows", metavar="A:B", help=f"only these rows; left out: the first {SHOWN} for pictures, all for an archive")
    which.add_argument("--ids", metavar="FILE", help="only the ids listed in a text file, one a line")
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder for <sample_id>.png: the film at each alpha, and what changed; left out, and no "
        "--to: ARCHIVE's name with the attribute's and -edits",
    )
    parser.add_argument("--to", metavar="NEW.zarr", help="archive of the edited codes, a row a film and alpha: <sample_id>@<alpha>")
    parser.add_argument("--size", type=int, metavar="PX", help="side of the films; left out: the codec's resolution")
    parser.add_argument("--codec", metavar="DIR", help="the codec that made the archive, where it is not stored inside")


def run(args: argparse.Namespace) -> None:
    """Edits, and writes what was asked for."""
    from engine.archive.root import results_beside, stem
    from engine.latents.codes import read_codes
    from engine.latents.direction_file import read_direction
    from engine.latents.edited import parse_alphas, write_edited, write_strips
    from engine.reconstruct import check_size, chosen_rows
    from engine.verbs.output import emit

    check_size(args.size)
    direction, alphas = read_direction(Path(args.direction)), parse_alphas(args.alpha)
    rows = chosen_rows(args.archive, args.rows, args.ids)
    codes = read_codes(args.archive)
    codes = codes if rows is None else codes.of_rows(rows)
    beside = f"{stem(args.archive)}.{direction.attribute.replace('/', '-')}-edits"
    out = args.out or (None if args.to else str(results_beside(args.archive, beside)))
    lines: list[str] = []
    data: dict[str, Any] = {"attribute": direction.attribute, "alphas": alphas}
    if args.to:
        count = write_edited(codes, args.archive, args.to, direction, alphas)
        lines.append(f"{args.to}: {count} codes, {len(alphas)} of each film")
        data |= {"archive": args.to, "codes": count}
    if out:
        some = codes.take(range(min(SHOWN, len(codes)))) if rows is None else codes
        count = write_strips(some, args.archive, Path(out), direction, alphas, size=args.size, codec=args.codec)
        lines.append(f"{out}: {count} strips, {direction.attribute} at {', '.join(f'{alpha:g}' for alpha in alphas)}")
        data |= {"out": out, "films": count}
    emit(args, "\n".join(lines), data)
