"""`latentray metrics`: source films against their reconstructions, beside the floors."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.quality import FilmQuality

HELP = "PSNR, SSIM and MS-SSIM between source films and reconstructions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options as INTERFACE names them."""
    parser.add_argument("archive", help="an archive made by encode")
    parser.add_argument("--source", required=True, help="the films: a folder, glob, manifest, URL or phantom:N")
    parser.add_argument("--id", dest="id_from", choices=("stem", "relpath", "column"), help="how ids were made; as in encode")
    parser.add_argument("--hash-ids", metavar="KEYFILE", help="the key of an archive of hashed ids; as in encode")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N films of the source")
    parser.add_argument("--csv", metavar="FILE", help="also write a row a film and method")
    parser.add_argument(
        "--features", metavar="PATH", help="also distances of both sets, by a classifier directory or Inception's file (FID)"
    )
    parser.add_argument("--codec", metavar="DIR", help="the codec that made the archive, where it is not stored inside")


def run(args: argparse.Namespace) -> None:
    """Prints a table of means, with --features a line on both sets; with --csv writes every film's figures."""
    from engine.features import load_features
    from engine.quality import mean_by_method, measure, quality_lines
    from engine.realism import Realism, realism_line
    from engine.verbs.keyfile import read_key
    from engine.verbs.output import emit

    realism = Realism(load_features(args.features)) if args.features else None
    films = measure(
        args.archive,
        args.source,
        codec=args.codec,
        id_from=args.id_from,
        hash_key=read_key(args.hash_ids),
        limit=args.limit,
        realism=realism,
    )
    means = mean_by_method(_to_csv(films, Path(args.csv)) if args.csv else films)
    lines, data = quality_lines(means), {"archive": args.archive, "methods": means}
    if realism is not None:
        figures = realism.figures()
        lines.append(realism_line(figures))
        data["realism"] = figures
    emit(args, "\n".join(lines), data)


def _to_csv(films: Iterable[FilmQuality], path: Path) -> Iterator[FilmQuality]:
    from engine.errors import ConfigError
    from engine.quality import FilmQuality

    try:
        file = path.open("w", newline="")
    except OSError as error:
        raise ConfigError(f"the table cannot be written: {error.strerror}: {path}") from None
    with file:
        writer = csv.DictWriter(file, [field.name for field in fields(FilmQuality)])
        writer.writeheader()
        for film in films:
            writer.writerow(asdict(film))
            yield film
