"""`latentray atlas`: one page with a map of all codes, films and reconstructions, neighbours and edits; it works offline."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "one self-contained page: a map of all codes with films, neighbours and edits"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options as INTERFACE names them."""
    parser.add_argument("archive", help="an archive made by encode")
    parser.add_argument("--out", required=True, metavar="FILE.html", help="the page")
    parser.add_argument("--labels", metavar="CSV", help="CSV or Parquet with ids, or phantom:N; left out: what the archive's plan carries")
    parser.add_argument(
        "--direction", nargs="+", default=[], metavar="FILE", help="sliders along these, as `latentray direction` writes them"
    )
    parser.add_argument("--pictures", type=int, default=1000, metavar="N", help="films with pictures, spread over the archive")
    parser.add_argument("--source", help="where the films are, if not where the archive's plan says")
    parser.add_argument("--no-films", dest="films", action="store_false", help="reconstructions only: no film is read again")
    parser.add_argument("--hash-ids", metavar="KEYFILE", help="the key of an archive of hashed ids; as in encode")
    parser.add_argument("--codec", metavar="DIR", help="the codec that made the archive, where it is not stored inside")
    parser.add_argument("--seed", type=int, default=0, help="of the map")


def run(args: argparse.Namespace) -> None:
    """Writes the page."""
    from dataclasses import asdict

    from engine.config import check_at_least
    from engine.latents.atlas import write_atlas
    from engine.latents.direction_file import read_direction
    from engine.latents.film_labels import read_table
    from engine.verbs.keyfile import read_key
    from engine.verbs.output import emit

    check_at_least("pictures", args.pictures, 0)
    key = read_key(args.hash_ids)
    written = write_atlas(
        args.archive,
        Path(args.out),
        table=read_table(args.labels, args.archive, None, hash_key=key),
        directions=[read_direction(Path(file)) for file in args.direction],
        source=args.source,
        pictures=args.pictures,
        with_films=args.films,
        codec=args.codec,
        hash_key=key,
        seed=args.seed,
    )
    without = f", {written.left_out} rows without a code left out" if written.left_out else ""
    clusters = f"{written.clusters} cluster" + ("" if written.clusters == 1 else "s")
    told = f"{written.codes} codes in {clusters}, {written.films} with pictures, {written.bytes / 1e6:.1f} MB{without}"
    emit(args, f"{args.out}: {told}", asdict(written) | {"out": args.out})
