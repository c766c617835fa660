"""Frozen settings of a run. Every value is checked where it is made, so that nothing downstream has to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from engine.errors import ConfigError

Backend = Literal["auto", "eager", "inductor", "cudagraphs", "tensorrt"]
BACKENDS = get_args(Backend)
Precision = Literal["auto", "fp32", "bf16", "fp16"]
DecoderName = Literal["auto", "dali", "cpu"]
MetricsLevel = Literal["none", "mse", "full"]
StorageDtype = Literal["f2", "f4"]
OptimiserName = Literal["lbfgs", "adam"]
LpipsNet = Literal["alex", "vgg"]


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raises ConfigError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}: {value}")


def check_at_least(name: str, value: float, least: float) -> None:
    """Raises ConfigError unless `value` is `least` or more."""
    if not value >= least:
        raise ConfigError(f"{name} must be {least:g} or more: {value}")


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """How files become pixels. The limits guard against decompression bombs: they are read from headers, before pixels are made.

    `max_seconds` is processor time, so that a busy machine fails no film, and holds for codecs that can hang (engine/decode/guard.py).
    """

    decoder: DecoderName = "auto"
    threads: int = 0  # 0: one a core
    max_bytes: int = 512 * 2**20  # of a source file
    max_pixels: int = 100_000_000  # of the square around the film that a header claims
    max_seconds: float = 10.0  # for the pixels of a film of up to 16 megapixels; larger ones have more in proportion

    def __post_init__(self) -> None:
        check_choice("decode.decoder", self.decoder, ("auto", "dali", "cpu"))
        check_at_least("decode.threads", self.threads, 0)
        check_at_least("decode.max_bytes", self.max_bytes, 1)
        check_at_least("decode.max_pixels", self.max_pixels, 1)
        if not 0.1 <= self.max_seconds <= 86_400:
            raise ConfigError(f"decode.max_seconds must be 0.1 to 86400: {self.max_seconds}")


@dataclass(frozen=True, kw_only=True)
class RefineConfig:
    """Per-image optimisation of codes. `loss` is a tuple of (term, weight); `target_mse` 0 and `patience` 0 switch those stops off.

    `coarse`: begin on coarse films, where the codec makes them. `lpips_size`: the side that films are brought to for LPIPS, 0 as they are.
    `perceptual_weights`: the folder with the weights of LPIPS and MoCo, "" for where torchvision keeps its own, "download" or "random".
    """

    steps: int = 0
    lr: float = 0.2
    optimiser: OptimiserName = "lbfgs"
    coarse: bool = True
    loss: tuple[tuple[str, float], ...] = (("mse", 1.0),)
    target_mse: float = 0.0
    patience: int = 0
    lpips_net: LpipsNet = "alex"
    lpips_size: int = 0
    perceptual_weights: str = ""

    def __post_init__(self) -> None:
        check_at_least("refine.steps", self.steps, 0)
        check_choice("refine.optimiser", self.optimiser, get_args(OptimiserName))
        check_choice("refine.lpips_net", self.lpips_net, get_args(LpipsNet))
        check_at_least("refine.lpips_size", self.lpips_size, 0)
        if not 0 < self.lr < float("inf"):
            raise ConfigError(f"refine.lr must be a positive number: {self.lr}")
        if not 0 <= self.steps <= 65535:
            raise ConfigError(f"refine.steps must be 65535 or less: {self.steps}")
        check_at_least("refine.target_mse", self.target_mse, 0)
        check_at_least("refine.patience", self.patience, 0)
        if not self.loss or not any(weight > 0 for _, weight in self.loss):
            terms = ",".join(f"{name}={weight:g}" for name, weight in self.loss)
            raise ConfigError(f"refine.loss needs a term with a positive weight: {terms or 'none'}")


def parse_loss(text: str) -> tuple[tuple[str, float], ...]:
    """`mse=1,lpips=0.8` as (("mse", 1.0), ("lpips", 0.8)); raises ConfigError on anything else."""
    terms: list[tuple[str, float]] = []
    for part in text.split(","):
        name, _, weight = part.strip().partition("=")
        try:
            terms.append((name, float(weight)))
        except ValueError:
            raise ConfigError(f"loss must read like mse=1,lpips=0.8: {text}") from None
    names = [name for name, _ in terms]
    if len(set(names)) != len(names) or "" in names:
        raise ConfigError(f"loss must name each term once: {text}")
    return tuple(terms)


@dataclass(frozen=True, kw_only=True)
class MapsConfig:
    """What `decompose` stores beside codes. `lungs`: a CSV with boxes around lungs, "" to search for them. `floor`: |residue| that is
    salient at least, in the unit of films, which is 2 from black to white; 0 for none."""

    lungs: str = ""
    floor: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= 1:
            raise ConfigError(f"maps.floor must be 0 to 1: {self.floor}")


@dataclass(frozen=True, kw_only=True)
class FidelityConfig:
    """The layer beside the codes. `target`: none, bytes=N, psnr=DB, max-error=K or lossless. `strict`: a film that cannot meet it fails.

    `way`: how films are coded, as plain values; {} until it is chosen, by what `figures` say of each way that was tried. `region`: the
    manifest's column with what is kept exactly, or "".
    """

    target: str = "none"
    strict: bool = False
    way: dict[str, Any] = field(default_factory=dict)
    figures: list[dict[str, Any]] = field(default_factory=list)
    region: str = ""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Everything a worker needs to turn shards into rows of one archive. Plain values only: it is sent to other machines as it is."""

    archive: str
    codec: str  # a codec directory
    batch_size: int = 16
    backend: Backend = "auto"
    precision: Precision = "auto"
    metrics: MetricsLevel = "full"
    film_size: int = 1024
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    maps: MapsConfig | None = None  # None: codes alone
    fidelity: FidelityConfig = field(default_factory=FidelityConfig)
    seed: int = 0
    code_step: float = 0.0  # codes are stored as multiples of it; 0: as they are
    films: int = 0  # about how many one worker will code, where it is known: whether compiling pays

    def __post_init__(self) -> None:
        check_at_least("batch-size", self.batch_size, 1)
        check_choice("backend", self.backend, BACKENDS)
        check_choice("precision", self.precision, ("auto", "fp32", "bf16", "fp16"))
        check_choice("metrics", self.metrics, ("none", "mse", "full"))
        if not 16 <= self.film_size <= 16384:
            raise ConfigError(f"film-size must be 16 to 16384: {self.film_size}")
        if not 0 <= self.code_step < float("inf"):
            raise ConfigError(f"code-step must be 0, or a positive number: {self.code_step}")

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return asdict(self)
