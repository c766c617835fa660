"""The presets of `train lsgan`: the least-squares GAN of Kumar and Triana 2024, which is a deep convolutional GAN with another loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from trainers.presets.dcgan import DcganConfig

__all__ = ["PRESETS"]

_EPOCHS, _CHEST_X_RAY_14 = 5, 112_120


def _kumar2024() -> DcganConfig:
    """Kumar and Triana 2024: figure 7's networks at 128x128, five epochs of ChestX-ray14, the generator moved three times a step.

    Films are cropped to their centre and their histograms equalised, in that order there, the other way round in our recipe (section 4,
    which speaks of 224 pixels; the generator of figure 7 makes 128). The paper does not say how codes are drawn, how weights begin, or how
    2x2 scores become a loss: standard normal codes, Radford's weights, the mean over the scores.
    """
    return DcganConfig(
        resolution=128,
        width=32,
        head="map",
        loss="least-squares",
        generator_steps=3,
        square="crop",
        equalise="histogram",
        images=_EPOCHS * _CHEST_X_RAY_14,
    )


def _default() -> DcganConfig:
    """The paper's networks and losses on films as they are, whole and with their own grays, and the averaged generator kept."""
    return replace(_kumar2024(), ema=0.999, square="pad", equalise="none", images=1_000_000)


def _cpu_small() -> DcganConfig:
    """As `default` for one core of a laptop: 64x64 and half of the paper's widths. Few steps fit: they are small and go far."""
    return replace(_default(), resolution=64, width=16, batch_size=16, lr=1e-3, ema=0.99, images=15_000)


PRESETS: dict[str, Callable[[], DcganConfig]] = {"default": _default, "kumar2024": _kumar2024, "cpu-small": _cpu_small}
