"""`latentray phantom`: a folder of procedural radiographs with their labels, which is itself a source for `encode` and `train`."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import ConfigError, SourceError
from engine.verbs.output import emit

if TYPE_CHECKING:
    from engine.source.phantom import Phantom

HELP = "draw radiographs with known findings: PNGs and labels.csv"
MASKS = ".masks"  # hidden, so that a folder listed as a source does not take masks for films
SHEET_TILE = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("--count", type=int, required=True, metavar="N", help="how many films")
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="which series; the same seed gives the same bytes")
    parser.add_argument("--size", type=int, default=1024, metavar="PX", help="width and height in pixels")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the films and labels.csv; made when missing")
    parser.add_argument("--masks", action="store_true", help=f"also write DIR/{MASKS}/<id>.<mask>.png for every mask that is not empty")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="also write one PNG with small copies of the films side by side")


def run(args: argparse.Namespace) -> None:
    """Draws the films one after another; labels.csv is written last, so a folder with it is complete."""
    from engine.source.phantom import contact_sheet, draw_labels, encode_png, render_phantom, sample_id

    if args.count < 1:
        raise ConfigError(f"--count must be 1 or more: {args.count}")
    draw_labels(args.seed, 0, size=args.size)  # refuses a bad seed or size before a folder is made
    tiles, rows = [], []
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        for index in range(args.count):
            film = render_phantom(args.seed, index, size=args.size)
            name = f"{sample_id(index)}.png"
            (args.out / name).write_bytes(encode_png(film.pixels))
            rows.append({"path": name, "id": film.sample_id, **film.labels})
            if args.masks:
                _write_masks(film, args.out / MASKS)
            if args.sheet:
                tiles.append(contact_sheet([film.pixels], 1, SHEET_TILE))
            _say_progress(index + 1, args.count)
        _write_labels(rows, args.out / "labels.csv")
        if args.sheet:
            args.sheet.write_bytes(encode_png(contact_sheet(tiles, min(4, args.count), SHEET_TILE)))
    except OSError as error:
        raise SourceError(f"cannot write the films: {error.strerror}: {error.filename or args.out}") from None
    emit(args, f"{args.count} films in {args.out}", {"films": args.count, "seed": args.seed, "size": args.size, "out": str(args.out)})


def _say_progress(done: int, count: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} of {count} films", end="\n" if done == count else "", file=sys.stderr, flush=True)


def _write_labels(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    """A manifest: `path` and `id` first, then a column a label; yes and no as 1 and 0, nothing as an empty cell."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: int(value) if isinstance(value, bool) else value for name, value in row.items()} for row in rows)


def _write_masks(film: Phantom, folder: Path) -> None:
    from engine.source.phantom import encode_png

    folder.mkdir(exist_ok=True)
    for name, mask in film.masks.items():
        if mask.any():
            (folder / f"{film.sample_id}.{name}.png").write_bytes(encode_png(mask.astype("u1") * 255))
