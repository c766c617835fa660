"""source -> decode -> encode -> refine -> archive, for one shard, in one process. Read this file first."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine import metrics
from engine.archive.writer import ShardWriter
from engine.config import EngineConfig
from engine.decode.ahead import DecodeAhead
from engine.decode.choose import Decoder, build_decoder
from engine.encode.codec import Codec, load_codec
from engine.encode.compile import Prepared, prepare
from engine.records import Failure, ImageRef, LatentBatch, PixelBatch, Shard, ShardReceipt, Status
from engine.refine.descent import refine
from engine.rows import RowTable
from engine.source.opening import read_bytes

log = logging.getLogger(__name__)


class Flow:
    """The stages of one worker, built once; `encode` turns one shard of films into one committed shard of rows."""

    def __init__(self, cfg: EngineConfig, *, codec: Codec, prepared: Prepared, decoder: Decoder, writer: ShardWriter | None) -> None:
        self._cfg = cfg
        self._codec = codec
        self._prepared = prepared
        self._decoder = decoder
        self._writer = writer
        self._ahead = DecodeAhead(decoder)

    def encode(self, shard: Shard, *, following: Shard | None = None) -> ShardReceipt:
        """Runs a shard and publishes its rows. Rows in `shard.poison` are marked without being read.

        `following`, when it is known, is decoded while the last films of this shard are coded and its rows are written.
        """
        assert self._writer is not None, "this flow was built to rehearse"
        clock = StageClock()
        batches = self._ahead.take(shard)
        if following is not None:
            self._ahead.begin(following)
        rows = RowTable(shard, self._codec.code_shape, self._writer.latent_dtype)
        for ref in shard.refs:
            if ref.row in shard.poison:
                rows.fail(Failure(ref.row, ref.sample_id, Status.POISON, "worker", "the worker process died on this film twice"))
        self._run(batches, shard.refs, rows, clock)
        return self._writer.publish(shard, rows.finish(), made_by=self.made_by(), seconds=clock.seconds)

    def rehearse(self, refs: Sequence[ImageRef]) -> dict[str, float]:
        """Everything but the writing, for a time estimate or to find the film that kills a process; returns seconds by stage."""
        clock = StageClock()
        shard = Shard(index=0, refs=tuple(refs), digest="")
        self._run(self._decoder.batches(refs), refs, RowTable(shard, self._codec.code_shape, "f4"), clock)
        return clock.seconds

    def made_by(self) -> dict[str, Any]:
        """What a commit record says of this worker: host, backend, precision, device, decoder, parity figures."""
        return {
            "host": socket.gethostname(),
            "backend": self._prepared.backend,
            "precision": self._prepared.precision,
            "device": str(self._prepared.device),
            "decoder": self._decoder.name,
            "threads": torch.get_num_threads(),
            "batch_size": self._cfg.batch_size,
            "parity": self._prepared.parity,
        }

    def close(self) -> None:
        """Stops the decoder's threads."""
        self._ahead.close()
        self._decoder.close()

    def _run(self, batches: Iterable[PixelBatch], refs: Sequence[ImageRef], rows: RowTable, clock: StageClock) -> None:
        by_row = {ref.row: ref for ref in refs}
        for pixels in clock.timed("decode", batches):
            for failure in pixels.failures:
                rows.fail(failure)
            for row, info in pixels.failed_infos.items():
                rows.put_source(by_row[row], info)
            for ref, info in zip(pixels.refs, pixels.infos, strict=True):
                rows.put_source(ref, info)
            if pixels.refs:
                self._code_batch(pixels, rows, clock)
        if rows.errors and not rows.num_coded:  # not the films: the machine, the codec or our own code
            raise rows.errors[0]

    def _code_batch(self, pixels: PixelBatch, rows: RowTable, clock: StageClock) -> None:
        try:
            self._code(pixels, rows, clock)
        except torch.OutOfMemoryError:  # the machine's fault, never a film's
            raise
        except Exception as error:  # the one boundary: what a film does alone becomes its row
            if len(pixels.refs) == 1:
                self._refused(pixels.refs[0], error, rows)
                return
            log.warning("a batch of %d films failed, its films are tried one by one", len(pixels.refs), exc_info=True)
            for at in range(len(pixels.refs)):
                self._code_batch(_one(pixels, at), rows, clock)

    def _refused(self, ref: ImageRef, error: Exception, rows: RowTable) -> None:
        log.warning("film of row %d cannot be coded", ref.row, exc_info=error)
        # the message stays in the log: it may quote paths, and an archive holds none
        rows.fail(Failure(ref.row, ref.sample_id, Status.ENCODE_ERROR, "encode", f"the codec raised {type(error).__name__}"))
        rows.errors.append(error)

    def _code(self, pixels: PixelBatch, rows: RowTable, clock: StageClock) -> None:
        with clock.stage("encode"):
            start = self._start(pixels)
        kept = start
        if self._cfg.refine.steps:
            with clock.stage("refine"):
                kept = refine(self._prepared.generate_with_grad, self._codec.project, start, pixels, self._cfg.refine)
        stored = self._as_stored(kept.latents, rows)
        with clock.stage("metrics"):
            quality = self._quality(pixels, start, kept, stored, rows)
        finite = np.isfinite(stored.reshape(len(stored), -1)).all(axis=1)
        for at, ref in enumerate(pixels.refs):
            if not finite[at]:
                rows.fail(Failure(ref.row, ref.sample_id, Status.NONFINITE, "encode", "the code is not finite in the stored type"))
                continue
            rows.put_latent(ref, stored[at], int(kept.steps[at]), {name: float(values[at]) for name, values in quality.items()})
            if kept.stop and kept.stop[at] == "diverged":
                reason = "refinement met a loss that is not finite; the best finite code is kept"
                rows.fail(Failure(ref.row, ref.sample_id, Status.REFINE_DIVERGED, "refine", reason), keep_latent=True)

    def _start(self, pixels: PixelBatch) -> LatentBatch:
        n = len(pixels.refs)
        return LatentBatch(latents=self._prepared.encode(pixels.pixels), steps=torch.zeros(n, dtype=torch.int32))

    def _as_stored(self, latents: Tensor, rows: RowTable) -> np.ndarray[Any, Any]:
        with np.errstate(over="ignore"):  # beyond half precision becomes inf, and then a `nonfinite` row
            return latents.detach().float().cpu().numpy().astype(rows.columns["latent"].dtype)

    def _quality(
        self, pixels: PixelBatch, start: LatentBatch, kept: LatentBatch, stored: np.ndarray[Any, Any], rows: RowTable
    ) -> dict[str, Tensor]:
        if self._cfg.metrics == "none" or pixels.films is None:
            return {}
        films = metrics.to_unit(pixels.films.to(self._prepared.device))
        rebuilt = self._rebuild(stored, films.shape[-1])
        quality = {"mse": metrics.mse(rebuilt, films)}
        quality["mse_initial"] = quality["mse"]
        if kept is not start:
            quality["mse_initial"] = metrics.mse(self._rebuild(self._as_stored(start.latents, rows), films.shape[-1]), films)
        if self._cfg.metrics == "full":
            quality |= {"psnr": metrics.psnr_of_mse(quality["mse"]), "ssim": metrics.ssim(rebuilt, films)}
        return {name: values.cpu() for name, values in quality.items()}

    def _rebuild(self, stored: np.ndarray[Any, Any], size: int) -> Tensor:
        latents = torch.from_numpy(stored.astype(np.float32))
        return metrics.to_unit(metrics.resize_film(self._prepared.generate(latents), size))


