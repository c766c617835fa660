"""Everything there is to measure on a GPU in one command, on an image with torch, Triton, NumPy and safetensors alone.

    python -m benchmarks.gpu [--codec DIR --films FILE.npy]

Kernels (first whether they are right), steps technique by technique against the floor, time to quality, the backends' gate.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from benchmarks.commands import StepFailed, run_alone
from benchmarks.machine import describe_machine, machine_line
from benchmarks.plots import bars
from benchmarks.refinement import kernel_ops, to_quality, waterfall
from benchmarks.refinement.floor import image_steps_a_second, layers
from benchmarks.refinement.random_codec import SEGAL, random_codec, random_codes
from benchmarks.refinement.refine_rows import quality_rows, step_rows
from benchmarks.report import Bar, Row, checks, completed, table
from benchmarks.results_file import RESULTS, Head, add_rows, begin_results, seconds_table
from benchmarks.timing import spread
from engine.encode.codec import load_codec

NAME = "gpu"
plot = bars
QUESTION = (
    "On a GPU: how much faster are our steps than those of the published loop, how near the floor, and how much sooner are films done?"
)
TIMED = (
    "Timed: steps of one batch, all techniques in turns; then whole refinements, until each film is at the loss at which the published\n"
    "loop left it. Not timed, and in a column: tracing, compiling, the parity gate (ready s)."
)
BATCH, REPEATS = 32, 20
STEPS_BAR, FLOOR_BAR, TIME_BAR = (Bar(bound=bound, sense="at least") for bound in (5.0, 0.5, 25.0))
BAR = f"steps {STEPS_BAR}, of the floor {FLOOR_BAR}, time {TIME_BAR}"
SEEDS, WARM_UP = {"weights": 0, "starts": 3, "targets": 4, "films": 9}, 1
TINY_CHANNELS = [32, 32, 16, 8]
PUBLISHED_STEPS, FILMS = 100, 64


def main(argv: Sequence[str]) -> int:
    """Prints the machine and a table a part, writes the results, and returns 1 where a row failed."""
    args = _parser().parse_args(argv)
    machine = describe_machine()
    print(machine_line(machine), flush=True)
    settings = {"films": args.films and Path(args.films).name, "codec": args.codec and Path(args.codec).name}
    films = sha256(Path(args.films).read_bytes()).hexdigest() if args.films else ""
    head = Head.begin(machine, "quick" if args.tiny else "whole", settings=settings, films=films)
    results = begin_results(args.out, head)
    for name, module, part in PARTS:
        began = perf_counter()
        found = completed(list(part(args)), module)
        results = add_rows(results, name, found, perf_counter() - began)
        print(f"\n{name}\n{module.TIMED}\nchecks: {checks(found)}\n{table(found)}", flush=True)
    print(f"\n{seconds_table(results)}\n\nresults: {results.path}")
    return int(any(row.failed for row in results.rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Kernels, steps of refinement, and time to quality.")
    parser.add_argument("--codec", metavar="DIR", help="a trained codec with a progressive GAN's generator; left out: no time to quality")
    parser.add_argument("--films", metavar="FILE", help="float32 pixels [n, R, R] in [-1, 1] (.npy); left out: films that the codec made")
    parser.add_argument(
        "--tiny", action="store_true", help="tiny sizes, to see that everything runs, without a GPU too; figures mean nothing"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, default=RESULTS, help="where <machine>/<time>.jsonl goes")
    return parser


def _kernels(args: argparse.Namespace) -> Iterator[Row]:
    return kernel_ops.op_rows(everything=False, repeats=2 if args.tiny else REPEATS)


def _steps(args: argparse.Namespace) -> Iterator[Row]:
    """Techniques in turns with the published loop at its batch of 32, and the fastest against the floor."""
    settings: dict[str, Any] = {"channels": list(SEGAL), "batch": BATCH, "repeats": REPEATS, "names": list(waterfall.ON_CUDA)}
    probe: dict[str, Any] = {"repeats": 5}
    if args.tiny:
        settings |= {"channels": TINY_CHANNELS, "batch": 2, "repeats": 2}
        probe = {"repeats": 2, "matrix": 256, "copied": 2**20}
    try:
        found = run_alone("benchmarks.refinement.waterfall:measure", **settings)
        rates = run_alone("benchmarks.refinement.floor:measure", **probe)
    except StepFailed as error:
        yield Row(benchmark=NAME, step="steps", failed=str(error))
        return
    rows = list(step_rows(found, settings, bars={}, name=NAME))
    best = max((row for row in rows if row.values), key=lambda row: row.ratio or 0)
    yield from (replace(row, bar=STEPS_BAR) if row is best else row for row in rows)
    floor = image_steps_a_second(settings["channels"], flops=rates["flops"], bandwidth=rates["bandwidth"])
    counted = list(layers(settings["channels"]))
    yield Row(
        benchmark=NAME,
        step=f"floor, beside {best.step}",
        unit="image-steps/s",
        values=(floor,),
        value_of="whole",
        ratio=spread(best.values).median / floor,
        ratio_to="floor (ours to it)",
        bar=FLOOR_BAR,
        figures={
            "GFLOP": sum(layer.flops for layer in counted) / 1e9,
            "GB": sum(layer.bytes for layer in counted) / 1e9,
            "TFLOP/s": rates["flops"] / 1e12,
            "GB/s": rates["bandwidth"] / 1e9,
        },
    )


def _time_to_quality(args: argparse.Namespace) -> Iterator[Row]:
    settings: dict[str, Any] = {"steps": PUBLISHED_STEPS, "batch": BATCH, "repeats": 5, "names": list(to_quality.ON_CUDA)}
    if args.tiny:
        settings |= {"steps": 12, "batch": 4, "repeats": 2}
    if not args.codec and not args.tiny:
        yield Row(benchmark=NAME, step="time to the same loss", unavailable="needs a trained codec: --codec DIR")
        return
    with tempfile.TemporaryDirectory(prefix="latentray-") as scratch:
        films = args.films or _own_films(args, Path(scratch) / "films.npy")
        try:
            channels = None if args.codec else TINY_CHANNELS
            found = run_alone(
                "benchmarks.refinement.to_quality:measure", codec=args.codec or "", channels=channels, films=str(films), **settings
            )
        except StepFailed as error:
            yield Row(benchmark=NAME, step="time to the same loss", failed=str(error))
            return
    yield from quality_rows(found, settings | {"films": "given" if args.films else "the codec's own"}, bar=TIME_BAR, name=NAME)


def _own_films(args: argparse.Namespace, path: Path) -> Path:
    """Films of the codec's generator for other codes than any start: the reader of files is not on such an image."""
    codec = load_codec(args.codec) if args.codec else random_codec(tuple(TINY_CHANNELS))
    with torch.no_grad():
        films = [codec.generate(part)[:, 0] for part in torch.split(random_codes(codec, 8 if args.tiny else FILMS, seed=9), 8)]
    np.save(path, torch.cat(films).numpy())
    return path


PARTS: tuple[tuple[str, Any, Callable[[argparse.Namespace], Iterator[Row]]], ...] = (
    ("kernels", kernel_ops, _kernels),
    (f"{NAME}: steps", sys.modules[__name__], _steps),
    (f"{NAME}: time to quality", sys.modules[__name__], _time_to_quality),
)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
