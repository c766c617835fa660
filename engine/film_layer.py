"""The second layer of an archive: each film itself to a promised error, or exactly, beside its code. Rows, coding, and the way back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.archive.reader import read_values
from engine.archive.schema import BYTES, RowArray
from engine.code_step import as_stored
from engine.config import DecodeConfig, EngineConfig, FidelityConfig
from engine.decode.choose import build_decoder
from engine.decode.stored import SampleReader
from engine.encode.codec import Codec
from engine.errors import ArchiveError, ConfigError, LayerError, RowError
from engine.fidelity.choose import Choice, choose_way
from engine.fidelity.decode import decode_layer, layer_info
from engine.fidelity.encode import Layer, encode_film
from engine.fidelity.planes import max_error_of, psnr_of
from engine.fidelity.region import Region, mask_region, parse_box
from engine.fidelity.target import Target, parse_target
from engine.fidelity.way import Way, default_way
from engine.prediction import Gray, film_of_code, predict
from engine.recipe import PixelRecipe
from engine.records import FilmSamples, ImageRef, is_box
from engine.replay import Replay
from engine.source.opening import read_bytes

LAYER_VERSION = 1
PSNR_TOLERANCE = 0.05  # dB
KINDS = ("none", "film", "residual", "max-error", "lossless")
FILMS_TO_CHOOSE = 8
Read = Callable[[str], bytes]


def layer_arrays() -> dict[str, RowArray]:
    """The arrays that an archive with a layer has beside those of every archive; rows without a layer hold fill."""
    kinds = {"flag_values": list(range(len(KINDS))), "flag_meanings": " ".join(KINDS)}
    psnr = {"long_name": "PSNR of the layer at the film's own size and depth, infinite where it is exact", "units": "dB"}
    return {
        "layer": RowArray(dtype=BYTES, attributes={"long_name": "the film as engine/fidelity codes it"}),
        "layer_kind": RowArray(dtype="u1", attributes={"long_name": "what the layer holds", **kinds}),
        "layer_psnr": RowArray(dtype="f4", attributes=psnr),
        "layer_bytes": RowArray(dtype="u4", attributes={"long_name": "size of the layer", "units": "byte"}),
        "layer_met": RowArray(dtype="u1", attributes={"long_name": "1 where the layer keeps what was promised"}),
    }


def describe_fidelity(cfg: FidelityConfig) -> dict[str, Any]:
    """What decides the layers, for the fingerprint."""
    return {"version": LAYER_VERSION, "target": str(parse_target(cfg.target)), "way": way_of(cfg).to_json(), "strict": cfg.strict}


def way_of(cfg: FidelityConfig) -> Way:
    """The way that was chosen, or what is taken where nothing was measured."""
    return Way.from_json(cfg.way) if cfg.way else default_way(parse_target(cfg.target))


def choose(refs: Sequence[ImageRef], codec: Codec, cfg: EngineConfig, *, dtype: str) -> Choice:
    """The way of an archive whose codes are stored as `dtype`, measured on these films of it; those that cannot be read are left out."""
    target, reader = parse_target(cfg.fidelity.target), FilmReader(cfg.decode, codec.recipe)
    try:
        films = dict(_readable(refs, reader))
    finally:
        reader.close()
    predictions: dict[int, Gray] = {}
    if target.kind in ("psnr", "bytes") and codec.has_encoder:
        read = partial(read_bytes, max_bytes=cfg.decode.max_bytes)
        decoder = build_decoder(codec.recipe, cfg.decode, read=read, batch_size=max(1, len(refs)), film_size=None)
        try:
            for batch in decoder.batches([ref for ref in refs if ref.row in films]):
                for ref, made in zip(batch.refs, _films_again(codec, batch.pixels, np.dtype(dtype), cfg.code_step), strict=True):
                    predictions[ref.row] = predict(made, films[ref.row].samples.shape, codec.recipe.square)
        finally:
            decoder.close()
    return choose_way(list(films.values()), [predictions.get(row) for row in films], target)


class FilmReader:
    """Films as a layer holds them, from where the plan says; of the depth that a codec's recipe overrides, where it does.

    `read`: gives the bytes of a uri, in place of `read_bytes`.
    """

    def __init__(self, decode: DecodeConfig, recipe: PixelRecipe, *, read: Read | None = None) -> None:
        self._samples, self._bits = SampleReader(decode), recipe.bits
        self._read = read or partial(read_bytes, max_bytes=decode.max_bytes)

    def film(self, ref: ImageRef, digest: bytes | None = None) -> FilmSamples:
        """The film of a row. Raises RowError where it cannot be read, or where its file's sha256 is not `digest`."""
        data = self._read(ref.uri)
        if digest is not None and sha256(data).digest() != digest:
            raise LayerError("the file has changed since it was decoded")
        film = self._samples.read(data)
        needed = int(np.abs(film.samples.astype(np.int32)).max()).bit_length() + (film.samples.dtype.kind == "i")
        return replace(film, bits=max(self._bits, needed)) if self._bits else film

    def region(self, ref: ImageRef, shape: tuple[int, ...]) -> Region | None:
        """The part of a film [H, W] that its manifest wants exactly, a box or where a mask is not 0; None where it names none.

        Raises RowError for a mask that cannot be read or has another size, ConfigError for what is no box.
        """
        if not ref.region:
            return None
        if is_box(ref.region):
            return parse_box(ref.region)
        mask = self._samples.read(self._read(ref.region)).samples
        if mask.shape != shape:
            raise LayerError(f"mask of the region has another size than the film: {mask.shape[1]}x{mask.shape[0]}")
        return mask_region(mask != 0)

    def close(self) -> None:
        """Ends the guarded processes."""
        self._samples.close()


