"""The turns of `bench encode`, in a process of their own: the job, its ceilings and its alternatives over the same films."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.commands import StepFailed
from benchmarks.job.conversion_loop import convert
from benchmarks.job.encode_stages import stage_times
from benchmarks.job.plain_script import PlainScript
from benchmarks.machine import cores
from benchmarks.timing import take_turns
from engine import metrics
from engine.archive.writer import finalise
from engine.cluster.driver import Driver
from engine.cluster.pools import InProcessPool, Pool, open_pool
from engine.decode.choose import Decoder, build_decoder
from engine.encode.codec import Codec, load_codec
from engine.job import JobConfig, job_config, open_job
from engine.records import ImageRef, ShardReceipt
from engine.replay import listed
from engine.source.opening import read_bytes
from engine.source.plan import Plan

DECODE, MODEL, ENCODE, PLAIN, LOOP = "decode only", "model only", "encode", "plain script", "published loop"
LONG_RUN = 10_000  # films of a run for which compiling pays, where a codec is heavy
FILM_SIZE, AT_ONCE = 1024, 4  # of quality


def take_measurements(
    *, source: str, archive: str, codec: str, beside: list[str], turns: int, workers: int, shard_rows: int, batch_size: int, steps: int
) -> dict[str, Any]:
    """Films a second of the job and of each step `beside` it, in turns over equal films; the first turn of all only warms up.

    Decoding alone has the threads that all workers have together. `steps`: of refinement, the job's and the loop's. Codes of the
    alternatives are left beside the archive as `<step>.pt`, those of one turn's films.
    """
    threads = max(cores(), workers)
    settings = {"workers": workers, "threads": threads // max(workers, 1), "shard_rows": shard_rows, "batch_size": batch_size}
    with open_job(job_config(source, archive, codec, metrics="none", refine_steps=steps, **settings)) as (asked, plan):
        job = replace(asked, engine=replace(asked.engine, films=LONG_RUN))
        return _Turns(job, plan, workers=workers, threads=threads, turns=turns).measure(beside)


class _Turns:
    """A pool of workers, a decoder of the same kind beside it, and equal shares of a plan, one for each turn."""

    def __init__(self, job: JobConfig, plan: Plan, *, workers: int, threads: int, turns: int) -> None:
        self._job, self._plan, self._workers, self._threads, self._turns = job, plan, workers, threads, turns
        self._codec = load_codec(job.engine.codec)
        self._shards = plan.num_shards // turns
        self._films = self._shards * plan.shard_rows
        self._receipts: list[ShardReceipt] = []
        self._pool: Pool = open_pool(job.engine, workers=workers, address=None)
        self._driver = Driver(self._pool, clean=lambda index: None, on_receipt=self._receipts.append)
        self._decoder = _decoder(job, self._codec, threads, film_size=None)

    def measure(self, beside: list[str]) -> dict[str, Any]:
        makers = {DECODE: self._decode_step, MODEL: self._model_step, PLAIN: self._plain_step, LOOP: self._loop_step}
        steps = {name: makers[name]() for name in beside if name in (DECODE, MODEL)} | {ENCODE: self._encode}
        steps |= {name: makers[name]() for name in beside if name not in steps}
        rates = take_turns(steps, repeats=self._turns - 1)
        self._decoder.close()
        self._pool.close()
        finalise(self._job.engine.archive)
        return self._found(rates)

    def _decode_step(self) -> Callable[[int], int]:
        return lambda turn: sum(len(batch.refs) for batch in self._decoder.batches(self._refs(turn)))

    def _encode(self, turn: int) -> int:
        before = len(self._receipts)
        self._driver.run(self._plan.shards(range(turn * self._shards, (turn + 1) * self._shards)))
        return sum(receipt.rows.get("ok", 0) for receipt in self._receipts[before:])

    def _model_step(self) -> Callable[[int], int]:
        """The job's own prepared encoder on batches that lie ready: the same ones, as often as it takes."""
        assert isinstance(self._pool, InProcessPool), "workers on Ray keep theirs to themselves"
        prepared, size = self._pool.flow.prepared, self._job.engine.batch_size
        ready = [batch.pixels for batch in islice(self._decoder.batches(self._refs(0)), 4) if len(batch.refs) == size]

        def run(turn: int) -> int:
            for at in range(self._films // size):
                prepared.encode(ready[at % len(ready)]).cpu()
            return self._films // size * size

        return run

    def _plain_step(self) -> Callable[[int], int]:
        script = PlainScript(self._paths(), self._codec, batch_size=self._job.engine.batch_size, workers=cores())
        return lambda turn: len(script.run(self._beside(PLAIN)))

    def _loop_step(self) -> Callable[[int], int]:
        settings = {"batch_size": self._job.engine.batch_size, "steps": self._job.engine.refine.steps}
        return lambda turn: len(convert(self._paths(), self._codec, self._beside(LOOP), **settings))

    def _refs(self, turn: int) -> list[ImageRef]:
        return [ref for shard in self._plan.shards(range(turn * self._shards, (turn + 1) * self._shards)) for ref in shard.refs]

    def _paths(self) -> list[str]:
        return [ref.uri for ref in self._refs(0)]

    def _beside(self, step: str) -> Path:
        return Path(self._job.engine.archive).with_name(f"{step}.pt")

    def _found(self, rates: dict[str, list[float]]) -> dict[str, Any]:
        receipts = self._receipts[self._shards :]  # the first turn's are left out
        made_by = receipts[0].made_by
        if {receipt.made_by["decoder"] for receipt in receipts} != {self._decoder.name}:
            raise StepFailed(f"the job did not decode with the decoder of its ceiling: {self._decoder.name}")
        films = self._films * (self._turns - 1)
        times = stage_times(
            receipts, wall=sum(self._films / rate for rate in rates[ENCODE]), threads=self._threads, lines=max(self._workers, 1)
        )
        a_film = {"busy": times.busy, "idle": times.idle()}
        settings = {name: made_by[name] for name in ("backend", "precision", "decoder", "batch_size")}
        settings |= {"threads": self._threads, "workers": self._workers, "films_a_turn": self._films, "shard_rows": self._plan.shard_rows}
        return {
            "rates": rates,
            "busy": times.shares(),
            "settings": settings
            | {
                f"ms_a_film_{kind}": {stage: round(1e3 * value / films, 3) for stage, value in all_.items()}
                for kind, all_ in a_film.items()
            },
        }


def measure_quality(*, source: str, codec: str, codes: str, film_size: int = FILM_SIZE) -> dict[str, float]:
    """Mean PSNR in dB and SSIM of films made of the codes in a file, row by row those of `source`, as `encode --metrics full` has it."""
    loaded, values = load_codec(codec), torch.load(codes, weights_only=True)
    with listed(source, id_from=None) as plan:
        refs = [ref for shard in plan.shards() for ref in shard.refs]
        decoder = _decoder(job_config(source, "none.zarr", codec, batch_size=AT_ONCE), loaded, cores(), film_size=film_size)
        found: list[tuple[Tensor, Tensor]] = []
        with torch.no_grad():
            for at, batch in enumerate(decoder.batches(refs)):
                assert batch.films is not None, "asked for by their size"
                made = loaded.generate(values[AT_ONCE * at : AT_ONCE * at + len(batch.refs)])
                rebuilt, films = metrics.to_unit(metrics.resize_film(made, film_size)), metrics.to_unit(batch.films)
                found.append((metrics.psnr(rebuilt, films), metrics.ssim(rebuilt, films)))
        decoder.close()
    psnr, ssim = (torch.cat(each).mean().item() for each in zip(*found, strict=True))
    return {"PSNR dB": psnr, "SSIM": ssim}


def _decoder(job: JobConfig, codec: Codec, threads: int, *, film_size: int | None) -> Decoder:
    cfg = job.engine
    read = partial(read_bytes, max_bytes=cfg.decode.max_bytes)
    return build_decoder(codec.recipe, replace(cfg.decode, threads=threads), read=read, batch_size=cfg.batch_size, film_size=film_size)
