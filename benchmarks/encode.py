"""How near the main job comes to its ceiling: encoding films against only decoding them, in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.commands import Finished, StepFailed, run_alone, run_latentray
from benchmarks.inputs import Options, codec_directory, film_files, line_up, say
from benchmarks.machine import cores
from benchmarks.report import Bar, Row
from benchmarks.timing import paired_ratio, take_turns
from engine.archive.reader import fingerprint_parts, open_archive
from engine.archive.writer import finalise
from engine.cluster.driver import Driver
from engine.cluster.pools import open_pool
from engine.decode.choose import build_decoder
from engine.encode.codec import load_codec
from engine.job import JobConfig, job_config, open_job
from engine.records import ShardReceipt
from engine.source.opening import read_bytes
from engine.source.plan import Plan

QUESTION = "How much of the decode-only rate is left when films are encoded, and their codes committed to an archive?"
TIMED = (
    "Timed, films/s: from the first shard submitted to the last commit. Not timed: the start of Python and Ray, loading the codec, making\n"
    "the archive, and a first turn of each. Timed, command s: the whole `latentray encode` over the films once, from start to exit."
)
NAME = "encode"
LEAST_RATIO = 0.7
LEAST_SHARDS = 4  # a turn, so that two workers have more than one each
REFERENCE = "reference.zarr"
CODE_TOLERANCE = 2e-3  # of the codes' root mean square: the rounding of the stored type, which may fall either way


def rows(options: Options) -> Iterator[Row]:
    """The ceiling and the job, in this process and with two Ray workers; quality and the whole command's wall time beside."""
    files, codec = film_files(options), codec_directory(options)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        bench = _Bench(Path(scratch), files, codec, repeats=2 if options.quick else 20)
        for workers in (0, 2):
            try:
                yield from bench.measure(workers)
            except StepFailed as error:
                yield Row(benchmark=NAME, step=_step(workers), failed=str(error))


def _step(workers: int) -> str:
    return f"encode --workers {workers}"