def build_flow(cfg: EngineConfig, *, write: bool = True) -> Flow:
    """Loads the codec, prepares its backend behind the parity gate, and starts the decoder; raises here or never.

    With `write` False the flow can only `rehearse`, and no archive need exist.
    """
    codec = load_codec(cfg.codec)
    prepared = prepare(codec, backend=cfg.backend, precision=cfg.precision, batch_size=cfg.batch_size)
    decoder = build_decoder(
        codec.recipe,
        cfg.decode,
        read=partial(read_bytes, max_bytes=cfg.decode.max_bytes),
        batch_size=cfg.batch_size,
        film_size=None if cfg.metrics == "none" else cfg.film_size,
    )
    return Flow(cfg, codec=codec, prepared=prepared, decoder=decoder, writer=ShardWriter(cfg.archive) if write else None)


class StageClock:
    """Seconds spent in each stage; "decode" is the time that the flow waited for pixels, not the time that threads decoded."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of a `with` block to a stage."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start

    def timed(self, name: str, batches: Iterable[PixelBatch]) -> Iterator[PixelBatch]:
        """Passes `batches` on, adding the time that each one kept us waiting to a stage."""
        iterator = iter(batches)
        while True:
            with self.stage(name):
                batch = next(iterator, None)
            if batch is None:
                return
            yield batch


def _one(pixels: PixelBatch, at: int) -> PixelBatch:
    films = None if pixels.films is None else pixels.films[at : at + 1]
    return PixelBatch(refs=[pixels.refs[at]], pixels=pixels.pixels[at : at + 1], films=films, infos=[pixels.infos[at]])
