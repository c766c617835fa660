"""Settings of the training of classifiers, and the presets of `train densenet`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from engine.config import check_at_least, check_choice
from engine.errors import ConfigError
from engine.labels import LabelSpec
from trainers.presets.codec import annealed

__all__ = ["PRESETS", "DensenetConfig"]

_CHESTXRAY14 = (
    *("No Finding", "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis"),
    *("Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax"),
)
_NIH_LABELS = tuple(f"{name}: Finding Labels={name}" for name in _CHESTXRAY14)  # as Data_Entry_2017.csv has them
_PHANTOM_LABELS = ("cardiomegaly", "effusion: effusion_left, effusion_right", "opacity: opacity?", "pneumothorax: pneumothorax?", "device")


@dataclass(frozen=True, kw_only=True)
class DensenetConfig:
    """`labels`: what is learned, each as `LabelSpec.parse` reads it. `network`: "densenet", or "discriminator" to start from a file.

    A densenet has `blocks`, `growth`, `stem`, `bottleneck` and `dropout` (`DenseNetSettings`) and sees films of `resolution` pixels; a
    discriminator brings its own widths and resolution. `imagenet_weights`: "none", "hub" for torchvision's file where torch keeps what it
    downloaded, or the path of such a file; nothing is downloaded.
    A step takes `batch` images, of which a discriminator may take `part` at a time (0: all; batch norm looks at whole steps).
    Each `judge_images` images the macro AUC of the held-out films is taken, at most `judged` of them; when `patience` of these in a row are
    no better than the best before, `lr` is multiplied by `cut`, three times at most. `patience` 0: never. Besides, it follows half a cosine
    down to `floor` times itself over `horizon` images; 0: it does not. `bootstrap`: resamples for the intervals of the AUC.
    `threshold`: where a label's line is drawn, "youden" (greatest sensitivity + specificity) or "balanced" (the two as equal as can be).
    `images`: where a run ends unless told otherwise.
    """

    labels: tuple[str, ...] = _NIH_LABELS
    network: str = "densenet"
    resolution: int = 256
    blocks: tuple[int, ...] = (6, 12, 24, 16)
    growth: int = 32
    stem: int = 64
    bottleneck: int = 4
    dropout: float = 0.0
    imagenet_weights: str = "none"
    batch: int = 32
    part: int = 0
    lr: float = 1e-3
    warm_up: int = 0
    horizon: int = 0
    floor: float = 0.02
    patience: int = 3
    cut: float = 0.1
    judge_images: int = 40_000
    judged: int = 4096
    bootstrap: int = 1000
    threshold: str = "youden"
    images: int

    def __post_init__(self) -> None:
        if not self.labels:
            raise ConfigError("labels must name one column or more, such as --set labels='[\"cardiomegaly\"]': none")
        for label in self.labels:
            LabelSpec.parse(label)
        check_choice("network", self.network, ("densenet", "discriminator"))
        check_choice("threshold", self.threshold, ("youden", "balanced"))
        for name in ("resolution", "batch", "judge_images", "judged", "images"):
            check_at_least(name, getattr(self, name), 1)
        for name in ("part", "dropout", "warm_up", "horizon", "patience", "bootstrap", "floor"):
            check_at_least(name, getattr(self, name), 0)
        for name in ("lr", "cut"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} must be above 0 and under 1: {getattr(self, name)}")
        if not self.floor <= 1:
            raise ConfigError(f"floor must be 0 to 1: {self.floor}")
        if self.network == "densenet" and self.batch < 2:
            raise ConfigError(f"batch must be 2 or more, since batch norm looks at several films: {self.batch}")
        if self.part and (self.network == "densenet" or self.batch % self.part):
            raise ConfigError(f"part must be 0, or for a discriminator divide the batch of {self.batch}: {self.part}")

    @property
    def names(self) -> tuple[str, ...]:
        """The labels by name."""
        return tuple(LabelSpec.parse(label).name for label in self.labels)

    def lr_at(self, seen: int) -> float:
        """The learning rate once `seen` images are seen, before any cut."""
        return annealed(self.lr, seen, self.horizon or 1, warm_up=self.warm_up, floor=self.floor if self.horizon else 1.0)


def _default() -> DensenetConfig:
    """DenseNet-121 from fresh weights on ChestX-ray14 at 256x256."""
    return DensenetConfig(images=1_000_000, horizon=1_000_000)


def _segal2021() -> DensenetConfig:
    """Segal et al. 2021, 3.3: from ImageNet's weights, Adam at 1e-3, a tenth of it when the macro AUC stands still for several epochs.

    Side, batch, number of epochs and what several means are not stated: 224, 32, 15 and 3 are ours; an epoch is 70 % of 112,120 films.
    `--augment segal2021 --stratify` belong to it.
    """
    epoch = 78_484
    return DensenetConfig(resolution=224, imagenet_weights="hub", judge_images=epoch, bootstrap=10_000, images=15 * epoch)


def _tang2021() -> DensenetConfig:
    """Tang et al. 2021, sections 4 and 5.2: DenseNet-161 and one label, lung opacity, as the RSNA pneumonia challenge names its films.

    With --codec of a `train dgm` run it sees residues as well; without one it is the network that the paper compares with. The two outputs
    of the paper are one logit here, their difference. Optimiser, rate, batch, epochs and where weights start are not stated: Adam at
    1e-4, cut as in Segal et al., 32 and fresh weights are ours, and 30 epochs are those of the DGM; an epoch is 95 % of 25,684 films.
    """
    epoch = 24_400
    widest: dict[str, Any] = {"resolution": 224, "blocks": (6, 12, 36, 24), "growth": 48, "stem": 96}
    opacity: dict[str, Any] = {"labels": ("opacity: class=Lung Opacity",), "threshold": "balanced"}
    return DensenetConfig(**opacity, **widest, lr=1e-4, judge_images=epoch, images=30 * epoch)


def _cpu_small() -> DensenetConfig:
    """A narrow network on phantoms of 128x128, in minutes on one core."""
    tiny: dict[str, Any] = {"resolution": 128, "blocks": (2, 4, 4), "growth": 16, "stem": 16, "bottleneck": 2}
    run: dict[str, Any] = {"lr": 3e-3, "warm_up": 320, "horizon": 32_000, "patience": 5, "judge_images": 2_000, "images": 32_000}
    return DensenetConfig(labels=_PHANTOM_LABELS, **tiny, **run)


def _opacity_small() -> DensenetConfig:
    """Lung opacity on phantoms of 64x64, in minutes on one core; with --codec of `train dgm --preset cpu-small`, by residues as well."""
    return replace(_cpu_small(), labels=("opacity: opacity?",), resolution=64, threshold="balanced")


PRESETS: dict[str, Callable[[], DensenetConfig]] = {
    "default": _default,
    "segal2021": _segal2021,
    "tang2021": _tang2021,
    "cpu-small": _cpu_small,
    "opacity-small": _opacity_small,
}
