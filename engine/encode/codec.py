"""A codec: pixels -> code -> pixels, from a directory of `codec.json` and safetensors. The engine knows no other kind of model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from engine.encode.codec_directory import CODEC, codec_digest, codec_files, name_weights, write_codec_files
from engine.encode.codec_spec import CODEC_JSON, CodecSpec, NetworkSpec, WeightsFile, read_spec
from engine.encode.gauge import Gauge, into_range, project
from engine.encode.model_directory import check_digests
from engine.encode.weights import fill, read_tensors, sha256, write_tensors
from engine.errors import CodecError
from engine.networks.coarse import Head, heads_from_tensors
from engine.networks.freezing import can_freeze, check_head, frozen
from engine.networks.registry import Role, build_network
from engine.recipe import PixelRecipe

__all__ = ["METRIC", "Codec", "Encode", "Generate", "codec_files", "load_codec", "load_codec_files", "save_codec"]


METRIC = "metric"  # the name of its tensor, among the coarse heads

Stage = TypeVar("Stage", bound=nn.Module)


class Encode(nn.Module):
    """The encoder with its last step: pixels [N, 1, R, R] in [-1, 1] -> codes [N, *shape] float32 on the gauge."""

    def __init__(self, network: nn.Module, gauge: Gauge) -> None:
        super().__init__()
        self.network, self.gauge = network, gauge

    def forward(self, pixels: Tensor) -> Tensor:
        return project(self.network(pixels).float(), self.gauge)


class Generate(nn.Module):
    """The generator with its last step: codes [N, *shape] -> films [N, 1, R, R] float32 in [-1, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, latents: Tensor) -> Tensor:
        return into_range(self.network(latents).float())


