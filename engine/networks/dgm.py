"""The networks of Tang et al. 2021 (DGM): two encoders side by side, and decoders for the normal film, the residue and both together."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import CodecError
from engine.networks.upsampled_conv import UpsampledConv

_EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True)
class DgmSettings:
    """Sizes; the defaults are tables 1 and 2. Both networks of a codec have the same.

    `widths`: channels of the strided convolutions, each of which halves the side; decoders go back along them. `blocks`: residual blocks of
    each encoder and decoder. `reconstruct`: the film of a code is z' = D_G(c_z) + D_F(c_s) with "sum" (equation 2), z'' = D_J(c_z, c_s)
    with "joint" (equation 3); D_J is there with "joint" alone. `mlp_width`: of the perceptron that gives D_J its norms.
    """

    resolution: int = 224
    widths: tuple[int, ...] = (64, 64, 128, 256, 512)
    blocks: int = 4
    reconstruct: str = "sum"
    mlp_width: int = 256

    def __post_init__(self) -> None:
        if not 2 <= len(self.widths) <= 9 or not all(1 <= width <= 8192 for width in (*self.widths, self.mlp_width)):
            raise CodecError(f"dgm needs 2 to 9 widths of 1 to 8192 each: {self.widths}, {self.mlp_width}")
        if self.resolution % 2 ** len(self.widths) or not 2 <= self.code_side <= 1024:
            least = 2 ** (len(self.widths) + 1)
            raise CodecError(f"dgm.resolution must be {least} or more and a multiple of {least // 2}: {self.resolution}")
        if not 1 <= self.blocks <= 100:
            raise CodecError(f"dgm.blocks must be 1 to 100: {self.blocks}")
        if self.reconstruct not in ("sum", "joint"):
            raise CodecError(f"dgm.reconstruct must be one of sum, joint: {self.reconstruct}")

    @property
    def code_side(self) -> int:
        """k: side of the maps c_z and c_s."""
        return self.resolution >> len(self.widths)

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """Channels of c_z, then of c_s, by side by side: (1024, 7, 7) in the paper."""
        return (2 * self.widths[-1], self.code_side, self.code_side)


class DgmEncoder(nn.Module):
    """Films [N, 1, R, R] in [-1, 1] -> codes [N, 2 C, k, k]: channels of c_z = E_G(z), then of c_s = E_F(z).

    `normal` is E_G, with instance norm after each convolution; `residue` is E_F, with none, since a norm would take away the means by which
    disease shows. Table 1; norms have no weights of their own, and edges are padded with zeros, of which the paper says nothing.
    """

    def __init__(self, settings: DgmSettings) -> None:
        super().__init__()
        self.settings, self.code_shape, self.resolution = settings, settings.code_shape, settings.resolution
        self.normal = _encoder(settings, has_norm=True)
        self.residue = _encoder(settings, has_norm=False)

    def forward(self, pixels: Tensor) -> Tensor:
        pixels = pixels.to(next(self.parameters()).dtype)
        return torch.cat([self.normal(pixels), self.residue(pixels)], dim=1)


class DgmGenerator(nn.Module):
    """Codes [N, 2 C, k, k] -> films [N, 1, R, R], nominally in [-1, 1] and not clamped; `decompose` gives their two parts.

    `normal` is D_G, `residue` D_F, `joint` D_J (with `reconstruct` "joint"). Table 2: layer norm over channels and pixels with a scale and
    shift a channel, as MUNIT has it, and tanh at the end of all three. D_J has AdaIN in its residual blocks (section 3.2) in place of
    layer norm, which it has above them.
    """

    def __init__(self, settings: DgmSettings) -> None:
        super().__init__()
        self.settings, self.code_shape, self.resolution = settings, settings.code_shape, settings.resolution
        self.normal, self.residue = PartDecoder(settings), PartDecoder(settings)
        self.joint = JointDecoder(settings) if settings.reconstruct == "joint" else None

    def forward(self, latents: Tensor) -> Tensor:
        latents = latents.to(next(self.parameters()).dtype)
        if self.joint is not None:
            film: Tensor = self.joint(*self.split(latents))
            return film
        normal, residue = self.decompose(latents)
        return normal + residue

    def decompose(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Codes -> (the normal film y', the residue map a), each [N, 1, R, R] in [-1, 1]; y' + a is the film z' of equation 2.

        The residue has the unit of films, 2 from black to white; it is positive where disease is brighter than what it lies upon.
        """
        c_z, c_s = self.split(latents.to(next(self.parameters()).dtype))
        return self.normal(c_z), self.residue(c_s)

    @property
    def sums_its_parts(self) -> bool:
        """Whether the film of a code is the sum of what `decompose` gives: with `reconstruct` "sum"."""
        return self.joint is None

    def split(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """c_z and c_s of codes, each [N, C, k, k]."""
        c_z, c_s = latents.chunk(2, dim=1)
        return c_z, c_s


class PartDecoder(nn.Module):
    """D_G or D_F: c [N, C, k, k] -> [N, 1, R, R] in [-1, 1]."""

    def __init__(self, settings: DgmSettings) -> None:
        super().__init__()
        width = settings.widths[-1]
        self.blocks = nn.Sequential(*(ResidualBlock(width, width, "layer") for _ in range(settings.blocks)))
        self.levels = _levels(settings)

    def forward(self, code: Tensor) -> Tensor:
        film: Tensor = torch.tanh(self.levels(self.blocks(code)))
        return film


class JointDecoder(nn.Module):
    """D_J: c_z and c_s, each [N, C, k, k] -> [N, 1, R, R] in [-1, 1].

    Residual blocks take both side by side; the first one's way around it is a 1x1 convolution, as it has half as many channels at its
    end. Scales and shifts of their norms come from a perceptron of three layers, as in MUNIT, here on the means of c_s over the map,
    which the paper leaves open.
    """

    def __init__(self, settings: DgmSettings) -> None:
        super().__init__()
        width, hidden = settings.widths[-1], settings.mlp_width
        self.blocks = nn.ModuleList(ResidualBlock(width * (1 if place else 2), width, "none") for place in range(settings.blocks))
        last = nn.Linear(hidden, settings.blocks * 4 * width)
        nn.init.zeros_(last.weight)  # at the start all films have norms of scale 1 and shift 0
        with torch.no_grad():
            last.bias.view(settings.blocks, 2, 2, width).copy_(torch.tensor([1.0, 0.0]).view(1, 1, 2, 1))
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), last)
        self.levels = _levels(settings)

    def forward(self, c_z: Tensor, c_s: Tensor) -> Tensor:
        norms = self.mlp(c_s.mean(dim=(2, 3))).unflatten(1, (len(self.blocks), 2, 2, -1))  # block, convolution, (scale, shift), channel
        x = torch.cat([c_z, c_s], dim=1)
        for place, block in enumerate(self.blocks):
            x = block(x, norms[:, place])
        film: Tensor = torch.tanh(self.levels(x))
        return film


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), 3x3; `norm` one of "instance", "layer", "none". Without one, AdaIN where `adapted` is given."""

    def __init__(self, channels: int, width: int, norm: str) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.norms = nn.ModuleList([_norm(norm, width), _norm(norm, width)])
        self.around = nn.Identity() if channels == width else nn.Conv2d(channels, width, 1)
        _start([self.first, self.second])

    def forward(self, x: Tensor, adapted: Tensor | None = None) -> Tensor:
        """`adapted` [N, 2, 2, C]: scale and shift after each of the two convolutions."""
        y = x
        for place, conv in enumerate((self.first, self.second)):
            y = self.norms[place](conv(F.relu(y) if place else y))
            if adapted is not None:
                scale, shift = adapted[:, place, :, :, None, None].unbind(1)
                y = F.instance_norm(y, eps=_EPSILON) * scale + shift
        around: Tensor = self.around(x)
        return around + y


def _encoder(settings: DgmSettings, *, has_norm: bool) -> nn.Sequential:
    norm = "instance" if has_norm else "none"
    layers: list[nn.Module] = []
    for place, (below, width) in enumerate(pairwise((1, *settings.widths))):
        conv = nn.Conv2d(below, width, 4, stride=2, padding=1) if place else nn.Conv2d(below, width, 7, stride=2, padding=3)
        _start([conv])
        layers += [conv, _norm(norm, width), nn.ReLU()]
    width = settings.widths[-1]
    return nn.Sequential(*layers, *(ResidualBlock(width, width, norm) for _ in range(settings.blocks)))


def _levels(settings: DgmSettings) -> nn.Sequential:
    """From [N, C, k, k] up: upsampling, convolution of 5x5, layer norm, ReLU; the last one of 7x7, without norm, to one channel."""
    widths = (settings.widths[-1], *settings.widths[:0:-1])
    layers: list[nn.Module] = []
    for below, width in pairwise(widths):
        conv = UpsampledConv(below, width, 5)
        _start([conv])
        layers += [conv, _norm("layer", width), nn.ReLU()]
    return nn.Sequential(*layers, UpsampledConv(widths[-1], 1, 7))


def _norm(kind: str, width: int) -> nn.Module:
    if kind == "instance":
        return nn.InstanceNorm2d(width, eps=_EPSILON)
    return nn.GroupNorm(1, width, eps=_EPSILON) if kind == "layer" else nn.Identity()


def _start(convs: list[nn.Conv2d]) -> None:
    """Weights after which ReLU keeps the variance (He et al. 2015), without which E_F's signal, which no norm holds up, would fade away."""
    for conv in convs:
        nn.init.kaiming_normal_(conv.weight)
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
