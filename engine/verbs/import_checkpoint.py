"""`latentray import-checkpoint`: a published file of weights becomes a codec directory, or a weights file for a loss."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from engine.verbs.output import emit

if TYPE_CHECKING:
    from engine.import_codec import ImportReport

HELP = "make a codec of published weights; nothing that lies in the file is run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file, and what its codec is called and says of itself."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a generator (Segal 2021, pytorch_GAN_zoo's PGAN, Karras 2018 as an npz of its variables), Weber's encoder, MoCo v2, "
        "or an autoencoder (MedVAE 2D, latent diffusion, diffusers' AutoencoderKL with its config.json)",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the directory to write; a codec that is there is replaced")
    parser.add_argument("--codec", metavar="DIR", help="for an encoder: the codec whose generator it was trained for")
    parser.add_argument("--name", metavar="NAME", help="what the codec is called (layout and resolution)")
    parser.add_argument("--licence", default="not stated", metavar="TEXT", help="the licence that the weights came with")
    parser.add_argument(
        "--mean-films",
        type=int,
        default=256,
        metavar="N",
        help="for a generator: films to make to find the code that refinement starts from",
    )
    parser.add_argument("--resolution", type=int, metavar="R", help="for an autoencoder: the size of its films (1024)")
    parser.add_argument(
        "--strip-rows",
        type=int,
        metavar="N",
        help="for an autoencoder: rows of each layer to compute at a time, in half the memory (0: all at once)",
    )
    parser.add_argument("--dry-run", action="store_true", help="read and check the file, write nothing")


def run(args: argparse.Namespace) -> None:
    """Prints what the file held and what was made of it."""
    from dataclasses import asdict

    from engine.import_codec import import_checkpoint

    report = import_checkpoint(
        args.file,
        args.out,
        name=args.name,
        licence=args.licence,
        codec=args.codec,
        mean_films=args.mean_films,
        resolution=args.resolution,
        strip_rows=args.strip_rows,
        dry_run=args.dry_run,
        say=lambda text: print(text, file=sys.stderr),
    )
    emit(args, "\n".join(_lines(args, report)), {**asdict(report), "out": args.out, "dry_run": args.dry_run})


def _lines(args: argparse.Namespace, report: ImportReport) -> list[str]:
    average = {True: "averaged over training", False: "not averaged", None: "averaged or not: the file does not say"}[report.is_average]
    lines = [f"{report.layout}: {report.role} {report.network}, {report.values:,} values, {average}, sha256 {report.file_sha256[:12]}"]
    if args.dry_run:
        return [*lines, "nothing was written"]
    if report.role == "features":
        return [*lines, f"{args.out}/{report.written}: encode with --weights {args.out} --loss mse=1,moco=0.1; licence: {report.licence}"]
    lines.append(f"{args.out}: codec {report.written}, digest {report.digest[:12]}; licence: {report.licence}")
    if not report.has_encoder:
        start = "starts from its mean code" if report.has_mean_code else "has no code to start from until an encoder joins it"
        lines.append(f"it has no encoder: refinement {start}")
    if not report.has_coarse_heads and report.role != "codec":  # a network without coarse films
        lines.append(f"`latentray calibrate {args.out}` makes refinement quick, and changes the digest: do it before encoding")
    return lines
