"""Settings of the joint training of encoder and generator, level by level, and the presets of `train codec-finetune`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from engine.config import check_at_least, check_choice, parse_loss
from engine.errors import ConfigError
from trainers.presets.checks import check_betas, check_rate

__all__ = ["PRESETS", "CodecFinetuneConfig", "Level", "Moment", "annealed"]


@dataclass(frozen=True, kw_only=True)
class Level:
    """A stretch of training on films of one size: `images` of them, `batch` a step, at a learning rate that starts at `lr`.

    `fade`: over so many of them the film of the level below, which must have half the resolution, gives way, where the level starts from
    nothing. `part`: images that go through the networks at a time, 0 for all of a step.
    """

    resolution: int
    images: int
    batch: int
    lr: float = 1e-3
    fade: int = 0
    part: int = 0

    def __post_init__(self) -> None:
        check_at_least("level.images", self.images, 1)
        check_at_least("level.batch", self.batch, 1)
        check_at_least("level.part", self.part, 0)
        if self.resolution < 4 or self.resolution & (self.resolution - 1):
            raise ConfigError(f"level.resolution must be a power of two from 4 up: {self.resolution}")
        check_rate("level.lr", self.lr)
        if not 0 <= self.fade <= self.images:
            raise ConfigError(f"level.fade must be 0 to the level's {self.images} images: {self.fade}")

    @property
    def taken(self) -> int:
        """The level's images in steps of whole batches: the last one is never cut."""
        return math.ceil(self.images / self.batch) * self.batch


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where training is: the number of its level, how many of the level's images are seen, and the learning rate."""

    at: int
    seen: int
    lr: float


@dataclass(frozen=True, kw_only=True)
class CodecFinetuneConfig:
    """Encoder and generator trained together on films: what is minimised is `loss` (equation 4 of Weber et al. 2022, as `--loss` has it).

    `levels`: from coarse films to whole ones, since an image at full size costs many times one at an eighth of it. In each level the
    learning rate rises over `warm_up` images, then falls along a half cosine to `floor` times its start. Weight decay is AdamW's.
    `encoder_rate`: the encoder's learning rate, as a part of the generator's. From nothing, the encoder stays as it starts for `wait`
    images, in which the generator learns to read its codes, and then rises over `warm_up` more; for `settle` images its gradients are
    kept from moving all codes to one place (`without_common_gradient`, over each `group` films).
    `noise`: standard deviation of what is added to codes before films are made of them, so that films vary smoothly with their codes.
    `adversarial`: weight of the generator's Wasserstein loss on films of random codes; above 0 a critic learns beside, one step in
    `critic_every`. 0: no critic. The critic takes the spread over `group` films.
    `channels`, `code_size`, `output_range`, `depths`, `widths` and `stochastic_depth` make the networks where no codec is given.
    `encoder_side`: the side, in pixels, of the films that the encoder sees, whatever the level; a codec's own encoder has its own.
    `mean_images`: half-life, in images, of the mean code. `storage`: type of the weights on the disk. `perceptual_weights`: as
    `RefineConfig`. `compile_from`: levels of at least so many pixels go through Inductor, 0 for none. `images`: where a run ends unless
    told otherwise, 0 for the end of the last level.
    """

    levels: tuple[Level, ...]
    images: int = 0
    loss: str = "mse=1"
    lpips_net: str = "alex"
    lpips_size: int = 0
    perceptual_weights: str = ""
    noise: float = 0.15
    warm_up: int = 800
    floor: float = 0.05
    clip: float = 1.0
    betas: tuple[float, ...] = (0.9, 0.99)
    weight_decay: float = 0.01
    adversarial: float = 0.0
    critic_lr: float = 1e-3
    critic_every: int = 1
    gp_weight: float = 10.0
    drift: float = 1e-3
    encoder_rate: float = 0.5
    wait: int = 400
    settle: int = 8_000
    group: int = 8
    channels: tuple[int, ...] = (128, 128, 128, 128, 64, 32, 16, 8, 8)
    code_size: int = 256
    output_range: str = "unit"
    depths: tuple[int, ...] = (1, 2, 4, 2)
    widths: tuple[int, ...] = (48, 96, 192, 384)
    stochastic_depth: float = 0.0
    encoder_side: int = 256
    mean_images: int = 2_000
    storage: str = "float16"
    compile_from: int = 0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            check_at_least(name, getattr(self, name), least)
        check_choice("storage", self.storage, ("float16", "float32"))
        check_choice("lpips_net", self.lpips_net, ("alex", "vgg"))
        parse_loss(self.loss)
        if not self.levels:
            raise ConfigError(f"codec-finetune needs a level or more: {len(self.levels)}")
        sides = [level.resolution for level in self.levels]
        if sides != sorted(sides):
            raise ConfigError(f"levels must go from coarse to fine: {', '.join(map(str, sides))}")
        for below, level in pairwise(self.levels):
            if level.fade and level.resolution != 2 * below.resolution:
                sizes = f"{level.resolution} after {below.resolution}"
                raise ConfigError(f"level.fade must be 0 but where the resolution is twice that of the level before: {sizes}")
        if not self.floor <= 1:
            raise ConfigError(f"floor must be 0 to 1: {self.floor}")
        check_betas(self.betas)
        if not 0 < self.encoder_rate <= 10:
            raise ConfigError(f"encoder_rate must be above 0 and at most 10: {self.encoder_rate}")
        uneven = [level.batch for level in self.levels if level.batch % min(self.group, level.batch)]
        if uneven:
            raise ConfigError(f"the batch of a level must be less than a group or whole groups of {self.group}: {uneven[0]}")
        if not self.images:
            object.__setattr__(self, "images", self._taken())

    def cut_to(self, resolution: int) -> CodecFinetuneConfig:
        """The same for a generator that ends at a lower level than the last one here: what lies above is left out, and so are its images.

        Where `images` is not the end of the last level, it stays. A config that is cut already stays as it is.
        """
        kept = tuple(level for level in self.levels if level.resolution <= resolution)
        if len(kept) < len(self.levels) and (not kept or kept[-1].resolution < resolution):
            kept = (*kept, replace(self.levels[len(kept)], resolution=resolution))
        return replace(self, levels=kept, images=0 if self.images == self._taken() else self.images)

    def moment(self, seen: int) -> Moment:
        """Where training is once `seen` images are seen; beyond the last level its learning rate stays at the floor."""
        at = 0
        while at + 1 < len(self.levels) and seen >= self.levels[at].taken:
            seen -= self.levels[at].taken
            at += 1
        level = self.levels[at]
        return Moment(at=at, seen=seen, lr=annealed(level.lr, seen, level.images, warm_up=self.warm_up, floor=self.floor))

    def _taken(self) -> int:
        return sum(level.taken for level in self.levels)


