"""`latentray reconstruct`: films out of an archive, as PNG files."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

HELP = "films out of an archive, a gray PNG each"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options as INTERFACE names them."""
    parser.add_argument("archive", help="an archive made by encode")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for <sample_id>.png")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--rows", metavar="A:B", help="only these rows")
    which.add_argument("--ids", metavar="FILE", help="only the ids listed in a text file, one a line")
    parser.add_argument("--size", type=int, metavar="PX", help="side of the films; left out: the codec's resolution")
    parser.add_argument(
        "--from",
        dest="source",
        choices=("layer", "code"),
        help="the film itself, or what its code makes; left out: the layer, if any",
    )
    parser.add_argument("--codec", metavar="DIR", help="the codec that made the archive, where it is not stored inside")


def run(args: argparse.Namespace) -> None:
    """Writes the films."""
    from engine.reconstruct import check_size, chosen_rows, reconstruct
    from engine.verbs.output import emit

    check_size(args.size)
    rows = chosen_rows(args.archive, args.rows, args.ids)
    written = reconstruct(args.archive, Path(args.out), rows=rows, size=args.size, codec=args.codec, source=args.source)
    by_code = written.films - written.from_layer
    found = [f"{written.from_layer} films of their own size"] if written.from_layer else []
    found += [f"{by_code} films of {written.size}x{written.size}"] if by_code or not found else []
    without = f" · {written.without_code} rows hold no code" if written.without_code else ""
    emit(args, f"{args.out}: {' · '.join(found)}{without}", asdict(written) | {"out": args.out})
