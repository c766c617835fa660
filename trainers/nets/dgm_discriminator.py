"""The multi-scale discriminator of Wang et al. 2018 (pix2pixHD): networks alike that judge patches of films at ever coarser scales."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import ConfigError

_LEAK = 0.2


@dataclass(frozen=True, kw_only=True)
class MultiScaleSettings:
    """`scales` networks, each on films of half the side of the one before. Each has `layers` strided convolutions, the first `width` wide.

    `norm` "instance" is pix2pixHD's; with "none" scores can depend on how strong something is in a film, which such a norm takes away.
    """

    scales: int = 3
    width: int = 64
    layers: int = 3
    norm: str = "instance"

    def __post_init__(self) -> None:
        if self.norm not in ("instance", "none"):
            raise ConfigError(f"discriminator norm must be one of instance, none: {self.norm}")
        for name, most in (("scales", 8), ("width", 4096), ("layers", 8)):
            if not 1 <= getattr(self, name) <= most:
                raise ConfigError(f"discriminator {name} must be 1 to {most}: {getattr(self, name)}")

    def check_side(self, side: int) -> None:
        """Raises ConfigError for films of which the coarsest scale has too few pixels for an instance norm."""
        least = 2 ** (self.layers + self.scales - 1)
        if side < least:
            raise ConfigError(f"films need {least} pixels a side for {self.scales} scales of {self.layers} layers: {side}")


class MultiScaleDiscriminator(nn.Module):
    """Films [N, 1, R, R] -> one map of scores [N, 1, r, r] a scale, the finest first; each score judges a patch."""

    def __init__(self, settings: MultiScaleSettings) -> None:
        super().__init__()
        self.settings = settings
        self.scales = nn.ModuleList(_patches(settings) for _ in range(settings.scales))

    def forward(self, films: Tensor) -> list[Tensor]:
        """The scores, in the films' own type or that of autocast."""
        scores = []
        for place, scale in enumerate(self.scales):
            if place:
                films = F.avg_pool2d(films, 3, stride=2, padding=1, count_include_pad=False)
            scores.append(scale(films))
        return scores


def _patches(settings: MultiScaleSettings) -> nn.Sequential:
    """Convolutions of 4x4: `layers` of stride 2, then two of stride 1. Widths double up to eight times the first; all but the first and the
    last are followed by the norm, all but the last by leaky ReLU. Weights start from N(0, 0.02), as in pix2pixHD; without a norm, which
    would let scores fade away, so that the variance is kept (He et al. 2015).
    """
    widths = [1, *(settings.width * min(8, 2**layer) for layer in range(settings.layers + 1)), 1]
    has_norm = settings.norm == "instance"
    layers: list[nn.Module] = []
    for place, (below, width) in enumerate(pairwise(widths)):
        conv = nn.Conv2d(below, width, 4, stride=2 if place < settings.layers else 1, padding=2)
        layers.append(_started(conv, has_norm=has_norm))
        if place <= settings.layers:
            norm = [nn.InstanceNorm2d(width)] if place and has_norm else []
            layers += [*norm, nn.LeakyReLU(_LEAK)]
    return nn.Sequential(*layers)


def _started(conv: nn.Conv2d, *, has_norm: bool) -> nn.Conv2d:
    if has_norm:
        nn.init.normal_(conv.weight, std=0.02)
    else:
        nn.init.kaiming_normal_(conv.weight, a=_LEAK)
    return conv
