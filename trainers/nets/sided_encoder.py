"""The encoder while it is trained: it sees films of one size, whatever the size of those that are at hand."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.convnext import CNBlock

from engine.encode.gauge import project
from engine.errors import ConfigError
from engine.networks.coarse import shrink
from engine.networks.convnext import ConvNextEncoder, ConvNextSettings

LEAST_SIDE = 32  # pixels: what four stages of halving leave something of


@dataclass(frozen=True)
class EncoderShape:
    """What `build_encoder` needs; see ConvNextSettings. `quick`: where its weights start, see there."""

    code_size: int
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    stochastic_depth: float
    quick: bool


class SidedEncoder(nn.Module):
    """Films [N, 1, r, r] in [-1, 1] of any r -> codes [N, 1, code_size] float32 on the sphere. It sees them at `side` pixels.

    Larger films are averaged over squares, as the stored encoder does it by its `pool`; smaller ones are enlarged.
    """

    def __init__(self, settings: ConvNextSettings, side: int) -> None:
        super().__init__()
        self.settings, self.side = replace(settings, pool=1), side
        self.network = ConvNextEncoder(self.settings)

    def forward(self, films: Tensor) -> Tensor:
        return project(self.raw(films), "sphere")

    def raw(self, films: Tensor) -> Tensor:
        """Codes as the last layer gives them."""
        codes: Tensor = self.network(self.seen(films))
        return codes.float()

    @torch.no_grad()
    def standardise(self, mean: Tensor, spread: Tensor) -> None:
        """Changes the last layer so that raw codes of this `mean` [1, code_size] and `spread` (one number) get mean 0 and spread 1.

        A fresh network gives all films nearly one code, in which the noise of training would drown what little tells them apart.
        """
        last = self.network.classifier[-1]
        last.bias.copy_((last.bias - mean.flatten()) / spread)
        last.weight /= spread

    def seen(self, films: Tensor) -> Tensor:
        """Films [N, 1, side, side]."""
        if films.shape[-1] < self.side:
            return F.interpolate(films, size=(self.side, self.side), mode="bilinear", align_corners=False)
        return shrink(films, self.side)

    def stored_settings(self, resolution: int) -> dict[str, Any]:
        """The settings of `codec.json` for films of `resolution` pixels."""
        return asdict(replace(self.settings, pool=resolution // self.side))

    def stored(self, resolution: int) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
        """Registry name, settings for films of `resolution` pixels, and weights of the encoder that is stored."""
        return "convnext", self.stored_settings(resolution), self.network.state_dict()


def build_encoder(shape: EncoderShape, side: int) -> SidedEncoder:
    """An encoder with fresh weights from torch's generator of random numbers. Raises ConfigError for a side that it cannot see.

    torchvision's start, weights of 0.02 and blocks of 1e-6, is for trainings of weeks: at first all films get codes that differ by a
    twentieth of their mean. With `quick` weights keep the variance of what comes in (He et al. 2015) and blocks count fully, and codes
    differ three times as much.
    """
    if side < LEAST_SIDE:
        raise ConfigError(f"the encoder must see films of {LEAST_SIDE} pixels or more a side: {side}")
    settings = ConvNextSettings(
        depths=shape.depths, widths=shape.widths, code_size=shape.code_size, stochastic_depth=shape.stochastic_depth
    )
    encoder = SidedEncoder(settings, side)
    if shape.quick:
        for layer in encoder.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            elif isinstance(layer, CNBlock):
                nn.init.ones_(layer.layer_scale)
    return encoder


def without_common_gradient(raw: Tensor, group: int) -> Tensor:
    """Codes [N, ...] as they are, whose gradient has mean 0 over each `group` consecutive films.

    What is common to the gradients of all films, the wish of a young generator for one good mean film, would soon move all codes to one
    place, from where an encoder takes long to return.
    """
    grouped = raw.reshape(-1, group, *raw.shape[1:])
    mean = grouped.mean(dim=1, keepdim=True)
    return (grouped - mean + mean.detach()).reshape(raw.shape)


def take_encoder(network: nn.Module, resolution: int) -> SidedEncoder:
    """A trainable copy of a codec's encoder. Raises ConfigError for one of another kind than ConvNeXt."""
    if not isinstance(network, ConvNextEncoder):
        raise ConfigError(f"only a convnext encoder can be trained further: {type(network).__name__}")
    encoder = SidedEncoder(network.settings, resolution // network.settings.pool)
    encoder.network.load_state_dict(network.state_dict())
    return encoder
