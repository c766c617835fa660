"""The Triton kernels of bias + leaky ReLU + pixel norm: one row is one pixel with its channels side by side."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def forward_kernel(
    x_ptr: tl.tensor,  # [num_pixels, CHANNELS]
    bias_ptr: tl.tensor,  # [CHANNELS]
    y_ptr: tl.tensor,  # as x
    num_pixels: tl.tensor,
    leak: tl.tensor,
    epsilon: tl.tensor,
    CHANNELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
) -> None:
    """y = a / rms(a) over channels, with a = leaky(x + bias); one program takes BLOCK_PIXELS pixels."""
    channels = tl.arange(0, BLOCK_CHANNELS)
    bias = tl.load(bias_ptr + channels, mask=channels < CHANNELS, other=0.0).to(tl.float32)
    pixels = tl.program_id(0).to(tl.int64) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    inside = (pixels < num_pixels)[:, None] & (channels < CHANNELS)[None, :]
    offsets = pixels[:, None] * CHANNELS + channels[None, :]

    shifted = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(tl.float32) + bias[None, :]
    active = tl.where(shifted > 0, shifted, shifted * leak)
    scale = tl.rsqrt(tl.sum(active * active, axis=1) * (1.0 / CHANNELS) + epsilon)
    tl.store(y_ptr + offsets, (active * scale[:, None]).to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def backward_kernel(
    grad_y_ptr: tl.tensor,  # [num_pixels, CHANNELS]
    x_ptr: tl.tensor,  # as grad_y
    bias_ptr: tl.tensor,  # [CHANNELS]
    grad_x_ptr: tl.tensor,  # as grad_y
    num_pixels: tl.tensor,
    leak: tl.tensor,
    epsilon: tl.tensor,
    CHANNELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
) -> None:
    """With s = 1 / rms(a) and y = a s: grad_a = s (grad_y - y mean(grad_y y)); one program takes BLOCK_PIXELS pixels.

    y is computed again from x: read back it would be rounded to the type of x, and no fewer bytes would be read.
    """
    channels = tl.arange(0, BLOCK_CHANNELS)
    bias = tl.load(bias_ptr + channels, mask=channels < CHANNELS, other=0.0).to(tl.float32)
    pixels = tl.program_id(0).to(tl.int64) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    inside = (pixels < num_pixels)[:, None] & (channels < CHANNELS)[None, :]
    offsets = pixels[:, None] * CHANNELS + channels[None, :]

    shifted = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(tl.float32) + bias[None, :]
    grad_y = tl.load(grad_y_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    active = tl.where(shifted > 0, shifted, shifted * leak)
    scale = tl.rsqrt(tl.sum(active * active, axis=1) * (1.0 / CHANNELS) + epsilon)
    y = active * scale[:, None]
    along = tl.sum(grad_y * y, axis=1) * (1.0 / CHANNELS)
    grad_active = scale[:, None] * (grad_y - y * along[:, None])
    grad_x = tl.where(shifted > 0, grad_active, grad_active * leak)
    tl.store(grad_x_ptr + offsets, grad_x.to(grad_x_ptr.dtype.element_ty), mask=inside)
