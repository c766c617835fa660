"""Settings of the disentangled generative model of Tang et al. 2021, and the presets of `train dgm`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.config import check_at_least, check_choice
from engine.errors import ConfigError
from engine.labels import LabelSpec
from trainers.presets.checks import check_betas, check_rate

__all__ = ["ABNORMAL", "PRESETS", "DgmConfig"]

ABNORMAL = "abnormal"  # the one label
_WEIGHTS = ("critic_noise", "critic_abnormal", "adversarial", "reconstruction", "smoothness", "head", "weight_decay")


@dataclass(frozen=True, kw_only=True)
class DgmConfig:
    """Networks, weights of the losses, and course of a training. Steps are as many normal films as abnormal ones, in turns.

    `abnormal`: which films are so, as `LabelSpec` reads it; its name must be abnormal ("abnormal: effusion, mass"). `resolution`, `widths`,
    `blocks`, `reconstruct`, `mlp_width`: as `DgmSettings`. `scales`, `critic_width`, `critic_layers`, `critic_norm`: of the discriminator.
    `adversarial`, `reconstruction`, `smoothness`: lambda_A, lambda_R, lambda_TV of equation 6. `tv`: whether equation 5 is the sum over
    pixels or, as the L1 norms are here, their mean. `head`: weight of the normal/abnormal head's cross-entropy, 0 for no head.
    `critic_noise`: standard deviation of noise on whatever the discriminator sees, real or made, by which it looks for what is larger than
    grain; 0 for the paper's. `critic_abnormal`: weight of real abnormal films among what it is to tell from normal ones, beside the films
    that are made; 0 for the paper's. `critic_lr`: its learning rate as a part of `lr`. `halve_every`: images until the rate halves, 0:
    never. `batch`: images of a step; at least 2, since the discriminator's real films are the step's normal ones. `part`: images of a step
    that go through the networks at a time, 0 for all. `storage`: type of the codec's weights. `images`: where a run ends unless told
    otherwise.
    """

    images: int
    abnormal: str = ABNORMAL
    resolution: int = 224
    widths: tuple[int, ...] = (64, 64, 128, 256, 512)
    blocks: int = 4
    mlp_width: int = 256
    reconstruct: str = "sum"
    scales: int = 3
    critic_width: int = 64
    critic_layers: int = 3
    critic_norm: str = "instance"
    critic_noise: float = 0.0
    critic_lr: float = 1.0
    critic_abnormal: float = 0.0
    adversarial: float = 10.0
    reconstruction: float = 10.0
    smoothness: float = 1.0
    tv: str = "mean"
    head: float = 1.0
    lr: float = 1e-5
    betas: tuple[float, ...] = (0.5, 0.999)
    weight_decay: float = 1e-4
    halve_every: int = 0
    batch: int = 2
    part: int = 0
    storage: str = "float16"

    def __post_init__(self) -> None:
        for name in (*_WEIGHTS, "halve_every", "part"):
            check_at_least(name, getattr(self, name), 0)
        check_at_least("images", self.images, 1)
        check_at_least("batch", self.batch, 2)
        check_choice("critic_norm", self.critic_norm, ("instance", "none"))
        check_choice("tv", self.tv, ("sum", "mean"))
        check_choice("storage", self.storage, ("float16", "float32"))
        if self.batch % 2 or self.part % 2:
            raise ConfigError(f"batch and part must be even, as many normal films as abnormal ones: {self.batch}, {self.part}")
        check_rate("lr", self.lr)
        if not 0 < self.critic_lr <= 100:
            raise ConfigError(f"critic_lr must be above 0 and at most 100: {self.critic_lr}")
        check_betas(self.betas)
        if LabelSpec.parse(self.abnormal).name != ABNORMAL:
            raise ConfigError(f"abnormal must be a column of that name, or read like abnormal: TERM, TERM: {self.abnormal}")

    def lr_at(self, seen: int) -> float:
        """The learning rate once `seen` images are seen."""
        return self.lr * 0.5 ** (seen // self.halve_every) if self.halve_every else self.lr


_EPOCH = 24_400  # films that train: 95 % of 25,684


def _tang2021() -> DgmConfig:
    """The paper (section 5.1), 30 epochs; its batch of one film is here one normal and one abnormal film."""
    return DgmConfig(images=30 * _EPOCH, halve_every=10 * _EPOCH)


def _default() -> DgmConfig:
    """The paper's networks and weights, in larger steps, at a rate that suits them, and with a discriminator as that of `cpu-small`."""
    return replace(_tang2021(), batch=16, lr=5e-5, critic_abnormal=1.0)


def _cpu_small() -> DgmConfig:
    """64x64 in minutes on one core of a CPU. Phantoms: abnormal are those with an opacity, other findings are in both classes.

    The discriminator also learns from abnormal films themselves. By films that are made alone it finds disease late, since they differ
    from real ones by more than that; what is made then keeps most of an opacity.
    """
    return DgmConfig(
        images=24_000,
        abnormal="abnormal: opacity?",
        resolution=64,
        widths=(16, 24, 48),
        blocks=1,
        mlp_width=64,
        critic_width=16,
        critic_layers=3,
        critic_norm="none",
        critic_noise=0.1,
        critic_abnormal=1.0,
        smoothness=0.1,
        lr=1e-3,
        weight_decay=0.0,
        head=5.0,
        halve_every=12_000,
        batch=16,
    )


PRESETS = {"default": _default, "tang2021": _tang2021, "cpu-small": _cpu_small}
