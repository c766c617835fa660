"""source -> decode -> encode -> refine -> archive, for one shard, in one process. Read this file first."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine import metrics
from engine.archive.root import fingerprint_parts
from engine.archive.schema import RowArray
from engine.archive.writer import ShardWriter
from engine.code_step import as_stored
from engine.coded import CodedBatch, Guarded
from engine.config import EngineConfig
from engine.decode.ahead import DecodeAhead
from engine.decode.choose import Decoder, build_decoder
from engine.decompose import Decomposer, Maps, Parts, describe_maps
from engine.encode.codec import Codec, load_codec
from engine.encode.compile import Prepared, prepare
from engine.errors import FingerprintMismatch
from engine.film_layer import FilmLayers, LayerRow
from engine.records import Failure, ImageRef, PixelBatch, Shard, ShardReceipt, Status
from engine.refine.descent import Film
from engine.refiner import Refiner, build_refiner, weights_of
from engine.rows import RowTable
from engine.source.kept_bytes import KeptBytes
from engine.source.opening import read_bytes
from engine.stage_clock import StageClock
from engine.workload import film_gigaflops

log = logging.getLogger(__name__)

MOST_KEPT_BYTES = 2**28  # of files that were decoded and wait for their layer
# Never a film's fault, and each call after it fails as well: the shard is left to another attempt, and then to another machine.
MACHINE_FAULTS = (torch.OutOfMemoryError, torch.AcceleratorError)


class Flow:
    """The stages of one worker, built once; `encode` turns one shard of films into one committed shard of rows."""

    def __init__(
        self,
        cfg: EngineConfig,
        *,
        codec: Codec,
        prepared: Prepared,
        refiner: Refiner | None,
        decoder: Decoder,
        writer: ShardWriter | None,
        decomposer: Decomposer | None = None,
        layers: FilmLayers | None = None,
    ) -> None:
        self.prepared, self.refiner = prepared, refiner
        self._cfg = cfg
        self._codec = codec
        self._decoder = decoder
        self._writer = writer
        self._decomposer, self._layers = decomposer, layers
        self._ahead = DecodeAhead(decoder, batch_size=cfg.batch_size)

    def encode(self, shard: Shard, *, following: Sequence[Shard] = ()) -> ShardReceipt:
        """Runs a shard and publishes its rows. Rows in `shard.poison` are marked without being read.

        `following`, those that are known, are decoded while the last films of this shard are coded and its rows are written.
        """
        assert self._writer is not None, "this flow was built to rehearse"
        clock = StageClock()
        batches = self._ahead.take(shard)
        self._ahead.begin(*following)
        rows = RowTable(shard, self._codec.code_shape, self._writer.latent_dtype, self._further)
        for ref in shard.refs:
            if ref.row in shard.poison:
                rows.fail(Failure(ref.row, ref.sample_id, Status.POISON, "worker", "the worker process died on this film twice"))
        self._run(batches, shard.refs, rows, clock, self.refiner)
        made_by = self.made_by() | {"thread_seconds": clock.threads}
        return self._writer.publish(shard, rows.finish(), made_by=made_by, seconds=clock.seconds)

    def rehearse(self, refs: Sequence[ImageRef], *, refined: bool = True) -> dict[str, float]:
        """Everything but the writing, for a time estimate or to find the film that kills a process; returns seconds by stage.

        With `refined` False the codes of the encoder stand, whatever refinement was asked for.
        """
        clock = StageClock()
        shard = Shard(index=0, refs=tuple(refs), digest="")
        rows = RowTable(shard, self._codec.code_shape, "f4", self._further)
        self._run(self._decoder.batches(refs), refs, rows, clock, self.refiner if refined else None)
        return clock.seconds

    def made_by(self) -> dict[str, Any]:
        """What a commit record says of this worker: host, backend, precision, device, decoder, parity figures."""
        return {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "backend": self.prepared.backend,
            "precision": self.prepared.precision,
            "device": str(self.prepared.device),
            "decoder": self._decoder.name,
            "threads": torch.get_num_threads(),
            "batch_size": self._cfg.batch_size,
            "parity": self.prepared.parity | ({} if self.refiner is None else {"refine": self.refiner.parity}),
        }

    @property
    def _further(self) -> dict[str, RowArray]:
        return {name: array for part in (self._decomposer, self._layers) if part is not None for name, array in part.arrays.items()}

    def close(self) -> None:
        """Stops the decoder's threads."""
        self._ahead.close()
        self._decoder.close()
        if self._layers is not None:
            self._layers.close()

    def _run(
        self, batches: Iterable[PixelBatch], refs: Sequence[ImageRef], rows: RowTable, clock: StageClock, refiner: Refiner | None
    ) -> None:
        coded = self._encoded(batches, {ref.row: ref for ref in refs}, rows, clock)
        for batch in coded if refiner is None else self._refined(coded, refiner, rows, clock):
            self._film_by_film(batch, rows, lambda some: self._store(some, rows, clock))
        if rows.errors and not rows.num_coded:  # not the films: the machine, the codec or our own code
            raise rows.errors[0]

    def _encoded(
        self, batches: Iterable[PixelBatch], refs: Mapping[int, ImageRef], rows: RowTable, clock: StageClock
    ) -> Iterator[CodedBatch]:
        """Each batch with the codes that its encoder gives; what could not be decoded becomes rows here."""
        for pixels in clock.timed("decode", batches):
            clock.add_threads(pixels.seconds)
            for failure in pixels.failures:
                rows.fail(failure)
            for row, info in pixels.failed_infos.items():
                rows.put_source(refs[row], info)
            for ref, info in zip(pixels.refs, pixels.infos, strict=True):
                rows.put_source(ref, info)
            if pixels.refs:
                coded: list[CodedBatch] = []
                with clock.stage("encode"):
                    batch = CodedBatch(refs=pixels.refs, pixels=pixels.pixels, films=pixels.films)
                    self._film_by_film(batch, rows, partial(self._start, coded))
                yield from coded

    def _start(self, coded: list[CodedBatch], batch: CodedBatch) -> None:
        coded.append(batch.start_from(self.prepared.encode(batch.pixels)))

    def _refined(self, coded: Iterable[CodedBatch], refiner: Refiner, rows: RowTable, clock: StageClock) -> Iterator[CodedBatch]:
        """The same films with better codes, in batches of those that end together."""
        flying: dict[Hashable, CodedBatch] = {}

        def films() -> Iterator[Film]:
            for batch in coded:
                for one in batch.apart():
                    flying[one.refs[0].row] = one.on_its_own()
                    yield flying[one.refs[0].row].to_film()

        ended: list[CodedBatch] = []
        for film in clock.timed("refine", self._tried(refiner, films(), flying, rows)):
            ended.append(flying.pop(film.key).refined_to(film))
            if len(ended) == self._cfg.batch_size:
                yield CodedBatch.together(ended)
                ended = []
        if ended:
            yield CodedBatch.together(ended)

    def _tried(self, refiner: Refiner, films: Iterator[Film], flying: dict[Hashable, CodedBatch], rows: RowTable) -> Iterator[Film]:
        """`refiner.run`, but what a film does to it alone becomes its row: those in flight when it raised are tried one by one."""
        source = Guarded(films)
        while not source.is_over:
            try:
                yield from refiner.run(source, at_most=rows.num_rows)
            except MACHINE_FAULTS:
                raise
            except Exception:
                if source.error is not None:  # not the refinement: what it takes its films from
                    raise
                log.warning("refinement failed with %d films on their way, they are tried one by one", len(flying), exc_info=True)
                for one in list(flying.values()):
                    done: list[Film] = []
                    self._film_by_film(one, rows, lambda some: done.extend(refiner.run([some.to_film()], at_most=rows.num_rows)))  # noqa: B023
                    yield from done
                    flying.pop(one.refs[0].row, None)

    def _film_by_film(self, batch: CodedBatch, rows: RowTable, work: Callable[[CodedBatch], None]) -> None:
        """Does the work on a batch, and where it raises, on each film alone. The one boundary: what a film does alone becomes its row."""
        try:
            work(batch)
        except MACHINE_FAULTS:
            raise
        except Exception as error:
            if len(batch.refs) == 1:
                self._refused(batch.refs[0], error, rows)
                return
            log.warning("a batch of %d films failed, its films are tried one by one", len(batch.refs), exc_info=True)
            for one in batch.apart():
                self._film_by_film(one, rows, work)

    def _refused(self, ref: ImageRef, error: Exception, rows: RowTable) -> None:
        log.warning("film of row %d cannot be coded", ref.row, exc_info=error)
        # the message stays in the log: it may quote paths, and an archive holds none
        rows.fail(Failure(ref.row, ref.sample_id, Status.ENCODE_ERROR, "encode", f"the codec raised {type(error).__name__}"))
        rows.errors.append(error)

    def _store(self, batch: CodedBatch, rows: RowTable, clock: StageClock) -> None:
        kept = batch.kept
        stored = self._as_stored(kept.latents, rows)
        parts = self._parts(stored, clock)
        with clock.stage("metrics"):
            quality = self._quality(batch, stored, parts, rows)
        maps = self._maps(batch, parts, rows, clock)
        layers = self._coded_films(batch, stored, rows, clock)
        finite = np.isfinite(stored.reshape(len(stored), -1)).all(axis=1)
        for at, ref in enumerate(batch.refs):
            fault = maps.faults[at] if finite[at] else (Status.NONFINITE, "the code is not finite in the stored type")
            if fault is not None:
                rows.fail(Failure(ref.row, ref.sample_id, fault[0], "encode", fault[1]))
                continue
            if layers[at].fault:
                rows.fail(Failure(ref.row, ref.sample_id, Status.ENCODE_ERROR, "fidelity", layers[at].fault))
                continue
            rows.put_further(ref, {name: values[at] for name, values in maps.arrays.items()} | layers[at].values)
            rows.put_latent(ref, stored[at], int(kept.steps[at]), {name: float(values[at]) for name, values in quality.items()})
            if kept.stop and kept.stop[at] == "diverged":
                reason = "refinement met a loss that is not finite; the best finite code is kept"
                rows.fail(Failure(ref.row, ref.sample_id, Status.REFINE_DIVERGED, "refine", reason), keep_latent=True)

    def _parts(self, stored: np.ndarray[Any, Any], clock: StageClock) -> Parts | None:
        if self._decomposer is None:
            return None
        with clock.stage("maps"):
            return self._decomposer.parts(torch.from_numpy(stored.astype(np.float32)))

    def _maps(self, batch: CodedBatch, parts: Parts | None, rows: RowTable, clock: StageClock) -> Maps:
        if self._decomposer is None or parts is None:
            return Maps(arrays={}, faults=[None] * len(batch.refs))
        with clock.stage("maps"):
            sources = [rows.source_size(ref) for ref in batch.refs]
            return self._decomposer.maps(parts, batch.pixels, [ref.sample_id for ref in batch.refs], sources)

    def _coded_films(self, batch: CodedBatch, stored: np.ndarray[Any, Any], rows: RowTable, clock: StageClock) -> list[LayerRow]:
        if self._layers is None:
            return [LayerRow({})] * len(batch.refs)
        with clock.stage("fidelity"):
            return self._layers.rows(batch.refs, [rows.source_digest(ref) for ref in batch.refs], stored)

    def _as_stored(self, latents: Tensor, rows: RowTable) -> np.ndarray[Any, Any]:
        """What is beyond half precision becomes infinite, and then a `nonfinite` row."""
        return as_stored(latents, rows.columns["latent"].dtype, self._cfg.code_step)

    def _quality(self, batch: CodedBatch, stored: np.ndarray[Any, Any], parts: Parts | None, rows: RowTable) -> dict[str, Tensor]:
        if self._cfg.metrics == "none" or batch.films is None:
            return {}
        films = metrics.to_unit(batch.films.to(self.prepared.device))
        made = self._generate(stored) if parts is None or parts.films is None else parts.films
        rebuilt = _to_measure(made, films.shape[-1])
        quality = {"mse": metrics.mse(rebuilt, films)}
        quality["mse_initial"] = quality["mse"]
        if batch.kept.latents is not batch.start:
            quality["mse_initial"] = metrics.mse(_to_measure(self._generate(self._as_stored(batch.start, rows)), films.shape[-1]), films)
        if self._cfg.metrics == "full":
            quality |= {"psnr": metrics.psnr_of_mse(quality["mse"]), "ssim": metrics.ssim(rebuilt, films)}
        return {name: values.cpu() for name, values in quality.items()}

    def _generate(self, stored: np.ndarray[Any, Any]) -> Tensor:
        return self.prepared.generate(torch.from_numpy(stored.astype(np.float32)))


