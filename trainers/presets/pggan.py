"""Settings of the progressive GAN and of its growth, and the presets of `train pggan`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.config import check_at_least, check_choice
from engine.errors import ConfigError
from trainers.presets.checks import check_betas

__all__ = ["PRESETS", "PgganConfig", "Stage"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A moment of growth: the level that is trained, 4 * 2^level pixels a side, and `alpha`, the share of the level below in its films.

    `alpha` falls from 1 to 0 as the level fades in, as in Segal's code; Karras counts the other way. None: the level is whole.
    """

    level: int
    alpha: float | None

    @property
    def resolution(self) -> int:
        """Side of the films."""
        return 4 << self.level

    @property
    def complete(self) -> int:
        """The highest level that needs none below it."""
        return self.level if self.alpha is None else self.level - 1


@dataclass(frozen=True, kw_only=True)
class PgganConfig:
    """The networks, the losses, and what each level gets. Tuples have one value a level, from 4x4 up, or a single one for all levels.

    A level fades in over `fade_images` and is then trained on `stable_images` more; the last one goes on for as long as the run does.
    The lowest levels may have neither and are passed over; the first that is trained cannot fade, all above it must. `batch_size` counts
    images of all processes, `part_size` those that one process takes at a time (0: all its share), `group` those over which the
    discriminator's spread is taken.
    `fade_reals`: whether real films fade as well (Karras does that, Segal does not). `images`: where a run ends unless told otherwise.
    `inception`: a file of weights for the Frechet distance, "" to go without it. `compile`: the generator through Inductor.
    """

    channels: tuple[int, ...]
    code_size: int = 512
    leak: float = 0.2
    norm_after_linear: bool = False
    output_range: str = "unit"
    lr: tuple[float, ...] = (1e-3,)
    betas: tuple[float, ...] = (0.0, 0.99)
    epsilon: float = 1e-7
    gp_weight: float = 10.0
    drift: float = 1e-3
    ema: float = 0.999
    batch_size: tuple[int, ...] = (16,)
    part_size: tuple[int, ...] = (0,)
    group: tuple[int, ...] = (4,)
    fade_images: tuple[int, ...]
    stable_images: tuple[int, ...]
    fade_reals: bool = False
    images: int
    inception: str = ""
    compile: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.channels) <= 11:
            raise ConfigError(f"channels must have 1 to 11 levels: {len(self.channels)}")
        for name, least in _LEAST.items():
            values = getattr(self, name)
            for value in values if isinstance(values, tuple) else (values,):
                check_at_least(name, value, least)
        for name in _BY_LEVEL:
            if len(getattr(self, name)) not in (1, len(self.channels)):
                raise ConfigError(f"{name} must have one value, or one for each of {len(self.channels)} levels: {len(getattr(self, name))}")
        check_choice("output_range", self.output_range, ("unit", "signed"))
        check_betas(self.betas)
        if not all(0 < lr < 1 for lr in self.lr):
            raise ConfigError(f"lr must be above 0 and under 1: {self.lr}")
        if not self.ema < 1 or not self.leak < 1:
            raise ConfigError(f"ema and leak must be under 1: {self.ema}, {self.leak}")
        self._check_groups()
        self._check_growth()

    def of(self, name: str, level: int) -> float:
        """The value of a setting at a level."""
        values: tuple[float, ...] = getattr(self, name)
        return values[level if len(values) > 1 else 0]

    def count(self, name: str, level: int) -> int:
        """The same for a number of images."""
        return int(self.of(name, level))

    def stage(self, seen: int) -> Stage:
        """Where training is once `seen` images are seen."""
        end = 0
        for level in range(len(self.channels)):
            fade, stable = self.count("fade_images", level), self.count("stable_images", level)
            if seen < end + fade:
                return Stage(level=level, alpha=1 - (seen - end) / fade)
            end += fade + stable
            if seen < end:
                return Stage(level=level, alpha=None)
        return Stage(level=len(self.channels) - 1, alpha=None)

    def _check_groups(self) -> None:
        for level in range(len(self.channels)):
            batch, part, group = (self.count(name, level) for name in ("batch_size", "part_size", "group"))
            if batch % group or part % group:
                raise ConfigError(f"batch_size and part_size must be whole groups at level {level}: {batch}, {part} in groups of {group}")

    def _check_growth(self) -> None:
        levels = range(len(self.channels))
        first = next((level for level in levels if self.count("fade_images", level) + self.count("stable_images", level)), levels[-1])
        if self.count("fade_images", first):
            raise ConfigError(f"the first level that is trained has none below it to fade from: {first}")
        sudden = [level for level in levels[first + 1 :] if not self.count("fade_images", level)]
        if sudden:  # passed over, or at its first image whole and not trained at all
            raise ConfigError(f"levels above the first that is trained must fade in, fade_images must be 1 or more: level {sudden[0]}")


