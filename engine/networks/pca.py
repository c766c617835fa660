"""The linear codec: principal components, whitened. In closed form, and the floor that every deep codec is held against."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.errors import CodecError


@dataclass(frozen=True, kw_only=True)
class PcaSettings:
    """`components` coefficients for films of `resolution` x `resolution`."""

    resolution: int = 256
    components: int = 256

    def __post_init__(self) -> None:
        if not 1 <= self.resolution <= 4096:
            raise CodecError(f"pca.resolution must be 1 to 4096: {self.resolution}")
        if not 1 <= self.components <= self.resolution**2:
            raise CodecError(f"pca.components must be 1 to the number of pixels: {self.components}")


class PcaBasis(nn.Module):
    """What encoder and generator share, and one weights file holds: mean [d], components [k, d] of length 1, scale [k].

    d = resolution^2 pixels in [-1, 1], row by row. `scale` is each component's standard deviation over the films it was fitted on,
    so that codes are whitened: mean 0 and variance 1 a coefficient.
    """

    mean: Tensor
    components: Tensor
    scale: Tensor

    def __init__(self, settings: PcaSettings) -> None:
        super().__init__()
        pixels = settings.resolution**2
        self.settings = settings
        self.code_shape = (1, settings.components)
        self.resolution = settings.resolution
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("components", torch.zeros(settings.components, pixels))
        self.register_buffer("scale", torch.ones(settings.components))


class PcaEncoder(PcaBasis):
    """Films [N, 1, R, R] -> codes [N, 1, k]: the least-squares code, since components are orthonormal (to 1e-5 when stored as float16)."""

    def forward(self, pixels: Tensor) -> Tensor:
        centred = pixels.flatten(1).to(self.mean.dtype) - self.mean
        return (centred @ self.components.T / self.scale).unsqueeze(1)


class PcaGenerator(PcaBasis):
    """Codes [N, 1, k] -> films [N, 1, R, R], nominally in [-1, 1] and not clamped."""

    def forward(self, latents: Tensor) -> Tensor:
        weights = latents.flatten(1).to(self.scale.dtype) * self.scale
        film = self.mean + weights @ self.components
        return film.reshape(-1, 1, self.resolution, self.resolution)
