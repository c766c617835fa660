"""The autoencoder of latent diffusion (Rombach et al. 2022, appendix G) on gray films: maps as codes; MedVAE's 2D networks are of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.errors import CodecError
from engine.networks.autoencoder_kl_parts import Level, Middle, convolve, group_norm, same
from engine.networks.strips import convolved, normed


@dataclass(frozen=True, kw_only=True)
class AutoencoderKlSettings:
    """`widths` has one a level, from the film's own resolution down; n of them make codes of resolution / 2^(n-1) pixels a side.

    `num_res_blocks`: residual blocks a level; a generator has one more. `attention_levels`: levels (0 is the highest) whose blocks are
    each followed by attention, `middle_attention` whether the lowest resolution has it between its two middle blocks.
    `code_channels` are the code's, `z_channels` those that the generator's first convolution sees (an encoder has no use for them).
    Codes are (mean of the posterior - `code_shift`) * `code_scale`. `groups`: of the group norms, which must divide each width.
    `strip_rows`: without gradients, films go through one by one, and each layer takes that many rows of its result at a time; the
    result is the same up to rounding (`strips`), in about half the memory of one film. 0: all films and rows at once.
    """

    resolution: int
    widths: tuple[int, ...] = (128, 256, 512, 512)
    code_channels: int = 4
    z_channels: int = 4
    num_res_blocks: int = 2
    attention_levels: tuple[int, ...] = ()
    middle_attention: bool = True
    groups: int = 32
    code_scale: float = 1.0
    code_shift: float = 0.0
    strip_rows: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.widths) <= 8:
            raise CodecError(f"autoencoder_kl.widths needs 1 to 8 levels: {len(self.widths)}")
        if not 1 <= self.groups <= 1024:
            raise CodecError(f"autoencoder_kl.groups must be 1 to 1024: {self.groups}")
        if not all(1 <= width <= 8192 and width % self.groups == 0 for width in self.widths):
            raise CodecError(f"autoencoder_kl.widths must be multiples of its {self.groups} groups, up to 8192: {list(self.widths)}")
        factor = 2 ** (len(self.widths) - 1)
        if not factor <= self.resolution <= 16384 or self.resolution % factor:
            raise CodecError(f"autoencoder_kl.resolution must be a multiple of {factor}, up to 16384: {self.resolution}")
        for name in ("code_channels", "z_channels"):
            if not 1 <= getattr(self, name) <= 1024:
                raise CodecError(f"autoencoder_kl.{name} must be 1 to 1024: {getattr(self, name)}")
        if not 1 <= self.num_res_blocks <= 16:
            raise CodecError(f"autoencoder_kl.num_res_blocks must be 1 to 16: {self.num_res_blocks}")
        if not set(self.attention_levels) <= set(range(len(self.widths))):
            raise CodecError(f"autoencoder_kl.attention_levels must be 0 to {len(self.widths) - 1}: {list(self.attention_levels)}")
        if not 1e-6 <= self.code_scale <= 1e6:
            raise CodecError(f"autoencoder_kl.code_scale must be 1e-6 to 1e6: {self.code_scale}")
        if not 0 <= self.strip_rows <= 16384:
            raise CodecError(f"autoencoder_kl.strip_rows must be 0 (all rows at once) to 16384: {self.strip_rows}")

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """[code_channels, y, x]."""
        side = self.resolution >> (len(self.widths) - 1)
        return self.code_channels, side, side

    def rows_for(self, x: Tensor, weight: Tensor) -> int:
        """`strip_rows`, or 0 where gradients are wanted: autograd keeps every layer's input, and strips write in place."""
        return 0 if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad) else self.strip_rows


class AutoencoderKlEncoder(nn.Module):
    """Pixels [N, 1, R, R] in [-1, 1] -> the posterior's mean [N, code_channels, r, r]: its mode, no sample.

    The last convolution gives the mean alone: the published one gives twice `z_channels`, from which a 1x1 convolution makes mean and
    log variance, and both are linear (`importers.autoencoder_kl` joins them).
    """

    def __init__(self, settings: AutoencoderKlSettings) -> None:
        super().__init__()
        self.settings = s = settings
        self.code_shape, self.resolution = s.code_shape, s.resolution
        self.conv_in = same(1, s.widths[0])
        below = (s.widths[0], *s.widths)
        self.levels = nn.ModuleList(
            Level(
                *(below[level], width, s.num_res_blocks, s.groups),
                has_attention=level in s.attention_levels,
                resample=nn.Conv2d(width, width, 3, stride=2) if level < len(s.widths) - 1 else None,
            )
            for level, width in enumerate(s.widths)
        )
        self.middle = Middle(s.widths[-1], s.groups, has_attention=s.middle_attention)
        self.norm_out = group_norm(s.widths[-1], s.groups)
        self.conv_out = same(s.widths[-1], s.code_channels)

    def forward(self, pixels: Tensor) -> Tensor:
        rows = self.settings.rows_for(pixels, self.conv_in.weight)
        parts = pixels.chunk(len(pixels)) if rows else (pixels,)
        means = torch.cat([self._mean(part, rows) for part in parts])
        return (means - self.settings.code_shift) * self.settings.code_scale

    def _mean(self, pixels: Tensor, rows: int) -> Tensor:
        x = convolve(self.conv_in, pixels, rows)
        for level in self.levels:
            x = level(x, rows)
        return _last(self.norm_out, self.conv_out, self.middle(x, rows), rows)


class AutoencoderKlGenerator(nn.Module):
    """Codes [N, code_channels, r, r] -> films [N, 1, R, R], nominally in [-1, 1] and not clamped."""

    def __init__(self, settings: AutoencoderKlSettings) -> None:
        super().__init__()
        self.settings = s = settings
        self.code_shape, self.resolution = s.code_shape, s.resolution
        self.from_code = nn.Conv2d(s.code_channels, s.z_channels, 1)
        self.conv_in = same(s.z_channels, s.widths[-1])
        self.middle = Middle(s.widths[-1], s.groups, has_attention=s.middle_attention)
        above = (*s.widths[1:], s.widths[-1])
        self.levels = nn.ModuleList(  # numbered as the encoder's: 0 is the film's own resolution, and comes last
            Level(
                *(above[level], width, s.num_res_blocks + 1, s.groups),
                has_attention=level in s.attention_levels,
                resample=same(width, width) if level > 0 else None,
            )
            for level, width in enumerate(s.widths)
        )
        self.norm_out = group_norm(s.widths[0], s.groups)
        self.conv_out = same(s.widths[0], 1)

    def forward(self, latents: Tensor) -> Tensor:
        rows = self.settings.rows_for(latents, self.conv_in.weight)
        z = latents.to(self.conv_in.weight.dtype) / self.settings.code_scale + self.settings.code_shift
        parts = z.chunk(len(z)) if rows else (z,)
        return torch.cat([self._film(part, rows) for part in parts])

    def _film(self, z: Tensor, rows: int) -> Tensor:
        x = self.middle(convolve(self.conv_in, self.from_code(z), rows), rows)
        for level in reversed(self.levels):
            x = level(x, rows)
        return _last(self.norm_out, self.conv_out, x, rows)


def _last(norm: nn.GroupNorm, conv: nn.Conv2d, x: Tensor, rows: int) -> Tensor:
    if not rows:
        result: Tensor = conv(normed(norm, x, x.shape[2])(x))
        return result
    return convolved(conv, x, rows, before=normed(norm, x, rows))
