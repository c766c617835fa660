"""`latentray probe`: what codes are worth to a linear classifier, beside other codes and thumbnails of the same films."""

from __future__ import annotations

import argparse

HELP = "how well codes tell attributes, by a linear classifier, beside other codes and thumbnails"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An archive, what to ask, and what to compare with."""
    parser.add_argument("archive", help="an archive made by encode")
    parser.add_argument("--attribute", required=True, nargs="+", metavar="A", help="as for `direction`; several are asked in turn")
    parser.add_argument("--labels", metavar="CSV", help="CSV or Parquet with ids, or phantom:N; left out: what the archive's plan carries")
    parser.add_argument("--against", nargs="+", default=[], metavar="OTHER.zarr", help="archives of the same films by other codecs")
    parser.add_argument("--no-thumbnail", dest="thumbnail", action="store_false", help="no thumbnails, for which films are read again")
    parser.add_argument("--hash-ids", metavar="KEYFILE", help="the key of an archive of hashed ids; as in encode")
    parser.add_argument("--codec", metavar="DIR", help="the codec that made the archive, where it is not stored inside")
    parser.add_argument("--seed", type=int, default=0, help="of folds and resamples")


def run(args: argparse.Namespace) -> None:
    """Prints a table: a row an attribute and representation."""
    from dataclasses import asdict

    from engine.latents.probed import probe_archives
    from engine.verbs.keyfile import read_key
    from engine.verbs.output import emit

    found, films = probe_archives(
        args.archive,
        args.attribute,
        labels=args.labels,
        against=args.against,
        thumbnail=args.thumbnail,
        codec=args.codec,
        hash_key=read_key(args.hash_ids),
        seed=args.seed,
    )
    width = max(len(row.attribute) for row in found), max(len(row.what) for row in found)
    lines = [f"{'':<{width[0]}}  {'':<{width[1]}}  numbers    with   films    AUC  95 % interval"]
    for row in found:
        figures = f"{row.numbers:>7,} {row.films_with:>7,} {row.films:>7,}  {row.auc:.3f}  {row.low:.3f} to {row.high:.3f}"
        lines.append(f"{row.attribute:<{width[0]}}  {row.what:<{width[1]}}  {figures}")
    emit(args, "\n".join(lines), {"films": films, "figures": [asdict(row) for row in found]})
