"""Settings of the PCA codec, and its presets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from engine.config import DecodeConfig, check_at_least, check_choice
from engine.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PcaConfig:
    """A PCA codec. `components` coefficients at `resolution`; `images` films at most (0: all), the first of the plan's order.

    `storage` is the type of the components on the disk (256 of them at 256x256 take 33 MiB as float16); mean and scale are float32.
    `buffer_bytes` holds films while they wait: the fit is exact when all fit (2,048 films of 256x256 in the default), streamed beyond;
    the buffer is never smaller than 64 films more than twice `components`, which is what a large `resolution` makes of it.
    `seed` picks the films on which the training PSNR is measured. Above `max_failed_fraction` the run counts as failed.
    """

    components: int = 256
    resolution: int = 256
    images: int = 0
    seed: int = 0
    storage: str = "float16"
    buffer_bytes: int = 512 * 2**20
    max_failed_fraction: float = 0.05
    batch_size: int = 32
    decode: DecodeConfig = field(default_factory=DecodeConfig)

    def __post_init__(self) -> None:
        check_at_least("components", self.components, 1)
        check_at_least("images", self.images, 0)
        check_at_least("seed", self.seed, 0)
        check_at_least("batch-size", self.batch_size, 1)
        check_choice("storage", self.storage, ("float16", "float32"))
        if not 8 <= self.resolution <= 1024:
            raise ConfigError(f"resolution must be 8 to 1024: {self.resolution}")
        if not 0 <= self.max_failed_fraction <= 1:
            raise ConfigError(f"max-failed-fraction must be 0 to 1: {self.max_failed_fraction}")


PRESETS: dict[str, Callable[[], PcaConfig]] = {
    "default": PcaConfig,
    "cpu-small": lambda: PcaConfig(components=64, resolution=128),  # for tests and first tries
}