def annealed(lr: float, seen: int, images: int, *, warm_up: int, floor: float) -> float:
    """The learning rate after `seen` of `images`: a straight rise over `warm_up` images, then half a cosine down to `floor` times `lr`."""
    rise = min(1.0, (seen + 1) / warm_up) if warm_up else 1.0
    share = min(1.0, seen / images)
    return lr * rise * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share)))


_LEAST: dict[str, float] = {
    **dict.fromkeys(
        ("noise", "warm_up", "floor", "clip", "weight_decay", "adversarial", "critic_lr", "gp_weight", "drift", "images", "wait", "settle"),
        0,
    ),
    **dict.fromkeys(("lpips_size", "compile_from"), 0),
    **dict.fromkeys(("critic_every", "group", "code_size", "encoder_side", "mean_images"), 1),
}


def _cpu_small() -> CodecFinetuneConfig:
    """64x64 on a laptop, in a minute or two."""
    return CodecFinetuneConfig(
        levels=(Level(resolution=32, images=3_000, batch=16), Level(resolution=64, images=1_000, batch=16, lr=5e-4, fade=200)),
        channels=(64, 64, 64, 32, 16),
        code_size=64,
        depths=(1, 1, 2, 1),
        widths=(16, 32, 64, 128),
        encoder_side=32,
        warm_up=160,
        mean_images=500,
        wait=320,
        settle=2_000,
    )


def _demo() -> CodecFinetuneConfig:
    """1024x1024 with a code of 256, from nothing in about 40 minutes of one CPU core: coarse levels do the work, fine ones finish it."""
    return CodecFinetuneConfig(
        levels=(
            Level(resolution=32, images=12_000, batch=8),
            Level(resolution=64, images=10_000, batch=8, lr=6e-4, fade=400),
            Level(resolution=128, images=10_000, batch=8, lr=4e-4, fade=400),
            Level(resolution=256, images=4_000, batch=8, lr=3e-4, fade=400),
            Level(resolution=512, images=1_000, batch=4, lr=3e-4, fade=100),
            Level(resolution=1024, images=600, batch=4, lr=3e-4, fade=80),
        ),
        noise=0.1,
        encoder_side=128,
        warm_up=200,
        compile_from=64,
    )


def _films() -> CodecFinetuneConfig:
    """The demo's networks on real films, of which there are never enough: meant for `--codec demo --augment flip`, in half the time."""
    return replace(
        _demo(),
        levels=(
            Level(resolution=32, images=4_000, batch=8, lr=6e-4),
            Level(resolution=64, images=6_000, batch=8, lr=5e-4, fade=400),
            Level(resolution=128, images=8_000, batch=8, lr=4e-4, fade=400),
            Level(resolution=256, images=3_000, batch=8, lr=3e-4, fade=400),
            Level(resolution=512, images=600, batch=4, lr=3e-4, fade=100),
            Level(resolution=1024, images=400, batch=4, lr=3e-4, fade=80),
        ),
        images=0,
    )


PRESETS = {"default": _demo, "demo": _demo, "films": _films, "cpu-small": _cpu_small}
