"""`latentray bench`: runs the benchmarks, prints the machine and a table each, and keeps every run as JSON lines."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.inputs import Options
    from benchmarks.report import Row

HELP = "measure speed with quality beside it, side by side with what it is compared to"

BENCHMARKS = {
    "decode": "benchmarks.decode",
    "encode": "benchmarks.encode",
    "memory": "benchmarks.memory",
    "driver": "benchmarks.driver",
    "scale": "benchmarks.scale",
    "refine": "benchmarks.refine",
    "slots": "benchmarks.slots",
    "backends": "benchmarks.backends",
    "kernels": "benchmarks.kernel_ops",
    "train": "benchmarks.train",
    "quality": "benchmarks.quality",
    "directions": "benchmarks.directions",
    "class-optimisation": "benchmarks.class_optimisation",
    "systems": "benchmarks.systems",
    "gan-train": "benchmarks.gan_train",
}
RESULTS = Path(__file__).resolve().parent / "results"


class Benchmark(Protocol):
    """What an entry of the registry leads to: a module with these three names."""

    QUESTION: str
    TIMED: str

    def rows(self, options: Options) -> Iterator[Row]:
        """Measures, a row at a time; a step that fails is a row with its reason."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which benchmarks, on what, and where the results go."""
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run: {', '.join(BENCHMARKS)}; left out: all")
    parser.add_argument("--films", metavar="SOURCE", help="films as `encode` takes them; left out: those of LATENTRAY_FILMS, else phantoms")
    parser.add_argument("--codec", metavar="DIR", help="the codec (systems: or a folder of codecs); left out: a PCA codec, fitted once")
    parser.add_argument("--classifier", metavar="DIR", help="the classifier that judges films; left out: one beside the codecs, if any")
    parser.add_argument("--quick", action="store_true", help="few films and repeats, to see that everything runs; figures mean little")
    parser.add_argument("--nightly", action="store_true", help="the sizes of `make bench`: every benchmark on two cores in twenty minutes")
    parser.add_argument("--out", metavar="DIR", type=Path, default=RESULTS, help="where <machine>/<time>.jsonl goes")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A.jsonl", "B.jsonl"), help="two results side by side; measures nothing")


def run(args: argparse.Namespace) -> int:
    """Measures and prints; returns 1 when a step failed. A bar that was missed is said, not an error: speed depends on the machine."""
    from benchmarks.report import compare
    from engine.errors import ConfigError
    from engine.verbs.output import emit

    if args.compare:
        emit(args, compare(*args.compare), {"before": str(args.compare[0]), "after": str(args.compare[1])})
        return 0
    unknown = [name for name in args.names if name not in BENCHMARKS]
    if unknown:
        raise ConfigError(f"benchmarks are {', '.join(BENCHMARKS)}; there is no such one: {', '.join(unknown)}")
    return _measure(args)


def _measure(args: argparse.Namespace) -> int:
    from benchmarks.inputs import Options
    from benchmarks.machine import describe_machine, machine_folder, machine_line
    from benchmarks.report import write_results
    from engine.verbs.output import emit

    machine = describe_machine()
    print(machine_line(machine), flush=True)
    options = Options(films=args.films, codec=args.codec, classifier=args.classifier, quick=args.quick, nightly=args.nightly)
    rows: list[Row] = []
    for name in args.names or BENCHMARKS:
        rows += _run_one(name, options)
    path = write_results(args.out / machine_folder(machine), machine, rows, quick=args.quick)
    failed = sum(bool(row.failed) for row in rows)
    data: dict[str, Any] = {"results": str(path), "failed": failed, "machine": machine, "rows": [row.to_json() for row in rows]}
    emit(args, f"\nresults: {path}", data)
    return int(failed > 0)


def _run_one(name: str, options: Options) -> list[Row]:
    from importlib import import_module

    from benchmarks.commands import StepFailed
    from benchmarks.report import Row, table

    benchmark = cast("Benchmark", import_module(BENCHMARKS[name]))
    found: list[Row] = []
    try:
        found.extend(benchmark.rows(options))
    except StepFailed as error:  # while preparing: what was measured before it is kept
        found.append(Row(benchmark=name, step="preparation", failed=str(error)))
    failed = sum(bool(row.failed) for row in found)
    checks = f"{failed} of {len(found)} steps failed" if failed else "passed"
    print(f"\n{name}: {benchmark.QUESTION}\n{benchmark.TIMED}\nchecks: {checks}\n{table(found)}", flush=True)
    return found
