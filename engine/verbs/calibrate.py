"""`latentray calibrate`: gives a codec the coarse heads with which refinement begins on small films, or the step of its stored codes."""

from __future__ import annotations

import argparse

from engine.verbs.output import emit

HELP = "fit coarse heads to a codec's generator, so that refinement can begin on small films; or find how coarsely its codes may be stored"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The codec, and what the heads are fitted to."""
    parser.add_argument("codec", metavar="CODEC_DIR", help="a codec directory; its coarse heads are replaced")
    parser.add_argument(
        "--films", type=int, metavar="N", help="films to make of random codes, 64 if left out; with --rounding films to read, 16"
    )
    parser.add_argument(
        "--rounding", metavar="SOURCE", help="fit no heads; on these films, find the step to whose multiples codes are rounded"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides the codes")


def run(args: argparse.Namespace) -> int:
    """Prints a line a level, or the step."""
    from dataclasses import asdict

    from engine.calibrate import FILMS, calibrate_codec

    if args.rounding is not None:
        return _find_step(args)
    args.films = FILMS if args.films is None else args.films
    found = calibrate_codec(args.codec, films=args.films, seed=args.seed)
    full = max(found.gflop)
    rows = [f"{'resolution':>12} {'explained':>10} {'GFLOP a step':>13} {'of full size':>13}"]
    for resolution, gflop in found.gflop.items():
        explained = f"{found.explained[resolution]:.2%}" if resolution in found.explained else ""
        rows.append(f"{resolution:>6}x{resolution:<5} {explained:>10} {gflop:>13.4g} {gflop / found.gflop[full]:>13.1%}")
    changed = f"its digest is now {found.digest[:12]}, not {found.former_digest[:12]}: archives that were begun with it are not continued"
    if found.digest == found.former_digest:
        changed = f"it had these heads, its digest stays {found.digest[:12]}"
    rows.append(f"{args.codec}: {len(found.explained)} coarse heads of {args.films} films; {changed}")
    emit(args, "\n".join(rows), asdict(found))
    return 0


def _find_step(args: argparse.Namespace) -> int:
    from engine.calibrate import calibrate_step
    from engine.code_step import FILMS, MOST_LOSS_DB

    step = calibrate_step(args.codec, args.rounding, films=FILMS if args.films is None else args.films)
    text = f"codes are stored as multiples of {step:g}, for less than {MOST_LOSS_DB} dB" if step else "codes are stored as they are"
    emit(args, f"{args.codec}: {text}", {"code_step": step})
    return 0
