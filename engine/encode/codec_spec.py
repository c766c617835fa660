"""`codec.json` as a frozen record: read strictly, written in one order. What the fields mean is in README.md."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from engine.config import parse_loss
from engine.encode.gauge import GAUGES, Gauge
from engine.encode.strict_json import read_versioned, to_json_bytes
from engine.errors import CodecError, ConfigError
from engine.networks.settings import read_settings, refuse_unknown, shortened, typed
from engine.recipe import PixelRecipe

FORMAT = "latentray-codec"
FORMAT_VERSION = 1
CODEC_JSON = "codec.json"

_DIMS = (("layer", "channel"), ("channel", "y", "x"))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_WEIGHTS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.safetensors")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A safetensors file beside `codec.json`: its plain name and the sha256 of its bytes."""

    weights: str
    sha256: str = ""  # until it is saved

    def __post_init__(self) -> None:
        if not _WEIGHTS.fullmatch(self.weights):
            raise CodecError(f"weights must be a plain file name that ends in .safetensors: {shortened(self.weights)}")
        if self.sha256 and not _SHA256.fullmatch(self.sha256):
            raise CodecError(f"sha256 of {self.weights} must be 64 lower-case hexadecimal digits: {shortened(self.sha256)}")


@dataclass(frozen=True, kw_only=True)
class NetworkSpec(WeightsFile):
    """A network by its name in the registry, with its settings and its weights."""

    network: str
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CodeSpec:
    """The code of one film: named dimensions, shape, gauge, and the mean code ("zero", a file with the tensor `mean`, or not known).

    `step`: codes may be rounded to its multiples for a loss of less than 0.05 dB (`engine/code_step.py`); 0 where that is not known.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    gauge: Gauge
    mean: Literal["zero"] | WeightsFile | None = None
    step: float = 0.0

    def __post_init__(self) -> None:
        if self.dims not in _DIMS:
            raise CodecError(f"code.dims must be layer, channel or channel, y, x: {shortened(self.dims)}")
        if len(self.shape) != len(self.dims) or min(self.shape) < 1 or math.prod(self.shape) > 2**24:
            raise CodecError(f"code.shape must have a positive size for each of {', '.join(self.dims)}: {shortened(self.shape)}")
        if self.gauge not in GAUGES:
            raise CodecError(f"code.gauge must be one of {', '.join(GAUGES)}: {shortened(self.gauge)}")
        if self.gauge == "sphere" and (self.dims != _DIMS[0] or self.mean == "zero"):
            raise CodecError("code.gauge sphere needs dims layer, channel and a mean other than zero, which has no direction")
        if self.step and not (2.0**-24 <= self.step <= 2.0**15 and math.frexp(self.step)[0] == 0.5):
            raise CodecError(f"code.step must be 0 or a power of two from 2^-24 to 2^15: {shortened(self.step)}")


@dataclass(frozen=True, kw_only=True)
class CodecSpec:
    """A codec, but for its weights. `loss` is what refinement minimises by default, as `--loss` has it."""

    name: str
    encoder: NetworkSpec | None
    generator: NetworkSpec
    code: CodeSpec
    recipe: PixelRecipe
    coarse: WeightsFile | None = None  # heads that make films of lower resolutions, and the metric of L-BFGS
    loss: str = "mse=1"
    licence: str = "not stated"
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise CodecError(f"name must be letters, digits and ._+- (100 at most, the first a letter or digit): {shortened(self.name)}")
        try:
            parse_loss(self.loss)
        except ConfigError as error:
            raise CodecError(str(error)) from None

    def files(self) -> dict[str, str]:
        """The sha256 of each weights file by its name. Encoder and generator may share one."""
        found = [part for part in (self.encoder, self.generator, self.code.mean, self.coarse) if isinstance(part, WeightsFile)]
        digests = {file.weights: file.sha256 for file in found}
        if any(digests[file.weights] != file.sha256 for file in found):
            raise CodecError(f"one weights file has two digests: {', '.join(sorted(digests))}")
        return digests

    def to_bytes(self) -> bytes:
        """The bytes of `codec.json`: the same for equal specs."""
        code = {name: value for name, value in asdict(self.code).items() if name != "step" or value}  # codecs from before have none
        return to_json_bytes(asdict(self) | {"code": code, "recipe": self.recipe.to_json()}, format_name=FORMAT, version=FORMAT_VERSION)


def read_spec(raw: bytes) -> CodecSpec:
    """The record in the bytes of a `codec.json`; raises CodecError on anything that is not exactly one of version 1."""
    data = read_versioned(raw, CODEC_JSON, format_name=FORMAT, version=FORMAT_VERSION)
    refuse_unknown(data, set(CodecSpec.__dataclass_fields__), CODEC_JSON)
    missing = [name for name in ("name", "encoder", "generator", "code", "recipe") if name not in data]
    if missing:
        raise CodecError(f"{CODEC_JSON} lacks fields: {', '.join(missing)}")
    texts = {name: typed(str, data[name], name) for name in ("name", "loss", "licence") if name in data}
    encoder = data["encoder"]
    spec = CodecSpec(
        **texts,
        encoder=None if encoder is None else read_settings(NetworkSpec, encoder, "encoder"),
        generator=read_settings(NetworkSpec, data["generator"], "generator"),
        code=_read_code(typed(dict, data["code"], "code")),
        recipe=read_settings(PixelRecipe, data["recipe"], "recipe"),
        coarse=None if data.get("coarse") is None else read_settings(WeightsFile, data["coarse"], "coarse"),
        provenance=typed(dict, data.get("provenance", {}), "provenance"),
    )
    undigested = [name for name, digest in spec.files().items() if not digest]
    if undigested:
        raise CodecError(f"{CODEC_JSON} lacks the sha256 of a weights file: {', '.join(undigested)}")
    return spec


def _read_code(data: dict[str, Any]) -> CodeSpec:
    refuse_unknown(data, {"dims", "shape", "gauge", "mean", "step"}, "code")
    mean = data.get("mean")
    return CodeSpec(
        dims=typed(tuple[str, ...], data.get("dims"), "code.dims"),
        shape=typed(tuple[int, ...], data.get("shape"), "code.shape"),
        gauge=typed(str, data.get("gauge"), "code.gauge"),
        step=typed(float, data.get("step", 0.0), "code.step"),
        mean=mean if mean is None or mean == "zero" else read_settings(WeightsFile, mean, "code.mean"),
    )
