"""Settings of the two trainings of an encoder for a generator that stays as it is, and their presets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.config import check_at_least, check_choice, parse_loss
from engine.errors import ConfigError
from trainers.presets.checks import check_rate
from trainers.presets.codec import annealed

__all__ = ["PRESETS", "EncoderBootstrapConfig", "EncoderFinetuneConfig", "EncoderTraining"]


@dataclass(frozen=True, kw_only=True)
class EncoderTraining:
    """What both trainings share. `batch` images a step, `part` of them at a time through the networks (0: all).

    `fresh` begins with a new encoder even where the codec has one. A new one has `depths`, `widths` and `stochastic_depth`, sees films
    averaged over `pool` x `pool` pixels, and with `quick` starts from weights that suit short trainings.
    `generate_at`: the resolution of the films that it learns from, 0 for the codec's own: a level for which the codec has a coarse head
    costs a fraction, and nothing is lost where the encoder's pooling would average finer pixels anyway.
    The learning rate rises to `lr` over `warm_up` images, then falls along half a cosine, over `horizon` images, to `floor` times `lr`;
    `horizon` 0: it stays. `storage`: type of the encoder's weights on the disk. `images`: where a run ends unless told otherwise.
    """

    images: int
    batch: int = 16
    part: int = 0
    fresh: bool = True
    depths: tuple[int, ...] = (3, 3, 27, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    stochastic_depth: float = 0.4
    quick: bool = False
    pool: int = 1
    generate_at: int = 0
    lr: float = 5e-5
    warm_up: int = 0
    horizon: int = 0
    floor: float = 0.05
    weight_decay: float = 0.0
    clip: float = 0.0
    storage: str = "float16"

    def __post_init__(self) -> None:
        for name in ("part", "stochastic_depth", "generate_at", "warm_up", "horizon", "floor", "weight_decay", "clip"):
            check_at_least(name, getattr(self, name), 0)
        for name in ("images", "batch", "pool"):
            check_at_least(name, getattr(self, name), 1)
        check_choice("storage", self.storage, ("float16", "float32"))
        check_rate("lr", self.lr)
        if not self.floor <= 1:
            raise ConfigError(f"floor must be 0 to 1: {self.floor}")

    def lr_at(self, seen: int) -> float:
        """The learning rate once `seen` images are seen."""
        floor = self.floor if self.horizon else 1.0
        return annealed(self.lr, seen, self.horizon or 1, warm_up=self.warm_up, floor=floor)


@dataclass(frozen=True, kw_only=True)
class EncoderBootstrapConfig(EncoderTraining):
    """Stage 1 of Weber et al. 2022: codes are found again from the films that the generator makes of them.

    `distance` between a code z on the sphere and what is found: "l1" is equation 2, |z - E|, with E as its last layer gives it; "sphere"
    is the squared distance with E on the sphere as well, to which the length of E is nothing. In a trial of 12,000 images with the preset
    cpu-small the second came to films of 21.6 dB, the first to 20.6. (|z - E| with E on the sphere is no choice: one large entry and
    all others near 0 is a minimum of it from which an encoder does not return.) "mse": the squared distance with E as its last layer gives
    it. `network` "discriminator" is the embedder of Segal et al. 2021, 4.5, whose distance is "mse": the discriminator of a file with a
    code in place of its score; depths, widths, pool and the like are then nothing to it.
    """

    distance: str = "l1"
    network: str = "convnext"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("distance", self.distance, ("l1", "sphere", "mse"))
        check_choice("network", self.network, ("convnext", "discriminator"))
        if self.network == "discriminator" and not self.fresh:
            raise ConfigError(f"network discriminator is no encoder of the codec's to go on from, so fresh must be true: {self.fresh}")


@dataclass(frozen=True, kw_only=True)
class EncoderFinetuneConfig(EncoderTraining):
    """Stage 2, equation 4: films are found again from what the generator makes of their codes. `loss` as `--loss` has it.

    `lpips_net`, `lpips_size`, `perceptual_weights`: as `RefineConfig`.
    """

    fresh: bool = False
    loss: str = "mse=1"
    lpips_net: str = "alex"
    lpips_size: int = 0
    perceptual_weights: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("lpips_size", self.lpips_size, 0)
        check_choice("lpips_net", self.lpips_net, ("alex", "vgg"))
        parse_loss(self.loss)


_TINY: dict[str, Any] = {"depths": (1, 1, 2, 1), "widths": (16, 32, 64, 128), "stochastic_depth": 0.0, "quick": True}
_DEMO: dict[str, Any] = {
    "depths": (1, 2, 4, 2),
    "widths": (48, 96, 192, 384),
    "stochastic_depth": 0.0,
    "quick": True,
    "pool": 8,
    "generate_at": 128,
}


def _bootstrap_weber2022() -> EncoderBootstrapConfig:
    """The paper: ConvNeXt-Small on films of 1024x1024, 500,000 steps of 64."""
    return EncoderBootstrapConfig(images=32_000_000, batch=64, part=16)


def _bootstrap_demo() -> EncoderBootstrapConfig:
    """An encoder of 8 MB for a codec of 1024x1024 with coarse heads, which sees 128x128."""
    return EncoderBootstrapConfig(
        images=40_000, lr=1e-3, warm_up=800, horizon=40_000, weight_decay=0.01, clip=1.0, distance="sphere", **_DEMO
    )


def _bootstrap_cpu_small() -> EncoderBootstrapConfig:
    """For a codec of 64x64, in a minute or two."""
    return EncoderBootstrapConfig(
        images=12_000, lr=1e-3, warm_up=320, horizon=12_000, weight_decay=0.01, clip=1.0, distance="sphere", **_TINY
    )


def _finetune_weber2022() -> EncoderFinetuneConfig:
    """The paper: 15 epochs of ChestX-ray14's 86,524 films for training, ten on each of four GPUs."""
    return EncoderFinetuneConfig(images=15 * 86_524, batch=40, part=10, lr=1e-5, loss="mse=1,lpips=0.8,moco=0.1")


def _finetune_demo() -> EncoderFinetuneConfig:
    """For the codec that `encoder-bootstrap --preset demo` makes."""
    return EncoderFinetuneConfig(images=8_000, lr=2e-4, warm_up=320, horizon=8_000, weight_decay=0.01, clip=1.0, **_DEMO)


def _finetune_cpu_small() -> EncoderFinetuneConfig:
    """For the codec that `encoder-bootstrap --preset cpu-small` makes."""
    return EncoderFinetuneConfig(images=2_000, lr=2e-4, warm_up=160, horizon=2_000, weight_decay=0.01, clip=1.0, **_TINY)


PRESETS: Mapping[str, Mapping[str, Callable[[], EncoderTraining]]] = {
    "encoder-bootstrap": {
        "default": _bootstrap_weber2022,
        "weber2022": _bootstrap_weber2022,
        "demo": _bootstrap_demo,
        "cpu-small": _bootstrap_cpu_small,
    },
    "encoder-finetune": {
        "default": _finetune_weber2022,
        "weber2022": _finetune_weber2022,
        "demo": _finetune_demo,
        "cpu-small": _finetune_cpu_small,
    },
}
