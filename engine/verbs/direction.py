"""`latentray direction`: the direction in a codec's space along which films gain an attribute, and how far it tells films apart."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "the direction of an attribute in the space of codes: svm, lda, mean or paired"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options as INTERFACE names them."""
    parser.add_argument("archive", help="an archive made by encode")
    parser.add_argument(
        "--attribute",
        required=True,
        metavar="A",
        help="COLUMN (yes or no), COLUMN=VALUE, COLUMN? (filled), COLUMN>NUMBER (also >=, <, <=), COLUMN>NUMBER/<NUMBER (with it and "
        "without it; what lies between is unknown), or NAME: TERM, TERM",
    )
    parser.add_argument("--labels", metavar="CSV", help="CSV or Parquet with ids, or phantom:N; left out: what the archive's plan carries")
    parser.add_argument("--method", choices=("svm", "lda", "paired", "mean"), default="svm", help="how it is found")
    parser.add_argument("--edited", metavar="OTHER.zarr", help="for paired: the same ids, films that gained the attribute")
    parser.add_argument(
        "--independent-of", nargs="+", default=[], metavar="FILE", help="directions along which films shall stay as they are"
    )
    parser.add_argument("--out", metavar="FILE", help="left out: ARCHIVE's name with the attribute's and .direction")
    parser.add_argument("--hash-ids", metavar="KEYFILE", help="the key of an archive of hashed ids; as in encode")
    parser.add_argument("--seed", type=int, default=0, help="of the folds that judge it")


def run(args: argparse.Namespace) -> None:
    """Finds, judges and writes the direction."""
    from engine.archive.root import results_beside, stem
    from engine.errors import ConfigError
    from engine.labels import LabelSpec
    from engine.latents.codes import read_codes
    from engine.latents.direction_file import read_direction, write_direction
    from engine.latents.film_labels import mark, read_table
    from engine.latents.find import by_labels, by_pairs, independent_of
    from engine.verbs.keyfile import read_key
    from engine.verbs.output import emit

    if (args.method == "paired") != (args.edited is not None):
        raise ConfigError(f"method paired, and no other, needs --edited: {args.method}")
    codes = read_codes(args.archive)
    if args.edited:
        direction = by_pairs(codes, read_codes(args.edited), args.attribute)
    else:
        table = read_table(args.labels, args.archive, LabelSpec.parse(args.attribute).columns, hash_key=read_key(args.hash_ids))
        direction = by_labels(codes, mark(codes, table, args.attribute), args.attribute, args.method, seed=args.seed)
    if args.independent_of:
        direction = independent_of(direction, [read_direction(Path(file)) for file in args.independent_of], codes.values)
    beside = f"{stem(args.archive)}.{direction.attribute.replace('/', '-')}.direction"
    out = Path(args.out) if args.out else results_beside(args.archive, beside)
    write_direction(out, direction)
    figures = direction.provenance
    told = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in figures.items() if isinstance(value, float))
    known = f"{figures['films']} films" + (f", {figures['unknown']} unknown" if figures.get("unknown") else "")
    known += f", {codes.left_out} rows without a code left out" if codes.left_out else ""
    emit(args, f"{out}: {direction.attribute} by {direction.method}, {known}" + (f": {told}" if told else ""), {"out": str(out), **figures})
