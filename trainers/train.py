"""`latentray train TASK`: makes a codec from films. One small table says which tasks there are."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

from engine.config import DecodeConfig
from engine.errors import ConfigError
from engine.verbs.output import emit

HELP = "make a codec from a data set of films"

_PCA_SETTINGS = ("components", "resolution", "storage", "images", "seed", "max_failed_fraction", "batch_size")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of all tasks, then those of each one."""
    parser.add_argument("task", metavar="TASK", help=f"what to train: {', '.join(sorted(_TASKS))}")
    parser.add_argument(
        "--data", required=True, metavar="SOURCE", help="films, as `encode` takes them: a folder, a manifest, phantom:N ..."
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the codec directory to write; one that is there is replaced")
    parser.add_argument("--preset", default="default", metavar="P", help="a set of settings by name: default or cpu-small")
    parser.add_argument("--resume", action="store_true", help="go on from a stopped run; pca, which is one pass, starts again")
    _add(parser, "--images", type=int, metavar="N", help="films seen in all; 0 or left out: as the task has it, for pca all of them")
    _add(parser, "--seed", type=int, metavar="K", help="decides whatever is random (0)")
    _add(parser, "--batch-size", type=int, metavar="B", help="films taken at a time")
    _add(parser, "--max-failed-fraction", type=float, metavar="F", help="exit 1 when more films cannot be read (0.05)")
    parser.add_argument("--decoder", choices=("auto", "dali", "cpu"), default="auto", help="how files become pixels")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="decoding threads; 0: one a core")
    pca = parser.add_argument_group("pca")
    _add(pca, "--components", type=int, metavar="K", help="coefficients of a film (256)")
    _add(pca, "--resolution", type=int, metavar="R", help="side of the films that the codec sees (256)")
    _add(pca, "--storage", choices=("float16", "float32"), help="type of the components on the disk (float16)")


def run(args: argparse.Namespace) -> int | None:
    """Trains; returns 1 when too many films could not be read."""
    if args.task not in _TASKS:
        raise ConfigError(f"tasks in this version are {', '.join(sorted(_TASKS))}; there is no such one: {args.task}")
    return _TASKS[args.task](args)


def _train_pca(args: argparse.Namespace) -> int:
    from trainers.presets import pca_preset
    from trainers.tasks.pca import fit_pca

    given = {name: value for name, value in vars(args).items() if name in _PCA_SETTINGS}
    decode = DecodeConfig(decoder=args.decoder, threads=args.threads)
    cfg = replace(pca_preset(args.preset), decode=decode, **given)
    report = fit_pca(args.data, args.out, cfg)
    share = f"{report.explained_variance:.2%} of the variance"
    quality = f"{report.psnr:.2f} dB mean PSNR at {report.resolution}x{report.resolution} on {report.psnr_films} of these films"
    text = f"{report.codec}: {report.components} components of {report.films} films, {share}, {quality}, {report.seconds:.1f} s"
    emit(args, text, vars(report))
    if report.failed:
        print(f"films left out because they could not be read: {report.failed}", file=sys.stderr)
    return int(report.failed_fraction > cfg.max_failed_fraction)


def _add(group: Any, *names: str, **options: Any) -> None:
    """An option that leaves no trace unless it is given, so that the preset's own value stands."""
    group.add_argument(*names, default=argparse.SUPPRESS, **options)


_TASKS = {"pca": _train_pca}
