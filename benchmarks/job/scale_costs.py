"""What the large public collections would take: hours and bytes, at the rates of commands that run here and now."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.commands import run_latentray
from benchmarks.inputs import DEMO, Options, codec_directory, film_files, line_up, say
from benchmarks.machine import describe_machine
from benchmarks.report import Row, measured
from engine.archive.reader import archive_status

NAME = "scale"
COLLECTIONS = {"ChestX-ray14": 112_120, "CheXpert": 224_316, "MIMIC-CXR": 377_110}  # films


def cost_rows(options: Options) -> Iterator[Row]:
    """Each collection by the linear codec and the shipped deep one."""
    codec = codec_directory(options)
    counts = {codec: options.pick(quick=8, nightly=128, whole=1024), DEMO: options.pick(quick=0, nightly=4, whole=48)}
    gpus = len(describe_machine()["gpus"])
    for each, count in counts.items():
        if count:
            yield from _of_codec(options, each, count, gpus)
    if not gpus:
        yield Row(benchmark=NAME, step="GPU-hours of the collections", unavailable="needs a CUDA device")


def _of_codec(options: Options, codec: str, count: int, gpus: int) -> Iterator[Row]:
    name = Path(codec).name
    say(f"scale: costs by {name}, from {count} films")
    warm_up, repeats = options.pick(quick=(0, 1), nightly=(0, 1), whole=(1, 3))
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        manifest = line_up(film_files(options), Path(folder) / "films", count=count)
        found = measured(NAME, f"films/s by {name}", _encode, manifest, codec, count, warm_up, repeats)
    yield found
    for collection, films in COLLECTIONS.items():
        step = f"{collection}, {films:,} films, by {name}"
        if found.reason:
            yield Row(benchmark=NAME, step=step, failed=found.failed)
            continue
        hours = tuple(films / rate / 3600 for rate in found.values)
        yield Row(
            benchmark=NAME,
            step=step,
            unit="hours",
            values=hours,
            quality=found.quality,
            figures={"GB": films * found.figures["bytes/row"] / 1e9} | ({"GPU-hours": gpus * min(hours)} if gpus else {}),
            settings=found.settings,
        )


def _encode(manifest: Path, codec: str, count: int, warm_up: int, repeats: int) -> Row:
    """Films a second of `encode` without metrics, in one process, in one shard where it can be, and the bytes of its archive."""
    rates = []
    for turn in range(warm_up + repeats):
        archive = str(manifest.with_name(f"{turn}.zarr"))
        words = ("--codec", codec, "--metrics", "none", "--workers", "0", "--shard-rows", str(count))
        report = run_latentray("encode", str(manifest), "--archive", archive, *words, "--json").report
        rates.append(float(report["images_per_second"]))
    status = archive_status(archive)
    return Row(
        benchmark=NAME,
        step=f"films/s by {Path(codec).name}",
        unit="films/s",
        values=tuple(rates[warm_up:]),
        quality={"films ok": status["ok"]},
        figures={"bytes/row": status["bytes"] / count},
        settings={"films": count, "metrics": "none", "workers": 0},
        warm_up=warm_up,
    )
