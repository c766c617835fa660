"""Settings of the cyclic reverse generator of Saboo et al. 2020, and the presets of `train crg`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.config import check_at_least, check_choice
from engine.errors import CodecError, ConfigError
from engine.networks.crg import CrgSettings
from trainers.presets.checks import check_betas, check_rate
from trainers.presets.codec import annealed

__all__ = ["PRESETS", "CrgConfig"]

SPACES = ("", "w", "w+")


@dataclass(frozen=True, kw_only=True)
class CrgConfig:
    """The encoder (`CrgSettings`), the weights of the losses' terms, and how they are minimised.

    `space`: what the code is, "w", "w+" with a w for each style layer, or "" for what it is in the codec. `code`, `films`, `ssim` and
    `content` weigh L1(w, w^), L2, 1 - SSIM and the content loss, the last three in both losses; in the paper all are 1. Each loss has
    its Adam with `lr` and `betas`. The learning rate rises over `warm_up` images, then falls along half a cosine, over `horizon` images, to
    `floor` times `lr`; `horizon` 0: it stays. `batch`: images of a step, never divided, as batch norm looks at all of them; 2 at least.
    `images`: where a run ends unless told otherwise.
    """

    blocks: tuple[int, ...] = (3, 4, 23, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: int = 4
    hidden: int = 128
    grid: int = 1
    space: str = ""
    code: float = 1.0
    films: float = 1.0
    ssim: float = 1.0
    content: float = 1.0
    lr: float = 1e-4
    betas: tuple[float, ...] = (0.9, 0.999)
    warm_up: int = 0
    horizon: int = 0
    floor: float = 0.05
    clip: float = 0.0
    batch: int = 16
    images: int

    def __post_init__(self) -> None:
        for name in ("code", "films", "ssim", "content", "warm_up", "horizon", "floor", "clip"):
            check_at_least(name, getattr(self, name), 0)
        check_at_least("images", self.images, 1)
        check_at_least("batch", self.batch, 2)
        check_choice("space", self.space, SPACES)
        if not self.floor <= 1:
            raise ConfigError(f"floor must be 0 to 1: {self.floor}")
        check_rate("lr", self.lr)
        check_betas(self.betas)
        if not self.films + self.ssim + self.content > 0:
            raise ConfigError(
                f"films, ssim and content must not all be 0, or films teach nothing: {self.films}, {self.ssim}, {self.content}"
            )
        try:
            self.encoder(code_size=1, layers=1)  # checks itself
        except CodecError as error:
            raise ConfigError(str(error)) from None

    def encoder(self, *, code_size: int, layers: int) -> CrgSettings:
        """The encoder's settings for codes [layers, code_size]."""
        return CrgSettings(
            blocks=self.blocks,
            widths=self.widths,
            stem=self.stem,
            hidden=self.hidden,
            grid=self.grid,
            code_size=code_size,
            layers=layers,
        )

    def lr_at(self, seen: int) -> float:
        """The learning rate once `seen` images are seen."""
        return annealed(self.lr, seen, self.horizon or 1, warm_up=self.warm_up, floor=self.floor if self.horizon else 1.0)


def _saboo2020() -> CrgConfig:
    """The paper: ResNet-101, a code w, all terms of weight 1, for a StyleGAN of 128x128.

    Optimiser, learning rate, size of a step and length of training are not in the paper; Adam at 1e-4 in steps of 16 films is usual, and
    2 million are about ten epochs of CheXpert's frontal films.
    """
    return CrgConfig(space="w", images=2_000_000)


def _default() -> CrgConfig:
    """The paper's encoder with places kept in its last layer, and a loss that weighs errors of pixels: for a day of one GPU (estimated)."""
    return CrgConfig(grid=4, films=10.0, lr=2e-4, warm_up=8_000, horizon=1_000_000, clip=1.0, batch=32, images=1_000_000)


def _cpu_small() -> CrgConfig:
    """For a StyleGAN of 32x32, on one core of a CPU."""
    return CrgConfig(
        blocks=(1, 2, 1),
        widths=(24, 32, 48),
        stem=2,
        hidden=32,
        grid=4,
        films=10.0,
        lr=2e-3,
        warm_up=320,
        horizon=8_000,
        clip=1.0,
        images=8_000,
    )


PRESETS: dict[str, Callable[[], CrgConfig]] = {"default": _default, "saboo2020": _saboo2020, "cpu-small": _cpu_small}
