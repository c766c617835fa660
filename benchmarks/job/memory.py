"""Whether memory stays flat: the peak of the `encode` command over ten times as many films."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.commands import Finished, StepFailed, run_latentray
from benchmarks.inputs import Options, codec_directory, film_files, line_up, say
from benchmarks.report import Bar, Row, measured

QUESTION = (
    "Does memory grow with the data set? Each process's own peak of resident memory, added up over the `encode` command and its children."
)
TIMED = "Weighed: VmHWM of each process from start to exit of the command; pages that processes share count in each."
NAME = "memory"
MOST_RATIO = 1.10
MEMORY_BAR = Bar(bound=MOST_RATIO, sense="at most")
BAR = f"ratio {MEMORY_BAR}, of ten times as many films to few"
WARM_UP = 0


def rows(options: Options) -> Iterator[Row]:
    """Few films, then ten times as many, in process and with Ray workers."""
    few, many, repeats = options.pick(quick=(8, 24, 1), nightly=(100, 1000, 1), whole=(200, 2000, 3))
    files, codec = film_files(options), codec_directory(options)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = Path(scratch)
        manifests = {count: line_up(files, folder / f"films-{count}", count=count) for count in (few, many)}
        for workers in (0,) if options.quick else (0, 2):
            small = measured(NAME, _step(workers, few), _row, manifests[few], few, codec, workers, repeats)
            yield small
            yield _against(small, measured(NAME, _step(workers, many), _row, manifests[many], many, codec, workers, 1))


def _step(workers: int, films: int) -> str:
    return f"--workers {workers}, {films:,} films"


def _row(manifest: Path, films: int, codec: str, workers: int, repeats: int) -> Row:
    found = []
    for _ in range(repeats):
        say(f"memory: encode {_step(workers, films)}")
        with tempfile.TemporaryDirectory(dir=manifest.parent) as scratch:
            archive = str(Path(scratch) / "memory.zarr")
            settings = ("--archive", archive, "--codec", codec, "--metrics", "none", "--workers", str(workers), "--quiet", "--json")
            found.append(run_latentray("encode", str(manifest), *settings))
    return Row(
        benchmark=NAME,
        step=_step(workers, films),
        unit="MB",
        values=tuple(_peak(done) for done in found),
        quality={"films ok": min(done.report["ok"] for done in found)},
        figures={"processes": max(done.processes for done in found)},
        settings={"workers": workers},
    )


def _peak(done: Finished) -> float:
    if done.peak_mb is None:
        raise StepFailed("this system has no /proc to read memory from")
    return done.peak_mb


def _against(small: Row, large: Row) -> Row:
    if small.failed or large.failed:
        return large
    ratio = median(large.values) / median(small.values)
    return replace(large, ratio=ratio, ratio_to=small.step, bar=MEMORY_BAR)
