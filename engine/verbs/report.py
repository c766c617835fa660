"""`latentray report`: one self-contained page about an archive."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "a page with figures, films beside reconstructions, residuals, and a map"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the page."""
    parser.add_argument("archive", help="an archive made by encode")
    parser.add_argument("--source", required=True, help="the films: a folder, glob, manifest, URL or phantom:N")
    parser.add_argument("--out", required=True, metavar="FILE.html", help="the page")
    parser.add_argument("--films", type=int, default=12, metavar="N", help="films shown beside their reconstructions")
    parser.add_argument("--picture", metavar="FILE", help="also write these films, reconstructions and residuals as one PNG or JPEG")
    parser.add_argument("--id", dest="id_from", choices=("stem", "relpath", "column"), help="how ids were made; as in encode")
    parser.add_argument("--hash-ids", metavar="KEYFILE", help="the key of an archive of hashed ids; as in encode")


def run(args: argparse.Namespace) -> None:
    """Writes the page and prints its table."""
    from engine.errors import ConfigError
    from engine.report import readable, write_report
    from engine.verbs.keyfile import read_key
    from engine.verbs.output import emit

    if not 0 <= args.films <= 64:
        raise ConfigError(f"films must be 0 to 64: {args.films}")
    picture = Path(args.picture) if args.picture else None
    try:
        table = write_report(
            args.archive,
            args.source,
            Path(args.out),
            films=args.films,
            id_from=args.id_from,
            hash_key=read_key(args.hash_ids),
            picture=picture,
        )
    except OSError as error:
        raise ConfigError(f"the page cannot be written: {error.strerror}: {args.out}") from None
    lines = [f"{label:<12} {value}" for label, value in readable(table).items()]
    emit(args, "\n".join([*lines, f"{'page':<12} {args.out}"]), table | {"page": args.out})
