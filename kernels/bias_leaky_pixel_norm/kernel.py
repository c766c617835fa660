"""The Triton kernels of bias + leaky ReLU + pixel norm, plain or upsampled: one row is one pixel with its channels side by side."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def forward_kernel(
    x_ptr: tl.tensor,  # [num_pixels, CHANNELS]
    bias_ptr: tl.tensor,  # [CHANNELS]
    y_ptr: tl.tensor,  # [COPIES * num_pixels, CHANNELS]
    num_pixels: tl.tensor,
    width: tl.tensor,  # pixels in a row of x
    leak: tl.tensor,
    epsilon: tl.tensor,
    COPIES: tl.constexpr,  # 1, or 4: upsampled
    CHANNELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
) -> None:
    """y = a / rms(a) over channels, with a = leaky(x + bias); one program takes BLOCK_PIXELS pixels of x."""
    channels, pixels, inside = _block(num_pixels, CHANNELS, BLOCK_CHANNELS, BLOCK_PIXELS)
    _, active, energy = _activated(x_ptr, bias_ptr, channels, pixels, inside, leak, epsilon, CHANNELS)
    y = active * tl.rsqrt(energy * (1.0 / CHANNELS))[:, None]
    for copy in tl.static_range(COPIES):
        places = _places_of(pixels, copy, width, COPIES, BLOCK_PIXELS)
        tl.store(y_ptr + _offsets(places, channels, CHANNELS), y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def backward_kernel(
    grad_y_ptr: tl.tensor,  # [COPIES * num_pixels, CHANNELS]
    x_ptr: tl.tensor,  # [num_pixels, CHANNELS]
    bias_ptr: tl.tensor,  # [CHANNELS]
    grad_x_ptr: tl.tensor,  # as x
    num_pixels: tl.tensor,
    width: tl.tensor,
    leak: tl.tensor,
    epsilon: tl.tensor,
    COPIES: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
) -> None:
    """With g the sum of a pixel's copies in grad_y, E = sum(a^2) + C epsilon and s = sqrt(C / E): grad_a = s (g - a sum(g a) / E).

    a is computed again from x: y read back would be rounded to the type of x, and no fewer bytes would be read. With few channels the two
    terms nearly cancel, hence the quotient, which rounds less than s^2 would: an error of s alone only scales the result.
    """
    channels, pixels, inside = _block(num_pixels, CHANNELS, BLOCK_CHANNELS, BLOCK_PIXELS)
    shifted, active, energy = _activated(x_ptr, bias_ptr, channels, pixels, inside, leak, epsilon, CHANNELS)
    grad_y = tl.zeros([BLOCK_PIXELS, BLOCK_CHANNELS], tl.float32)
    for copy in tl.static_range(COPIES):
        places = _places_of(pixels, copy, width, COPIES, BLOCK_PIXELS)
        grad_y += tl.load(grad_y_ptr + _offsets(places, channels, CHANNELS), mask=inside, other=0.0).to(tl.float32)

    along = tl.sum(grad_y * active, axis=1) / energy
    grad_active = tl.rsqrt(energy * (1.0 / CHANNELS))[:, None] * (grad_y - active * along[:, None])
    grad_x = tl.where(shifted > 0, grad_active, grad_active * leak)
    tl.store(grad_x_ptr + _offsets(pixels, channels, CHANNELS), grad_x.to(grad_x_ptr.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _block(
    num_pixels: tl.tensor, CHANNELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr, BLOCK_PIXELS: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """What this program takes: channels [BLOCK_CHANNELS], pixels [BLOCK_PIXELS] in 64 bits, and which pairs of them exist."""
    channels = tl.arange(0, BLOCK_CHANNELS)
    pixels = tl.program_id(0).to(tl.int64) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    return channels, pixels, (pixels < num_pixels)[:, None] & (channels < CHANNELS)[None, :]


@triton.jit  # type: ignore[untyped-decorator]
def _offsets(pixels: tl.tensor, channels: tl.tensor, CHANNELS: tl.constexpr) -> tl.tensor:
    return pixels[:, None] * CHANNELS + channels[None, :]


@triton.jit  # type: ignore[untyped-decorator]
def _places_of(pixels: tl.tensor, copy: tl.constexpr, width: tl.tensor, COPIES: tl.constexpr, BLOCK_PIXELS: tl.constexpr) -> tl.tensor:
    """Where copy 0, 1, 2 or 3 (upper left, upper right, lower left, lower right) of each of this program's pixels stands in y.

    Pixel p = r W + c becomes (2 r + i) 2 W + 2 c + j = 4 p - 2 c + 2 W i + j, for i, j in 0, 1; the height does not matter, and r
    runs through all images.
    """
    if COPIES == 1:
        places = pixels
    else:
        # One division of 64 bits a program; those of 32 bits, one a pixel, are several times cheaper.
        first = (tl.program_id(0).to(tl.int64) * BLOCK_PIXELS % width).to(tl.int32)
        columns = (first + tl.arange(0, BLOCK_PIXELS)) % width
        places = 4 * pixels - 2 * columns + (copy // 2) * 2 * width + copy % 2
    return places


@triton.jit  # type: ignore[untyped-decorator]
def _activated(
    x_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    channels: tl.tensor,
    pixels: tl.tensor,
    inside: tl.tensor,
    leak: tl.tensor,
    epsilon: tl.tensor,
    CHANNELS: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """x + bias and a = leaky(x + bias), [BLOCK_PIXELS, BLOCK_CHANNELS]; sum(a^2) + C epsilon over channels; all in float32."""
    bias = tl.load(bias_ptr + channels, mask=channels < CHANNELS, other=0.0).to(tl.float32)
    shifted = tl.load(x_ptr + _offsets(pixels, channels, CHANNELS), mask=inside, other=0.0).to(tl.float32) + bias[None, :]
    active = tl.where(shifted > 0, shifted, shifted * leak)
    return shifted, active, tl.sum(active * active, axis=1) + CHANNELS * epsilon