class _Bench:
    """The films once over, and the archive of their codes with every metric, that the timed archives must equal."""

    def __init__(self, folder: Path, files: list[Path], codec: str, *, repeats: int) -> None:
        self._folder, self._files, self._codec, self._repeats = folder, files, codec, repeats
        self._films = line_up(files, folder / "films", count=len(files))
        self._reference: Finished | None = None

    def measure(self, workers: int) -> Iterator[Row]:
        """The row of the ceiling and that of the job; raises StepFailed when an archive is not whole or holds other codes."""
        reference = self._measure_quality()
        say(f"encode: the whole command, --workers {workers}")
        command = self._encode(f"command-{workers}.zarr", "--workers", str(workers), "--metrics", "none")
        self._check(f"command-{workers}.zarr")
        say(f"encode: {self._repeats} turns of decoding and encoding, --workers {workers}")
        found = self._take_turns(f"timed-{workers}.zarr", workers)
        self._check(f"timed-{workers}.zarr")
        settings = {name: found[name] for name in ("decoder", "threads", "shard_rows", "films_a_turn")} | {"workers": workers}
        ceiling = f"decode only, beside --workers {workers}"
        yield Row(benchmark=NAME, step=ceiling, unit="films/s", values=tuple(found["decode"]), settings=settings)
        yield Row(
            benchmark=NAME,
            step=_step(workers),
            unit="films/s",
            values=tuple(found["encode"]),
            ratio=paired_ratio(found["encode"], found["decode"]),
            ratio_to="decode only",
            bar=Bar(bound=LEAST_RATIO, sense="at least"),
            quality={"PSNR dB": reference.report["psnr"], "SSIM": reference.report["ssim"]},
            figures={"command s": command.seconds} | ({"command MB": command.peak_mb} if command.peak_mb else {}),
            settings=settings | {"films": len(self._files), "ms_a_film_by_stage": found["ms_a_film_by_stage"]},
        )

    def _measure_quality(self) -> Finished:
        if self._reference is None:
            say("encode: quality of the codes, not timed")
            done = self._encode(REFERENCE, "--workers", "0", "--metrics", "full")
            if done.report["failed"]:
                raise StepFailed(f"films must all come through to be timed; these did not: {done.report['failed_by_reason']}")
            self._reference = done
        return self._reference

    def _encode(self, name: str, *settings: str) -> Finished:
        where = ("--archive", str(self._folder / name), "--codec", self._codec)
        return run_latentray("encode", str(self._films), *where, *settings, "--quiet", "--json")

    def _take_turns(self, name: str, workers: int) -> dict[str, Any]:
        shard_rows = int(fingerprint_parts(self._folder / REFERENCE)["shard_rows"])  # what the command chose for this many films
        shards = max(-(-len(self._files) // shard_rows), LEAST_SHARDS)
        films = line_up(self._files, self._folder / name.replace(".zarr", ""), count=shards * shard_rows * (self._repeats + 1))
        found: dict[str, Any] = run_alone(
            "benchmarks.encode:take_measurements",
            source=str(films),
            archive=str(self._folder / name),
            codec=self._codec,
            workers=workers,
            shard_rows=shard_rows,
            turns=self._repeats + 1,
        )
        return found

    def _check(self, name: str) -> None:
        """Verifies an archive and holds each of its codes against the reference's code of the same film."""
        run_latentray("verify", str(self._folder / name), "--level", "2")
        codes, expected = (open_archive(self._folder / each)["latent"].to_numpy().astype(np.float32) for each in (name, REFERENCE))
        expected = expected[np.arange(len(codes)) % len(expected)]
        difference = np.abs(codes - expected).max() / np.sqrt(np.square(expected).mean())
        if not difference <= CODE_TOLERANCE:
            raise StepFailed(f"codes of {name} differ from the reference by this part of their root mean square: {difference:.4f}")


def take_measurements(*, source: str, archive: str, codec: str, workers: int, shard_rows: int, turns: int) -> dict[str, Any]:
    """Films a second of decoding alone and of the job, in turns over the same films; the first turn of both only warms up.

    Decoding alone has the threads that all workers have together.
    """
    threads = max(cores(), workers)
    each = threads // max(workers, 1)
    with open_job(job_config(source, archive, codec, metrics="none", workers=workers, threads=each, shard_rows=shard_rows)) as (job, plan):
        return _measure(job, plan, workers=workers, threads=threads, turns=turns)


def _measure(job: JobConfig, plan: Plan, *, workers: int, threads: int, turns: int) -> dict[str, Any]:
    shard_rows = plan.shard_rows
    pool = open_pool(job.engine, workers=workers, address=None)
    receipts: list[ShardReceipt] = []
    driver = Driver(pool, clean=lambda index: None, on_receipt=receipts.append)
    decoder = build_decoder(
        load_codec(job.engine.codec).recipe,
        replace(job.engine.decode, threads=threads),
        read=partial(read_bytes, max_bytes=job.engine.decode.max_bytes),
        batch_size=job.engine.batch_size,
        film_size=None,
    )
    shards = plan.num_shards // turns

    def decode(turn: int) -> int:
        refs = [ref for shard in plan.shards(range(turn * shards, (turn + 1) * shards)) for ref in shard.refs]
        return sum(len(batch.refs) for batch in decoder.batches(refs))

    def encode(turn: int) -> int:
        before = len(receipts)
        driver.run(plan.shards(range(turn * shards, (turn + 1) * shards)))
        return sum(receipt.rows.get("ok", 0) for receipt in receipts[before:])

    rates = take_turns({"decode": decode, "encode": encode}, repeats=turns - 1)
    decoder.close()
    pool.close()
    finalise(job.engine.archive)
    if {receipt.made_by["decoder"] for receipt in receipts} != {decoder.name}:
        raise StepFailed(f"the job did not decode with the decoder of its ceiling: {decoder.name}")
    films = shards * shard_rows
    timed = receipts[shards:]
    stages = {name: 1e3 * sum(receipt.seconds[name] for receipt in timed) / (films * (turns - 1)) for name in timed[0].seconds}
    return {
        **rates,
        "decoder": decoder.name,
        "threads": threads,
        "shard_rows": shard_rows,
        "films_a_turn": films,
        "ms_a_film_by_stage": {name: round(value, 3) for name, value in stages.items()},
    }
