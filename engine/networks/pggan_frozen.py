"""The progressive GAN's generator with its weights fixed: the same films for half the arithmetic, at full size or at a lower level."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import CodecError
from engine.networks.coarse import Head
from engine.networks.frozen_ops import conv3x3, folded_upsampling, leaky_pixel_norm, turned, upsample_conv3x3
from engine.networks.pggan import PgganGenerator, PgganLevel
from engine.networks.pixel_norm import pixel_norm
from kernels.bias_leaky_pixel_norm.op import bias_leaky_pixel_norm


class FrozenPggan(nn.Module):
    """z [N, 1, code_size] -> films [N, 1, r, r], as `PgganGenerator` up to rounding; nominally in [-1, 1] and not clamped.

    Upsampling and the convolution after it are one transposed convolution, and input gradients are forward convolutions, so no gradient
    for weights can be had. Weights and activations are of type `dtype`; norms and the film are computed in float32. Channels-last.
    `norm_kernel` takes bias, leaky ReLU and pixel norm to the Triton kernel of `kernels/` on CUDA, which compilers see as one opaque op.
    """

    def __init__(
        self, generator: PgganGenerator, *, dtype: torch.dtype = torch.float32, head: Head | None = None, norm_kernel: bool = False
    ) -> None:
        """A copy of the generator's weights; with `head` only of the levels that its resolution needs."""
        super().__init__()
        levels = len(generator.levels) if head is None else level_of(head, generator)
        self.settings, self.dtype, self.norm_kernel = generator.settings, dtype, norm_kernel
        self.code_shape = generator.code_shape
        self.resolution = 4 * 2**levels
        self.output_scale, self.output_shift = (2.0, -1.0) if head is None and self.settings.output_range == "unit" else (1.0, 0.0)
        self._keep("linear", generator.linear.weight, generator.linear.bias)
        self._keep("first", generator.first.weight, generator.first.bias, turned(generator.first.weight))
        self.num_levels = levels
        for at, level in enumerate(generator.levels[:levels]):
            assert isinstance(level, PgganLevel)
            self._keep(f"up{at}", folded_upsampling(level.first.weight), level.first.bias)
            self._keep(f"conv{at}", level.second.weight, level.second.bias, turned(level.second.weight))
        weight, bias = (generator.to_gray.weight, generator.to_gray.bias) if head is None else (head.weight, head.bias)
        assert bias is not None
        self.register_buffer("gray_weight", weight.detach().float().clone())  # the film is float32, and so is its last layer
        self.register_buffer("gray_bias", bias.detach().float().clone())

    def forward(self, latents: Tensor) -> Tensor:
        return self.to_film(self.features(latents))

    def features(self, latents: Tensor) -> Tensor:
        """Activations [N, C, r, r] in `dtype`, after the last norm."""
        s = self.settings
        z = pixel_norm(latents.flatten(1).float(), epsilon=s.epsilon).to(self.dtype)  # [N, code_size]
        weight, bias = self._kept("linear")
        x = F.leaky_relu(F.linear(z, weight, bias), s.leak).reshape(z.shape[0], -1, 4, 4)
        x = x.contiguous(memory_format=torch.channels_last)
        if s.norm_after_linear:
            x = pixel_norm(x, epsilon=s.epsilon)
        x = self._conv("first", x)
        for at in range(self.num_levels):
            x = self._conv(f"conv{at}", self._up(f"up{at}", x))
        return x

    def to_film(self, features: Tensor) -> Tensor:
        """Activations [N, C, r, r] -> films [N, 1, r, r] float32."""
        weight, bias = self.get_buffer("gray_weight"), self.get_buffer("gray_bias")
        # a sum and no 1x1 convolution: a single channel in half precision is slow, and here it need not be rounded
        film = (features.float() * weight.reshape(1, -1, 1, 1)).sum(dim=1, keepdim=True) + bias
        return film * self.output_scale + self.output_shift

    def _conv(self, name: str, x: Tensor) -> Tensor:
        weight, bias, weight_back = self._kept(name)
        return self._norm(conv3x3(x, weight, None if self._uses_kernel(x) else bias, weight_back), bias)

    def _up(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self._kept(name)
        return self._norm(upsample_conv3x3(x, weight, None if self._uses_kernel(x) else bias), bias)

    def _norm(self, x: Tensor, bias: Tensor) -> Tensor:
        s = self.settings
        if self._uses_kernel(x):
            return bias_leaky_pixel_norm(x, bias, leak=s.leak, epsilon=s.epsilon)
        return leaky_pixel_norm(x, leak=s.leak, epsilon=s.epsilon)

    def _uses_kernel(self, x: Tensor) -> bool:
        return self.norm_kernel and x.is_cuda

    def _keep(self, name: str, *tensors: Tensor | None) -> None:
        for part, tensor in zip(("weight", "bias", "back"), tensors, strict=False):
            assert tensor is not None, "every layer has a bias"
            layout = torch.channels_last if tensor.dim() == 4 else torch.contiguous_format
            self.register_buffer(f"{name}_{part}", tensor.detach().to(self.dtype, memory_format=layout, copy=True))

    def _kept(self, name: str) -> tuple[Tensor, ...]:
        return tuple(getattr(self, f"{name}_{part}") for part in ("weight", "bias", "back") if hasattr(self, f"{name}_{part}"))


def level_of(head: Head, generator: PgganGenerator) -> int:
    """How many doublings lead to the head's resolution. Raises CodecError where no level has it, with as many channels as the head."""
    widths = generator.settings.channels
    level = head.resolution.bit_length() - 3
    if head.resolution != 4 * 2**level or not 0 <= level < len(widths) or head.weight.shape[1] != widths[level]:
        raise CodecError(f"no level of the generator fits its coarse head: {head.resolution} pixels, {head.weight.shape[1]} channels")
    return level