_BY_LEVEL = ("lr", "batch_size", "part_size", "group", "fade_images", "stable_images")
_LEAST: dict[str, float] = {
    **dict.fromkeys(("channels", "code_size", "batch_size", "group", "images"), 1),
    **dict.fromkeys(("leak", "lr", "betas", "epsilon", "gp_weight", "drift", "ema", "part_size", "fade_images", "stable_images"), 0),
}


def _segal2021() -> PgganConfig:
    """Segal et al. 2021: 14 million images at batches of four GPUs. The spread is taken over one GPU's batch."""
    one_gpu = (16, 16, 16, 16, 16, 16, 14, 8, 3)
    return PgganConfig(
        channels=(512, 512, 512, 512, 256, 128, 64, 32, 16),
        batch_size=tuple(4 * size for size in one_gpu),
        part_size=one_gpu,
        group=one_gpu,
        fade_images=(0, *(800_000,) * 8),
        stable_images=(*(800_000,) * 8, 1_200_000),
        images=14_000_000,
    )


def _gpu_half_hour() -> PgganConfig:
    """1024x1024 at half of Segal's width, 820,000 images: about half an hour of a GPU such as the H200 (estimated, not measured)."""
    return PgganConfig(
        channels=(256, 256, 256, 256, 128, 64, 32, 16, 16),
        batch_size=(64, 64, 64, 64, 64, 32, 32, 16, 16),
        fade_images=(0, 0, 60_000, 80_000, 80_000, 60_000, 40_000, 30_000, 20_000),
        stable_images=(0, 60_000, 60_000, 80_000, 80_000, 60_000, 40_000, 30_000, 40_000),
        fade_reals=True,
        images=820_000,
        compile=True,
    )


def _cpu_small() -> PgganConfig:
    """64x64 on a laptop. From the first hundred images on 64x64 fades in, slowly: until then a run leaves a codec of 32x32."""
    return PgganConfig(
        channels=(64, 64, 64, 32, 16),
        code_size=128,
        batch_size=(16,),
        fade_images=(0, 0, 0, 0, 6_000),
        stable_images=(0, 0, 0, 96, 13_904),
        fade_reals=True,
        images=20_000,
    )


def _demo() -> PgganConfig:
    """1024x1024 in 1.7 million weights, where the shipped demo codec starts: about 20 minutes of one CPU core with bf16.

    Most images are small: the levels above 128x128 get no more than a sane start.
    """
    return PgganConfig(
        channels=(128, 128, 128, 128, 64, 32, 16, 8, 8),
        code_size=256,
        batch_size=(16, 16, 16, 16, 16, 8, 4, 4, 4),
        fade_images=(0, 0, 2_000, 1_500, 800, 400, 80, 60, 48),
        stable_images=(0, 6_000, 4_000, 2_500, 1_000, 400, 80, 60, 32),
        fade_reals=True,
        images=18_960,
    )


PRESETS: dict[str, Callable[[], PgganConfig]] = {
    "default": _gpu_half_hour,
    "segal2021": _segal2021,
    "gpu-half-hour": _gpu_half_hour,
    "cpu-small": _cpu_small,
    "demo": _demo,
}
