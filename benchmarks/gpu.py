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
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from benchmarks import kernel_ops, to_quality, waterfall
from benchmarks.commands import StepFailed, run_alone
from benchmarks.floor import image_steps_a_second, layers
from benchmarks.machine import describe_machine, machine_folder, machine_line
from benchmarks.random_codec import SEGAL, random_codec, random_codes
from benchmarks.refine_rows import quality_rows, step_rows
from benchmarks.report import Bar, Row, table, write_results
from benchmarks.timing import spread
from engine.encode.codec import load_codec

NAME = "gpu"
TIMED = {
    "kernels": kernel_ops.TIMED,
    "steps": "Timed: steps of one batch, all techniques in turns. Not timed: tracing, compiling, the parity gate (ready s).",
    "time to quality": "Timed: whole refinements, until each film is at the loss at which the published loop left it. Not timed: as above.",
}
RESULTS = Path(__file__).resolve().parent / "results"
BATCH, REPEATS = 32, 20
STEPS_BAR, FLOOR_BAR, TIME_BAR = (Bar(bound=bound, sense="at least") for bound in (5.0, 0.5, 25.0))
TINY_CHANNELS = [32, 32, 16, 8]
PUBLISHED_STEPS, FILMS = 100, 64


def main(argv: Sequence[str]) -> int:
    """Prints the machine and a table a part, writes the results, and returns 1 where a row failed."""
    args = _parser().parse_args(argv)
    began = perf_counter()
    machine = describe_machine()
    print(machine_line(machine), flush=True)
    rows: list[Row] = []
    parts: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
        "kernels": _kernels,
        "steps": _steps,
        "time to quality": _time_to_quality,
    }
    for name, part in parts.items():
        found = list(part(args))
        rows += found
        failed = sum(bool(row.failed) for row in found)
        checks = f"{failed} of {len(found)} steps failed" if failed else "passed"
        seconds = perf_counter() - began
        print(f"\n{name} ({seconds:.0f} s since the start)\n{TIMED[name]}\nchecks: {checks}\n{table(found)}", flush=True)
    path = write_results(args.out / machine_folder(machine), machine, rows, quick=args.tiny)
    print(f"\nresults: {path}")
    return int(any(row.failed for row in rows))


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
        found = run_alone("benchmarks.waterfall:measure", **settings)
        rates = run_alone("benchmarks.floor:measure", **probe)
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
            found = run_alone("benchmarks.to_quality:measure", codec=args.codec or "", channels=channels, films=str(films), **settings)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
