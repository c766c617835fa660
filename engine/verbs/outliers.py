"""`latentray outliers`: films that the generator cannot represent (wires, tubes, words), ranked over an archive."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "films that the generator cannot represent, ranked: lines that a film has and its reconstruction lacks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options as INTERFACE names them."""
    parser.add_argument("archive", help="an archive made by encode")
    parser.add_argument("--source", metavar="SOURCE", help="where its films are; left out: where the plan beside the archive says")
    parser.add_argument("--count", type=int, default=10, metavar="N", help="how many films to print and draw (default: 10)")
    parser.add_argument("--csv", metavar="FILE", help="all films, ranked: rank, id, score, and the box in pixels of the film's file")
    parser.add_argument("--out", metavar="DIR", help="folder for pictures of the first: film, reconstruction, residual, box")
    parser.add_argument(
        "--margin",
        type=float,
        metavar="SHARE",
        help="of a film's width, left and right, that is not judged, since letters stand there; 0 ranks text too (default: 1/6)",
    )
    parser.add_argument("--codec", metavar="DIR", help="the codec that made the archive, where it is not stored inside")
    parser.add_argument("--id", dest="id_from", choices=("stem", "relpath", "column"), help="what an id of SOURCE is, as in encode")
    parser.add_argument("--hash-ids", metavar="KEYFILE", help="the key that the ids of the archive were hashed with, for SOURCE")


def run(args: argparse.Namespace) -> None:
    """Ranks, prints the first and writes what was asked for."""
    from engine.errors import ConfigError
    from engine.latents.film_pairs import FilmsOfArchive
    from engine.latents.outliers import MARGIN, SIDE, check_margin
    from engine.latents.ranked import rank, write_pictures, write_table
    from engine.verbs.keyfile import read_key
    from engine.verbs.output import emit

    if args.count < 1:
        raise ConfigError(f"count must be 1 or more: {args.count}")
    margin = MARGIN if args.margin is None else args.margin
    check_margin(margin)
    key = read_key(args.hash_ids)
    films = FilmsOfArchive(args.archive, side=SIDE, source=args.source, codec=args.codec, id_from=args.id_from, hash_key=key)
    ranking = rank(films, margin=margin)
    first = ranking.places[: args.count]
    lines = [f"{at:>4}  {place.score:7.2f}  {place.sample_id}  {box(place.box)}" for at, place in enumerate(first, 1)]
    lines.append(f"{args.archive}: {len(ranking.places)} films ranked")
    left_out = {"without a code": ranking.without_code, "that cannot be read": ranking.unread, "not in the source": ranking.without_film}
    lines += [f"left out: {count} {reason}" for reason, count in left_out.items() if count]
    if args.csv:
        write_table(Path(args.csv), ranking)
        lines.append(f"{args.csv}: all {len(ranking.places)} films")
    if args.out:
        count = write_pictures(films, Path(args.out), ranking, count=args.count, margin=margin)
        lines.append(f"{args.out}: {count} pictures")
    data = {
        "films": len(ranking.places),
        "without_code": ranking.without_code,
        "unread": ranking.unread,
        "without_film": ranking.without_film,
        "margin": margin,
        "first": [{"id": place.sample_id, "score": place.score, "box": list(place.box)} for place in first],
        "csv": args.csv,
        "out": args.out,
    }
    emit(args, "\n".join(lines), data)


def box(edges: tuple[int, int, int, int]) -> str:
    """A box in words: `x 310-402, y 96-510`, or what to say where nothing is left."""
    x0, y0, x1, y1 = edges
    return f"x {x0}-{x1}, y {y0}-{y1}" if any(edges) else "nothing left"