@dataclass(frozen=True, slots=True)
class LayerRow:
    """What becomes of one film: values of the arrays of `layer_arrays`, or the reason why its row fails."""

    values: dict[str, Any]
    fault: str = ""


class FilmLayers:
    """Codes the films of a batch to their layers, in as many threads as there are cores. `read` gives a film's bytes once more."""

    def __init__(self, cfg: FidelityConfig, decode: DecodeConfig, codec: Codec, *, read: Read) -> None:
        self._target, self._way, self._strict = parse_target(cfg.target), way_of(cfg), cfg.strict
        self._codec, self._reader = codec, FilmReader(decode, codec.recipe, read=read)
        threads = decode.threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="layer")
        self.arrays = layer_arrays()

    def rows(self, refs: Sequence[ImageRef], digests: Sequence[bytes], codes: np.ndarray[Any, Any]) -> list[LayerRow]:
        """The layer of each film. `digests`: sha256 of the files that were coded; `codes` [N, *shape] as they are stored."""
        made: Sequence[Gray | None] = [None] * len(refs)
        if self._way.residual:
            made = film_of_code(self._codec, torch.from_numpy(codes.astype(np.float32)))
        return list(self._pool.map(self._row, refs, digests, made))

    def close(self) -> None:
        """Ends threads and guarded processes."""
        self._pool.shutdown(cancel_futures=True)
        self._reader.close()

    def _row(self, ref: ImageRef, digest: bytes, made: Gray | None) -> LayerRow:
        try:
            film = self._reader.film(ref, digest)
            prediction = None if made is None else predict(made, film.samples.shape, self._codec.recipe.square)
            region = self._reader.region(ref, film.samples.shape)
            layer = encode_film(film, self._target, self._way, prediction=prediction, region=region, strict=self._strict)
        except RowError as error:
            return LayerRow({}, fault=error.reason)
        except ConfigError as error:  # a region that is none
            return LayerRow({}, fault=str(error))
        return LayerRow(_values(layer))


def _films_again(codec: Codec, pixels: Tensor, dtype: np.dtype[Any], step: float) -> list[Gray]:
    if not len(pixels):
        return []
    with torch.inference_mode():
        codes = as_stored(codec.encode(pixels), dtype, step)
    return film_of_code(codec, torch.from_numpy(codes.astype(np.float32)))


def read_film(replay: Replay, row: int) -> FilmSamples | None:
    """The film that the layer of a row holds, None where the row has none. Raises ArchiveError for a layer that is damaged."""
    data = read_values(replay.dataset, "layer", [row])[0] if "layer" in replay.dataset else b""
    if not data:
        return None
    try:
        info = layer_info(data)
        made = film_of_code(replay.codec, replay.latents([row]))[0] if info.needs_prediction else None
        prediction = None if made is None else predict(made, (info.height, info.width), replay.codec.recipe.square)
        return decode_layer(data, prediction)
    except LayerError as error:
        raise ArchiveError(f"layer of row {row} cannot be read: {error.reason}") from None


def breach(film: FilmSamples, back: FilmSamples, target: Target, *, recorded: float) -> str:
    """What is wrong with what a layer gives `back` of a film, of which `recorded` PSNR in dB was stored; "" where it is as promised.

    A residual hangs on how this machine rounds the generator, which may move its PSNR by PSNR_TOLERANCE.
    """
    if back.samples.shape != film.samples.shape:
        return f"the layer holds a film of another size: {back.samples.shape[1]}x{back.samples.shape[0]}"
    most, psnr = max_error_of(film, back.samples), psnr_of(film, back.samples)
    if target.kind == "lossless" and most:
        return f"the layer differs from the film by {most}"
    if target.kind == "max-error" and most > target.value:
        return f"the layer differs from the film by {most}, promised was {target.value:g}"
    if target.kind == "psnr" and psnr < target.value - PSNR_TOLERANCE:
        return f"the layer has {psnr:.2f} dB, promised were {target.value:g}"
    if psnr != recorded and abs(psnr - recorded) > PSNR_TOLERANCE:
        return f"the layer has {psnr:.2f} dB, recorded were {recorded:.2f}"
    return ""


def _readable(refs: Iterable[ImageRef], reader: FilmReader) -> Iterator[tuple[int, FilmSamples]]:
    for ref in refs:
        try:
            yield ref.row, reader.film(ref)
        except RowError:
            continue


def _values(layer: Layer) -> dict[str, Any]:
    return {
        "layer": layer.data,
        "layer_kind": KINDS.index(layer.kind),
        "layer_psnr": layer.psnr,
        "layer_bytes": len(layer.data),
        "layer_met": int(not layer.reason),
    }
