"""`latentray bench`: lists the benchmarks, runs them, compares two of their files, and writes the page of all that was found."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.registry import ALL, BENCHMARKS

if TYPE_CHECKING:
    from benchmarks.inputs import Options
    from benchmarks.results_file import Results

HELP = "measure speed with quality beside it, side by side with what it is compared to"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which benchmarks, on what, and where the results go."""
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run: {', '.join(BENCHMARKS)}, or {ALL}; left out: lists them")
    parser.add_argument("--films", metavar="SOURCE", help="films as `encode` takes them; left out: those of LATENTRAY_FILMS, else phantoms")
    parser.add_argument("--codec", metavar="DIR", help="the codec (systems: or a folder of codecs); left out: a PCA codec, fitted once")
    parser.add_argument("--classifier", metavar="DIR", help="the classifier that judges films; left out: one beside the codecs, if any")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="few films and repeats, to see that everything runs; figures mean little")
    size.add_argument("--nightly", action="store_true", help="the sizes of `make bench`: every benchmark on two cores in twenty minutes")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="run all of it N times, and put what differs into the spread")
    parser.add_argument("--twice", action="store_true", help="measure, measure again, and compare the two")
    parser.add_argument("--out", metavar="DIR", type=Path, help="where <machine>/<time>.jsonl goes; left out: benchmarks/results")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A.jsonl", "B.jsonl"), help="two results side by side; measures nothing")
    parser.add_argument("--page", action="store_true", help="write benchmarks/README.md and the README's tables from the newest results")


def run(args: argparse.Namespace) -> int:
    """Does what was asked; returns 1 when a step failed. A bar that was missed is said, not an error: speed depends on the machine."""
    from benchmarks.inputs import Options
    from engine.errors import ConfigError

    if args.rounds < 1:
        raise ConfigError(f"--rounds must be 1 or more: {args.rounds}")
    if args.page:
        return _write_page(args)
    if args.compare:
        return _compare(args, *args.compare)
    options = Options(films=args.films, codec=args.codec, classifier=args.classifier, quick=args.quick, nightly=args.nightly)
    return _measure(args, options) if args.names else _list(args, options)


def _list(args: argparse.Namespace, options: Options) -> int:
    from dataclasses import asdict

    from benchmarks.registry import entries
    from engine.verbs.output import emit

    found = entries(options)
    told = [f"{each.name}: {each.question}\n    bar: {each.bar or 'none'}\n    here: {each.lacking or 'yes'}" for each in found]
    ending = f"\n`latentray bench NAME ...` runs some, `latentray bench {ALL}` all of them"
    emit(args, "\n".join([*told, ending]), {"benchmarks": [asdict(each) for each in found]})
    return 0


def _measure(args: argparse.Namespace, options: Options) -> int:
    from benchmarks.registry import chosen
    from benchmarks.results_file import RESULTS
    from benchmarks.rounds import measure
    from engine.verbs.output import emit

    names = chosen(args.names)
    found: list[Results] = []
    for _ in range(2 if args.twice else 1):
        found.append(measure(names, options, rounds=args.rounds, out=args.out or RESULTS, show=lambda text: print(text, flush=True)))
        failed = sum(bool(row.failed) for row in found[-1].rows)
        data: dict[str, Any] = {"results": str(found[-1].path), "failed": failed, "seconds": found[-1].head.seconds}
        data |= {"machine": found[-1].head.machine, "rows": [row.to_json() for row in found[-1].rows]}
        emit(args, f"\nresults: {found[-1].path}", data)
    if args.twice:
        _compare(args, *(each.path for each in found))
    return int(any(row.failed for each in found for row in each.rows))


def _compare(args: argparse.Namespace, before: Path, after: Path) -> int:
    from dataclasses import asdict

    from benchmarks.comparison import compare, told
    from benchmarks.results_file import read_results
    from engine.verbs.output import emit

    pair = read_results(before), read_results(after)
    emit(args, told(*pair), {"before": str(before), "after": str(after), "rows": [asdict(each) for each in compare(*pair)]})
    return 0


def _write_page(args: argparse.Namespace) -> int:
    from benchmarks.page import write_page
    from engine.verbs.output import emit

    written = write_page()
    emit(args, "\n".join(f"written: {path}" for path in written), {"written": [str(path) for path in written]})
    return 0
