"""The synthesis network of StyleGAN (Karras et al. 2019), gray, with one constant noise realisation as Saboo et al. 2020 use it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import CodecError

SPACES = ("w", "w+")


@dataclass(frozen=True, kw_only=True)
class StyleSettings:
    """Widths and code. `channels` has one width a level, from 4x4 up; n of them make 4 * 2^(n-1) pixels a side and 2n style layers.

    `code_size`: entries of w. `space`: "w" for one w that all layers share, "w+" for a w of each layer's own; the weights are the same.
    `blur`: the [1, 2, 1] filter after each upsampling, which makes nearest neighbour bilinear.
    """

    channels: tuple[int, ...] = (512, 512, 512, 512, 256, 128)
    code_size: int = 512
    space: str = "w"
    blur: bool = True
    leak: float = 0.2
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        if not 1 <= len(self.channels) <= 11:
            raise CodecError(f"stylegan.channels needs 1 to 11 levels: {len(self.channels)}")
        if not all(1 <= width <= 8192 for width in (*self.channels, self.code_size)):
            raise CodecError(f"stylegan widths must be 1 to 8192: {self.code_size}, {self.channels}")
        if self.space not in SPACES:
            raise CodecError(f"stylegan.space must be one of {', '.join(SPACES)}: {self.space}")
        if not 0 <= self.leak < 1:
            raise CodecError(f"stylegan.leak must be 0 or more and under 1: {self.leak}")
        if not 0 < self.epsilon <= 1e-2:
            raise CodecError(f"stylegan.epsilon must be above 0 and at most 0.01: {self.epsilon}")

    @property
    def layers(self) -> int:
        """Style layers, two a level."""
        return 2 * len(self.channels)

    @property
    def sides(self) -> tuple[int, ...]:
        """The side of the activations of each style layer, and so of its noise."""
        return tuple(4 << at // 2 for at in range(self.layers))


class StyleGenerator(nn.Module):
    """w [N, 1, code_size] or w+ [N, layers, code_size] -> films [N, 1, R, R], nominally in [-1, 1] and not clamped.

    Weights are plain: equalised learning rates have their constants multiplied in. The noise of each layer is a buffer among the weights,
    so a code makes one film. A finished model has one resolution, without the fade between two and the gray layers of lower levels.
    """

    def __init__(self, settings: StyleSettings) -> None:
        super().__init__()
        self.settings = settings
        self.code_shape = (settings.layers if settings.space == "w+" else 1, settings.code_size)
        self.resolution = settings.sides[-1]
        self.constant = nn.Parameter(torch.ones(1, settings.channels[0], 4, 4))
        self.layers = nn.ModuleList(StyleLayer(at, settings) for at in range(settings.layers))
        self.to_gray = nn.Conv2d(settings.channels[-1], 1, 1)

    def forward(self, latents: Tensor) -> Tensor:
        *_, last = self._activations(latents)
        film: Tensor = self.to_gray(last)  # [N, 1, R, R]
        return film

    def features(self, latents: Tensor) -> list[Tensor]:
        """The activations [N, C, r, r] after each style layer, lowest first: G_i(w) of Saboo's content loss. Differentiable in w."""
        return list(self._activations(latents))

    def _activations(self, latents: Tensor) -> Iterator[Tensor]:
        codes = latents.to(self.constant.dtype).expand(-1, len(self.layers), -1)  # [N, layers, code_size]
        x = self.constant.expand(codes.shape[0], -1, -1, -1)
        for at, layer in enumerate(self.layers):
            x = layer(x, codes[:, at])
            yield x


class StyleLayer(nn.Module):
    """Convolution (but for the first layer, which has the learned constant), noise, bias, leaky ReLU, and AdaIN with the style of w.

    The first of a level's two layers doubles the resolution.
    """

    def __init__(self, at: int, settings: StyleSettings) -> None:
        super().__init__()
        width, side = settings.channels[at // 2], settings.sides[at]
        self.upsamples, self.blurs = at > 0 and at % 2 == 0, settings.blur
        self.leak, self.epsilon = settings.leak, settings.epsilon
        below = settings.channels[(at - 1) // 2]
        self.conv = nn.Conv2d(below, width, 3, padding=1, bias=False) if at else None
        self.bias = nn.Parameter(torch.zeros(width))
        self.strength = nn.Parameter(torch.zeros(width))
        self.style = nn.Linear(settings.code_size, 2 * width)
        self.noise: Tensor
        self.register_buffer("noise", torch.randn(1, 1, side, side))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """x [N, C, r, r], code [N, code_size] -> [N, D, r, r] or twice the side."""
        if self.upsamples:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if self.conv is not None:
            x = self.conv(x)
        if self.upsamples and self.blurs:
            x = blurred(x)
        return styled(x, self.noise, self.strength, self.bias, self.style(code), leak=self.leak, epsilon=self.epsilon)


def blurred(x: Tensor) -> Tensor:
    """x [N, C, H, W] under the binomial filter [1, 2, 1] / 4 along both axes, zeros around, as two means over 2x2 pixels."""
    return F.avg_pool2d(F.avg_pool2d(x, 2, stride=1, padding=1), 2, stride=1)


def styled(x: Tensor, noise: Tensor, strength: Tensor, bias: Tensor, style: Tensor, *, leak: float, epsilon: float) -> Tensor:
    """What follows a convolution x [N, C, H, W]: a = leaky(x + strength * noise + bias), then AdaIN (Karras et al. 2019, equation 1).

    (1 + scale) * (a - mean) / sqrt(variance + epsilon) + shift, with mean and biased variance of each film and channel over its pixels.
    `noise` [N or 1, 1, H, W]; `strength` and `bias` [C]; `style` [N, 2C] holds scale, then shift. In float32 at least, given back in the
    type of `x`: half precision holds neither epsilon nor the mean of many squares.
    """
    kind = torch.promote_types(x.dtype, torch.float32)
    a = x.to(kind) + noise.to(kind) * strength.to(kind).reshape(1, -1, 1, 1) + bias.to(kind).reshape(1, -1, 1, 1)
    a = F.leaky_relu(a, leak)
    scale, shift = style.to(kind)[..., None, None].chunk(2, dim=1)  # [N, C, 1, 1] each
    variance, mean = torch.var_mean(a, dim=(2, 3), correction=0, keepdim=True)
    return torch.addcmul(shift, a - mean, (1 + scale) * torch.rsqrt(variance + epsilon)).to(x.dtype)