class Codec:
    """A loaded codec: frozen, in evaluation mode, float32, channels-last. `digest` is over all its files.

    `encoder` (None where there is none) and `generator` are whole stages, gauge and range included: what a backend compiles.
    `coarse` has the heads that make films of lower resolutions, by resolution; `metric` [k, d], or None, is what L-BFGS is told of the
    generator (`networks.latent_metric`).
    """

    def __init__(
        self,
        spec: CodecSpec,
        *,
        encoder: nn.Module | None,
        generator: nn.Module,
        mean: Tensor | None,
        digest: str,
        coarse: Mapping[int, Head] | None = None,
        metric: Tensor | None = None,
    ) -> None:
        self.spec = spec
        self.encoder = None if encoder is None else _frozen(Encode(encoder, spec.code.gauge))
        self.generator: Generate = _frozen(Generate(generator))
        self.digest = digest
        self.coarse = dict(coarse or {})
        self.metric = metric
        self._mean = mean
        self._device = torch.device("cpu")

    @property
    def name(self) -> str:
        """What it is called, for messages and the archive."""
        return self.spec.name

    @property
    def recipe(self) -> PixelRecipe:
        """How files become its pixels."""
        return self.spec.recipe

    @property
    def code_shape(self) -> tuple[int, ...]:
        """The shape of one film's code."""
        return self.spec.code.shape

    @property
    def code_dims(self) -> tuple[str, ...]:
        """The names of these dimensions."""
        return self.spec.code.dims

    @property
    def gauge(self) -> Gauge:
        """Which of the codes that make one film is the one to store."""
        return self.spec.code.gauge

    @property
    def loss(self) -> str:
        """What refinement minimises unless asked otherwise."""
        return self.spec.loss

    @property
    def has_encoder(self) -> bool:
        """Whether codes can be had without optimisation."""
        return self.encoder is not None

    @property
    def device(self) -> torch.device:
        """Where the networks lie."""
        return self._device

    def to(self, device: torch.device | str) -> Codec:
        """Moves the networks; returns itself."""
        self._device = torch.device(device)
        for module in (self.encoder, self.generator):
            if module is not None:
                module.to(self._device)
        return self

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels [N, 1, R, R] float32 in [-1, 1] -> codes [N, *shape] float32 on the gauge. Raises CodecError without an encoder."""
        if self.encoder is None:
            raise CodecError(f"codec has no encoder, its codes are found by refinement: {self.name}")
        expected = (1, self.recipe.resolution, self.recipe.resolution)
        if pixels.shape[1:] != expected:
            raise CodecError(f"codec {self.name} takes pixels [N, {', '.join(map(str, expected))}]: {list(pixels.shape)}")
        codes: Tensor = self.encoder(pixels.to(self._device))
        return codes

    def generate(self, latents: Tensor) -> Tensor:
        """Codes [N, *shape] -> films [N, 1, R, R] float32 in [-1, 1], differentiable (`gauge.into_range` says how at the ends)."""
        if latents.shape[1:] != self.code_shape:
            raise CodecError(f"codec {self.name} takes codes [N, {', '.join(map(str, self.code_shape))}]: {list(latents.shape)}")
        films: Tensor = self.generator(latents.to(self._device))
        return films

    def frozen_generator(self, dtype: torch.dtype, *, head: Head | None = None, norm_kernel: bool = False) -> nn.Module:
        """The generator as a whole stage in the form that makes films and gradients in codes with the least work, in `dtype` inside.

        codes [N, *shape] -> films [N, 1, r, r] float32; r is the codec's resolution, or that of `head`. A network without such a form
        comes as it is, in float32, and takes no head. `norm_kernel`: as for `networks.freezing.frozen`.
        """
        network = frozen(self.generator.network, dtype=dtype, head=head, norm_kernel=norm_kernel)
        if network is not None:
            return _frozen(Generate(network))
        if head is not None:
            raise CodecError(f"codec's generator makes no coarse films: {self.name}")
        return self.generator

    @property
    def has_frozen_generator(self) -> bool:
        """Whether `frozen_generator` is another than `generator`."""
        return can_freeze(self.generator.network)

    def project(self, latents: Tensor) -> Tensor:
        """Codes on the gauge; they make the same films as before."""
        return project(latents, self.gauge)

    def mean_latents(self, n: int) -> Tensor:
        """The mean code n times, on the gauge: where refinement starts without an encoder. Raises CodecError where the codec has none."""
        if self._mean is None:
            raise CodecError(f"codec has no mean code to start from (code.mean in {CODEC_JSON}): {self.name}")
        return self.project(self._mean.to(self._device).expand(n, *self.code_shape).clone())


def load_codec(path: str | Path) -> Codec:
    """The codec in a directory, or the shipped one by its name `demo`. Raises CodecError, naming what is missing or damaged."""
    return load_codec_files(codec_files(path), origin=f"codec {path}")


def load_codec_files(files: Mapping[str, bytes], *, origin: str = "embedded codec") -> Codec:
    """A codec from the bytes of its files by name, as `codec_files` gives them; `origin` is what messages call it."""
    try:
        return _load(files)
    except CodecError as error:
        raise CodecError(f"{origin}: {error}") from None


def save_codec(out_dir: str | Path, spec: CodecSpec, *, weights: Mapping[str, Mapping[str, Tensor]]) -> CodecSpec:
    """Writes a codec directory and returns the spec as it stands in `codec.json`.

    `weights` has the tensors of each file that `spec` names. On the disk each name gets the first digits of its digest, so that
    `codec.json`, which is replaced last, always names files that are there. The codec is loaded once before anything is written.
    Raises CodecError where it does not load, and where `out_dir` holds something else than a codec.
    """
    packed = {name: write_tensors(tensors) for name, tensors in weights.items()}
    spec, files = name_weights(spec, packed)
    load_codec_files(files, origin=f"codec {out_dir}")
    write_codec_files(Path(out_dir), files)
    return spec


def _load(files: Mapping[str, bytes]) -> Codec:
    if CODEC_JSON not in files:
        raise CodecError(f"{CODEC_JSON} is missing")
    spec = read_spec(files[CODEC_JSON])
    check_digests(files, spec.files(), CODEC)
    tensors = {name: read_tensors(name, files[name]) for name in spec.files()}
    encoder = None if spec.encoder is None else _network("encoder", spec.encoder, spec, tensors)
    generator = _network("generator", spec.generator, spec, tensors)
    return Codec(
        spec,
        encoder=encoder,
        generator=generator,
        mean=_mean(spec, tensors),
        digest=codec_digest({CODEC_JSON: sha256(files[CODEC_JSON])} | spec.files()),
        coarse=_coarse(spec, tensors, generator),
        metric=_metric(spec, tensors),
    )


def _network(role: Role, part: NetworkSpec, spec: CodecSpec, tensors: Mapping[str, dict[str, Tensor]]) -> nn.Module:
    with torch.device("meta"):  # shapes without memory: a wrong setting is found before anything is allocated
        network = build_network(role, part.network, part.settings)
    if network.code_shape != spec.code.shape:
        raise CodecError(f"code.shape is {list(spec.code.shape)}, but the {role} has another: {list(network.code_shape)}")  # type: ignore
    if network.resolution not in (None, spec.recipe.resolution):
        raise CodecError(f"recipe.resolution is {spec.recipe.resolution}, but the {role} has another: {network.resolution}")
    fill(network, tensors[part.weights], part.weights)
    return network


def _mean(spec: CodecSpec, tensors: Mapping[str, dict[str, Tensor]]) -> Tensor | None:
    if spec.code.mean == "zero":
        return torch.zeros(spec.code.shape)
    if not isinstance(spec.code.mean, WeightsFile):
        return None
    mean = tensors[spec.code.mean.weights].get("mean")
    if mean is None or tuple(mean.shape) != spec.code.shape:
        raise CodecError(f"the mean code must be a tensor `mean` of shape {list(spec.code.shape)} in {spec.code.mean.weights}")
    return mean


def _coarse(spec: CodecSpec, tensors: Mapping[str, dict[str, Tensor]], generator: nn.Module) -> dict[int, Head]:
    if spec.coarse is None:
        return {}
    try:
        heads = heads_from_tensors({name: part for name, part in tensors[spec.coarse.weights].items() if name != METRIC})
        for head in heads.values():
            check_head(generator, head)
    except (ValueError, CodecError) as error:
        raise CodecError(f"{spec.coarse.weights}: {error}") from None
    return heads


def _metric(spec: CodecSpec, tensors: Mapping[str, dict[str, Tensor]]) -> Tensor | None:
    metric = None if spec.coarse is None else tensors[spec.coarse.weights].get(METRIC)
    if metric is not None and (metric.dim() != 2 or metric.shape[1] != math.prod(spec.code.shape)):
        raise CodecError(f"{METRIC} in {spec.coarse.weights} must be [k, {math.prod(spec.code.shape)}]: {list(metric.shape)}")  # type: ignore
    # 1 - M'M must be positive; what is beyond would send every step the wrong way
    if metric is not None and not (metric.isfinite().all() and torch.linalg.matrix_norm(metric, 2) <= 1 + 1e-4):
        raise CodecError(f"{METRIC} in {spec.coarse.weights} must be finite and of norm 1 at most")  # type: ignore[union-attr]
    return metric


def _frozen(module: Stage) -> Stage:
    return module.eval().requires_grad_(False).to(memory_format=torch.channels_last)
