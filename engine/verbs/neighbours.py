"""`latentray neighbours`: films like one of an archive, drawn around its code or found among the others."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "films like this one: codes drawn around a code, and the nearest that the archive holds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options as INTERFACE names them."""
    parser.add_argument("archive", help="an archive made by encode")
    parser.add_argument("--id", required=True, dest="sample_id", metavar="ID", help="the film to start from")
    parser.add_argument("--count", type=int, default=8, metavar="N", help="how many of each")
    parser.add_argument("--sigma", type=float, default=0.2, metavar="S", help="how far drawn codes are, in units of a number's size")
    parser.add_argument("--seed", type=int, default=0, help="of the codes that are drawn")
    parser.add_argument("--faiss", action="store_true", help="search by FAISS, an extra: the same films")
    parser.add_argument("--out", metavar="FILE.png", help="a picture: above the film and the nearest ones, below films drawn around it")
    parser.add_argument("--to", metavar="NEW.zarr", help="archive of the drawn codes")
    parser.add_argument("--size", type=int, default=256, metavar="PX", help="side of the films in the picture")
    parser.add_argument("--codec", metavar="DIR", help="the codec that made the archive, where it is not stored inside")


def run(args: argparse.Namespace) -> None:
    """Prints the nearest films; draws others, and writes what was asked for."""
    from engine.latents.codes import read_codes
    from engine.latents.like_this import like_this, write_drawn, write_picture
    from engine.reconstruct import check_size
    from engine.verbs.output import emit

    check_size(args.size, least=16)
    codes = read_codes(args.archive)
    found = like_this(codes, args.sample_id, count=args.count, sigma=args.sigma, seed=args.seed, faiss=args.faiss)
    lines = [f"{name}  {cosine:.4f}" for name, cosine in found.nearest]
    if args.to:
        write_drawn(args.archive, args.to, found, sigma=args.sigma, seed=args.seed)
        lines.append(f"{args.to}: {len(found.drawn)} codes around {args.sample_id}")
    if args.out:
        write_picture(args.archive, Path(args.out), codes, found, size=args.size, codec=args.codec)
        lines.append(f"{args.out}: {args.sample_id} and its nearest above, films drawn at sigma {args.sigma:g} below")
    nearest = [{"id": name, "cosine": cosine} for name, cosine in found.nearest]
    emit(args, "\n".join(lines), {"id": args.sample_id, "nearest": nearest, "out": args.out, "archive": args.to})
