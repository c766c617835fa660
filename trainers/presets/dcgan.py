"""Settings of a deep convolutional GAN with either of its losses, and the presets of `train dcgan`; those of `train lsgan`: `lsgan.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from engine.config import check_at_least, check_choice
from engine.errors import ConfigError
from engine.recipe import Equalise, Square
from trainers.presets.checks import check_betas, check_rate

__all__ = ["PRESETS", "DcganConfig"]


@dataclass(frozen=True, kw_only=True)
class DcganConfig:
    """The networks, their loss, and how films are prepared.

    `resolution`: side of the films, a power of two from 8 to 2048. `width`: channels of the generator's last level below the film; each
    level below it has twice as many, and the discriminator has the same in the other order, which both papers do. `codes`: z is "normal" or
    "uniform" in [-1, 1]. `kernel` 4 or 5; `head`: "map" gives a film 2x2 scores, "single" one. `generator_steps`: how often the generator
    moves for every step of the discriminator. `ema`: decay of the generator's average by its steps, 0 for none. `square` and `equalise`: as
    the pixel recipe has them. `images`: where a run ends unless told otherwise. `inception`: a file of weights for the Frechet distance, ""
    to go without it.
    """

    resolution: int
    width: int
    code_size: int = 100
    codes: Literal["normal", "uniform"] = "normal"
    kernel: int = 4
    head: Literal["map", "single"] = "single"
    leak: float = 0.2
    loss: Literal["cross-entropy", "least-squares"] = "cross-entropy"
    lr: float = 2e-4
    betas: tuple[float, ...] = (0.5, 0.999)
    batch_size: int = 64
    generator_steps: int = 1
    ema: float = 0.0
    square: Square = "pad"
    equalise: Equalise = "none"
    images: int
    inception: str = ""

    def __post_init__(self) -> None:
        if self.resolution not in _RESOLUTIONS:
            raise ConfigError(f"resolution must be one of {', '.join(map(str, _RESOLUTIONS))}: {self.resolution}")
        for name in ("width", "code_size", "generator_steps", "images"):
            check_at_least(name, getattr(self, name), 1)
        check_at_least("batch_size", self.batch_size, 2)  # batch norm of a single code at 4x4 is possible, and useless
        for name, allowed in _CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        if self.kernel not in (4, 5):
            raise ConfigError(f"kernel must be one of 4, 5: {self.kernel}")
        check_rate("lr", self.lr)
        check_betas(self.betas)
        if not 0 <= self.ema < 1 or not 0 <= self.leak < 1:
            raise ConfigError(f"ema and leak must be 0 or more and under 1: {self.ema}, {self.leak}")

    @property
    def channels(self) -> tuple[int, ...]:
        """Widths of the generator's levels, from 4x4 up to half of the film's side."""
        levels = (self.resolution // 4).bit_length() - 1
        return tuple(self.width << level for level in reversed(range(levels)))


_RESOLUTIONS = tuple(2**power for power in range(3, 12))
_CHOICES: dict[str, tuple[str, ...]] = {
    "codes": ("normal", "uniform"),
    "head": ("map", "single"),
    "loss": ("cross-entropy", "least-squares"),
    "square": ("pad", "crop", "stretch"),
    "equalise": ("none", "histogram"),
}


def _radford2016() -> DcganConfig:
    """Radford et al. 2016 as on LSUN's bedrooms: 64x64, batches of 128, five passes over three million pictures; in gray."""
    return DcganConfig(resolution=64, width=128, codes="uniform", kernel=5, batch_size=128, images=15_000_000)


def _default() -> DcganConfig:
    """128x128 for one GPU: Radford's widths with a level more, 4x4 kernels, and an averaged generator."""
    return DcganConfig(resolution=128, width=64, ema=0.999, images=1_000_000)


def _cpu_small() -> DcganConfig:
    """64x64 on one core of a laptop. Few steps fit: they are small and go far."""
    return DcganConfig(resolution=64, width=16, batch_size=16, lr=1e-3, ema=0.99, images=15_000)


PRESETS: dict[str, Callable[[], DcganConfig]] = {"default": _default, "radford2016": _radford2016, "cpu-small": _cpu_small}
