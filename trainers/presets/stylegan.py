"""Settings of StyleGAN, and the presets of `train stylegan`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property

from engine.config import check_at_least, check_choice
from engine.errors import ConfigError
from trainers.presets.pggan import PgganConfig

__all__ = ["PRESETS", "StyleganConfig"]


@dataclass(frozen=True, kw_only=True)
class StyleganConfig:
    """The networks, the losses, and what each level gets. Levels, tuples and growth are those of `PgganConfig`, by the same names.

    To train at one resolution from the start, `fade_images` is (0,) and `stable_images` is 0 for all levels but the last.
    `loss`: "r1", non-saturating with R1 of weight `gamma`, or "wgan-gp" with `gp_weight` and `drift`. `mixing`: the probability that a
    film has two w, one from a random layer on. `mapping_layers`, `mapping_multiplier`: of the mapping network and its learning rate.
    `blur`: the filter after upsampling. `space`: what the codec's code is, "w", or "w+" with a w for each layer.
    """

    channels: tuple[int, ...]
    code_size: int = 512
    mapping_layers: int = 8
    mapping_multiplier: float = 0.01
    mixing: float = 0.9
    blur: bool = True
    space: str = "w"
    leak: float = 0.2
    loss: str = "r1"
    gamma: float = 10.0
    gp_weight: float = 10.0
    drift: float = 1e-3
    lr: tuple[float, ...] = (1e-3,)
    betas: tuple[float, ...] = (0.0, 0.99)
    epsilon: float = 1e-8
    ema: float = 0.998
    batch_size: tuple[int, ...] = (32,)
    part_size: tuple[int, ...] = (0,)
    group: tuple[int, ...] = (4,)
    fade_images: tuple[int, ...]
    stable_images: tuple[int, ...]
    fade_reals: bool = True
    images: int
    inception: str = ""
    compile: bool = False

    def __post_init__(self) -> None:
        check_choice("loss", self.loss, ("r1", "wgan-gp"))
        check_choice("space", self.space, ("w", "w+"))
        check_at_least("gamma", self.gamma, 0)
        check_at_least("mapping_layers", self.mapping_layers, 1)
        if not 0 < self.mapping_multiplier <= 1:
            raise ConfigError(f"mapping_multiplier must be above 0 and 1 at most: {self.mapping_multiplier}")
        if not 0 <= self.mixing <= 1:
            raise ConfigError(f"mixing must be 0 to 1: {self.mixing}")
        self.growth.stage(0)  # made here, since what both have in common is checked as it is made

    @cached_property
    def growth(self) -> PgganConfig:
        """The levels, and what each of them gets: as those of a progressive GAN."""
        ours = {setting.name for setting in fields(self)}
        return PgganConfig(**{setting.name: getattr(self, setting.name) for setting in fields(PgganConfig) if setting.name in ours})


def _saboo2020() -> StyleganConfig:
    """128x128 as Karras et al. 2019 train StyleGAN (their published settings for 8 GPUs): Saboo et al. 2020 say no more of their training.

    From 8x8 on, 600,000 images a fade and as many between two, 25 million in all; Adam (0, 0.99), learning rate 0.001 and from 128x128 on
    0.0015; R1 of 10; averaged with a half-life of 10,000 images at a batch of 32. Films may be mirrored with --augment flip, as Karras
    does; Saboo does not say, and a mirrored chest has its heart on the other side. Two differences from Karras remain: the discriminator
    is that of the progressive GAN, with no filter before it halves, and the optimisers keep their moments when a level begins.
    """
    return StyleganConfig(
        channels=(512, 512, 512, 512, 256, 128),
        lr=(1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1.5e-3),
        ema=0.99778,
        batch_size=(512, 256, 128, 64, 32, 32),
        fade_images=(0, 0, 600_000, 600_000, 600_000, 600_000),
        stable_images=(0, 600_000, 600_000, 600_000, 600_000, 20_200_000),
        images=25_000_000,
    )


def _default() -> StyleganConfig:
    """128x128 at half of the original's width, 1.5 million images: an hour or two of a GPU such as the H200 (estimated, not measured)."""
    return StyleganConfig(
        channels=(256, 256, 256, 256, 128, 64),
        code_size=256,
        lr=(2e-3,),
        batch_size=(64, 64, 64, 64, 32, 32),
        fade_images=(0, 0, 60_000, 80_000, 100_000, 120_000),
        stable_images=(0, 60_000, 60_000, 80_000, 100_000, 840_000),
        images=1_500_000,
        compile=True,
    )


def _cpu_small() -> StyleganConfig:
    """32x32 from 16x16 on, three minutes of one core. R1 is weaker than at 128x128: a visible change has a sixteenth of the pixels."""
    return StyleganConfig(
        channels=(64, 64, 48, 32),
        code_size=64,
        gamma=1.0,
        lr=(2e-3,),
        ema=0.99,
        batch_size=(16,),
        fade_images=(0, 0, 0, 2_000),
        stable_images=(0, 0, 2_000, 8_000),
        images=12_000,
    )


PRESETS: dict[str, Callable[[], StyleganConfig]] = {"default": _default, "saboo2020": _saboo2020, "cpu-small": _cpu_small}
