"""What is measured of a codec and put into its directory: coarse heads and a metric, which make refinement quick; the step of its codes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.code_step import record_step
from engine.config import DecodeConfig, check_at_least
from engine.decode.choose import build_decoder
from engine.encode.backends import find_device
from engine.encode.codec import METRIC, Codec, codec_files, load_codec, load_codec_files, save_codec
from engine.encode.codec_spec import CodecSpec, WeightsFile
from engine.encode.cost import codec_cost
from engine.encode.precision import whole_float32
from engine.encode.weights import read_tensors
from engine.errors import CodecError, SourceError
from engine.networks.coarse import Head, fit_heads, heads_to_tensors
from engine.networks.latent_metric import fit_metric
from engine.source.opening import read_bytes
from engine.source.plan import make_plan

FILMS = 64  # give a thousand pixels a channel from 16x16 on
METRIC_CODES, METRIC_SIDE = 256, 16
_BATCH = 4  # a level's activations are summed in float64
COARSE = "coarse.safetensors"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What became of a codec directory. `explained`: by resolution, the part of the coarse films' variance that a head explains;
    `gflop`: by resolution, the codec's own among them, that of a step of refinement there."""

    name: str
    former_digest: str
    digest: str
    explained: dict[int, float]
    gflop: dict[int, float]


def calibrate_codec(directory: str | Path, *, films: int = FILMS, seed: int = 0) -> Calibration:
    """Fits coarse heads and the metric and puts them into a codec directory, in place of those it had. The same seed gives the same bytes.

    The directory is replaced as `save_codec` does it, so a killed call leaves the former codec. Its digest changes: an archive that was
    begun with the former codec is not continued with this one. Raises CodecError as `fit_codec_heads`, and for the shipped codec.
    """
    if str(directory) == "demo":
        raise CodecError("the shipped codec stays as it is; calibrate a copy of its directory: demo")
    files = codec_files(directory)
    former = load_codec_files(files, origin=f"codec {directory}")
    heads = fit_codec_heads(former.to(find_device(None)), films=films, seed=seed)
    metric = fit_codec_metric(former, heads, seed=seed)
    spec = _with_plain_names(replace(former.spec, coarse=None))
    plain = {_plain(name, digest): name for name, digest in replace(former.spec, coarse=None).files().items()}
    if set(plain) != set(spec.files()) or COARSE in plain:
        raise CodecError(f"the codec's weights files have names that cannot be told apart: {', '.join(former.spec.files())}")
    weights = {name: read_tensors(name, files[kept], as_stored=True) for name, kept in plain.items()}
    provenance = {**spec.provenance, "coarse": {"films": films, "seed": seed}}
    spec = replace(spec, coarse=WeightsFile(weights=COARSE), provenance=provenance)
    save_codec(directory, spec, weights={**weights, COARSE: heads_to_tensors(heads) | {METRIC: metric}})
    codec = load_codec_files(codec_files(directory), origin=f"codec {directory}")
    return Calibration(
        name=codec.name,
        former_digest=former.digest,
        digest=codec.digest,
        explained={resolution: heads[resolution].explained for resolution in sorted(heads)},
        gflop=dict(sorted(codec_cost(codec).gradient.items())),
    )


def calibrate_step(directory: str | Path, source: str, *, films: int) -> float:
    """Finds on the first `films` films of `source` that can be read how coarsely a codec's codes may be rounded, and records it.

    Returns the step, 0.0 where codes stay as they are. Raises what `record_step` raises, and SourceError where no film can be read.
    """
    check_at_least("films", films, 1)
    recipe, limits = load_codec(directory).recipe, DecodeConfig()
    decoder = build_decoder(recipe, limits, read=partial(read_bytes, max_bytes=limits.max_bytes), batch_size=_BATCH, film_size=None)
    found: list[Tensor] = []
    try:
        with tempfile.TemporaryDirectory(prefix="latentray-") as folder:
            plan = make_plan(source, Path(folder) / "plan.parquet", shard_rows=_BATCH)
            for shard in plan.shards():
                found += [film for batch in decoder.batches(shard.refs) for film in batch.pixels]
                if len(found) >= films:
                    break
    finally:
        decoder.close()
    if not found:
        raise SourceError(f"none of the films can be read: {source}")
    return record_step(directory, torch.stack(found[:films]))


def fit_codec_heads(codec: Codec, *, films: int = FILMS, seed: int = 0) -> dict[int, Head]:
    """Heads by resolution for the levels of a codec's generator, fitted to the films of `films` codes drawn from N(0, I) with `seed`.

    Runs where the codec lies, in float32; the codec stays as it is. Raises CodecError for a generator without levels, and where films
    are too few for any head.
    """
    check_at_least("films", films, 1)
    levels = getattr(codec.generator.network, "coarse_activations", None)
    if levels is None:
        raise CodecError(f"codec's generator has no levels that could make coarse films, there is nothing to calibrate: {codec.name}")
    with whole_float32():
        heads = fit_heads(levels, codec.generate, _codes(codec, films, seed))
    if not heads:
        raise CodecError(f"films are too few to fit a coarse head of any level to them: {films}")
    return heads


def fit_codec_metric(codec: Codec, heads: Mapping[int, Head], *, seed: int = 0) -> Tensor:
    """The metric of a codec (`networks.latent_metric`), from the coarse films of METRIC_CODES codes: as good as from whole ones.

    Raises CodecError where no film changes with its code.
    """
    head = heads[min((resolution for resolution in heads if resolution >= METRIC_SIDE), default=max(heads))]
    generator = codec.frozen_generator(torch.float32, head=head).to(codec.device)
    try:
        with whole_float32():
            return fit_metric(generator, _codes(codec, METRIC_CODES, seed))
    except ValueError as error:
        raise CodecError(f"{error}: {codec.name}") from None


def _codes(codec: Codec, count: int, seed: int) -> Iterator[Tensor]:
    codes = codec.project(torch.randn(count, *codec.code_shape, generator=torch.Generator().manual_seed(seed)))
    yield from torch.split(codes.to(codec.device), _BATCH)


def _with_plain_names(spec: CodecSpec) -> CodecSpec:
    """The spec as `save_codec` takes it: its weights files by the names that they had before their digests were put in."""

    def plain(part: WeightsFile) -> dict[str, Any]:
        return {"weights": _plain(part.weights, part.sha256), "sha256": ""}

    mean = spec.code.mean
    return replace(
        spec,
        encoder=None if spec.encoder is None else replace(spec.encoder, **plain(spec.encoder)),
        generator=replace(spec.generator, **plain(spec.generator)),
        code=replace(spec.code, mean=replace(mean, **plain(mean)) if isinstance(mean, WeightsFile) else mean),
    )


def _plain(name: str, digest: str) -> str:
    return name.replace(f"-{digest[:8]}.safetensors", ".safetensors")
