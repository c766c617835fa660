"""Settings of the training of detectors, and the presets of `train retinanet`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.config import check_at_least, check_choice
from engine.errors import ConfigError
from trainers.presets.checks import check_rate
from trainers.presets.codec import annealed

__all__ = ["PRESETS", "RetinanetConfig"]


@dataclass(frozen=True, kw_only=True)
class RetinanetConfig:
    """`boxes`: a table as `trainers/boxes.py` reads it, or "truth" for the opacities of phantoms. `finding`: what they are around.

    `resolution`, `backbone`, `widths`, `pyramid`, `anchors`, `least_score`, `overlap` and `residue_gain` are the network's
    (`RetinaNetSettings`); with `--codec` it sees the residue map of the film as well. `imagenet_weights`: "none", "hub" for torchvision's
    file of ResNet-50 where torch keeps what it downloaded, or the path of such a file; nothing is downloaded. With them its batch norms
    are frozen, without them it has group norm: neither looks at several films, so a step of `batch` may be taken `part` films at a time.
    `optimiser`: "sgd" with `momentum`, or "adam" (AdamW). `lr` rises over the first `warm_up` images; then it follows half a cosine down to
    `floor` times itself at `horizon` images, 0: it stands. `box_weight`: what the L1 of boxes counts beside the focal loss. `clip`: the
    norm that gradients are cut to, 0 for none. `judged`: films held out that figures are taken of, at most. `images`: where a run ends
    unless told otherwise.
    """

    boxes: str = "truth"
    finding: str = "opacity"
    resolution: int = 224
    backbone: str = "resnet50"
    widths: tuple[int, ...] = ()
    pyramid: int = 256
    anchors: tuple[int, ...] = (32, 64, 128, 256, 512)
    least_score: float = 0.05
    overlap: float = 0.5
    residue_gain: float = 1.0
    imagenet_weights: str = "none"
    batch: int = 8
    part: int = 0
    optimiser: str = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warm_up: int = 0
    horizon: int = 0
    floor: float = 0.02
    box_weight: float = 1.0
    clip: float = 0.0
    judged: int = 4096
    images: int

    def __post_init__(self) -> None:
        if not self.boxes:
            raise ConfigError("boxes must be truth, for phantoms, or the path of a table: none")
        check_choice("optimiser", self.optimiser, ("sgd", "adam"))
        for name in ("batch", "judged", "images"):
            check_at_least(name, getattr(self, name), 1)
        for name in ("part", "weight_decay", "warm_up", "horizon", "floor", "clip"):
            check_at_least(name, getattr(self, name), 0)
        check_rate("lr", self.lr)
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum must be 0 or more and under 1: {self.momentum}")
        if not self.floor <= 1:
            raise ConfigError(f"floor must be 0 to 1: {self.floor}")
        if not 0 < self.box_weight <= 1000:
            raise ConfigError(f"box_weight must be above 0 and 1000 at most: {self.box_weight}")
        if self.imagenet_weights != "none" and self.backbone != "resnet50":
            raise ConfigError(f"imagenet_weights are those of resnet50, the backbone is another: {self.backbone}")

    def lr_at(self, seen: int) -> float:
        """The learning rate once `seen` images are seen."""
        return annealed(self.lr, seen, self.horizon or 1, warm_up=self.warm_up, floor=self.floor if self.horizon else 1.0)


def _default() -> RetinanetConfig:
    """ResNet-50 from fresh weights at 256x256, with smaller anchors, since films are not enlarged first as torchvision does."""
    course: dict[str, Any] = {"warm_up": 8_000, "horizon": 500_000, "clip": 10.0}
    return RetinanetConfig(resolution=256, anchors=(16, 32, 64, 128, 256), **course, images=500_000)


def _tang2021() -> RetinanetConfig:
    """Tang et al. 2021, 5.8: ResNet-50, SGD at 0.01, momentum 0.9, decay 0.0001, 25 epochs of 2,500 steps of 8 films of 224x224.

    Whether the rate falls, anchors, weights to begin with and the residue's scale are not stated: it stands, anchors are those of the
    RetinaNet paper, weights are ImageNet's, and the residue is as the DGM makes it.
    """
    return RetinanetConfig(imagenet_weights="hub", images=25 * 2_500 * 8)


def _cpu_small() -> RetinanetConfig:
    """A few narrow stages on phantoms of 64x64, whose opacities are 7 to 17 pixels wide, in minutes on one core."""
    network: dict[str, Any] = {"backbone": "plain", "widths": (16, 32, 64), "pyramid": 32, "anchors": (8, 16), "least_score": 0.02}
    course: dict[str, Any] = {"optimiser": "adam", "lr": 2e-3, "batch": 16, "warm_up": 640, "horizon": 16_000, "clip": 10.0}
    return RetinanetConfig(resolution=64, **network, **course, images=16_000)


PRESETS: dict[str, Callable[[], RetinanetConfig]] = {"default": _default, "tang2021": _tang2021, "cpu-small": _cpu_small}