def _to_measure(pixels: Tensor, size: int) -> Tensor:
    return metrics.to_unit(metrics.resize_film(pixels, size))


def build_flow(cfg: EngineConfig, *, write: bool = True) -> Flow:
    """Loads the codec, prepares its backend behind the parity gate, and starts the decoder; raises here or never.

    With `write` False the flow can only `rehearse`, and no archive need exist.
    """
    codec = load_codec(cfg.codec)
    if write:
        _check_codec(cfg, codec)
    work = cfg.films * film_gigaflops(codec, cfg.refine) if cfg.films else 0.0
    prepared = prepare(
        codec,
        backend=cfg.backend,
        precision=cfg.precision,
        batch_size=cfg.batch_size,
        gigaflops=work,
        makes_films=cfg.metrics != "none" or cfg.refine.steps > 0,
    )
    refiner = build_refiner(prepared, cfg.refine) if cfg.refine.steps else None
    has_layers = cfg.fidelity.target != "none"
    films = KeptBytes(partial(read_bytes, max_bytes=cfg.decode.max_bytes), most_bytes=MOST_KEPT_BYTES if has_layers else 0)
    decoder = build_decoder(
        codec.recipe,
        cfg.decode,
        read=films.first,
        batch_size=cfg.batch_size,
        film_size=None if cfg.metrics == "none" else cfg.film_size,
    )
    return Flow(
        cfg,
        codec=codec,
        prepared=prepared,
        refiner=refiner,
        decoder=decoder,
        writer=ShardWriter(cfg.archive) if write else None,
        decomposer=None if cfg.maps is None else Decomposer(codec, cfg.maps, precision=prepared.precision),
        layers=FilmLayers(cfg.fidelity, cfg.decode, codec, read=films.again) if has_layers else None,
    )


def _check_codec(cfg: EngineConfig, codec: Codec) -> None:
    """Raises FingerprintMismatch where this worker found another codec, or other weights of the loss, than the archive was begun with.

    It may run on another machine, or long after: a codec directory can be replaced, and weights are looked for where it runs.
    """
    parts = fingerprint_parts(cfg.archive)
    found = {"codec": codec.digest, "weights of the loss": weights_of(cfg.refine) if cfg.refine.steps else {}}
    begun = {"codec": parts["codec"]["digest"], "weights of the loss": parts["refine"].get("perceptual", {})}
    found["maps"], begun["maps"] = describe_maps(cfg.maps) if cfg.maps else {}, parts.get("maps", {})
    other = [name for name in found if found[name] != begun[name]]
    if other:
        raise FingerprintMismatch(f"a worker found other files than the archive was begun with ({', '.join(other)}): {cfg.archive}")
