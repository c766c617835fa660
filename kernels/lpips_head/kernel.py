"""The Triton kernels of the head of LPIPS: one row is one pixel with its channels side by side, one program has pixels of one image."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def forward_kernel(
    features_ptr: tl.tensor,  # [num_images, num_pixels, CHANNELS]
    target_ptr: tl.tensor,  # as features, of unit length
    weights_ptr: tl.tensor,  # [CHANNELS]
    partial_ptr: tl.tensor,  # [num_images, num_tiles] float32
    num_pixels: tl.tensor,
    num_tiles: tl.tensor,
    epsilon: tl.tensor,
    CHANNELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
) -> None:
    """Sum of weights (features / (|features| + epsilon) - target)^2 over the channels of BLOCK_PIXELS pixels."""
    program = tl.program_id(0)
    channels = tl.arange(0, BLOCK_CHANNELS)
    weights = tl.load(weights_ptr + channels, mask=channels < CHANNELS, other=0.0).to(tl.float32)
    pixels = (program % num_tiles) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    inside = (pixels < num_pixels)[:, None] & (channels < CHANNELS)[None, :]
    rows = (program // num_tiles).to(tl.int64) * num_pixels + pixels
    offsets = rows[:, None] * CHANNELS + channels[None, :]

    features = tl.load(features_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    target = tl.load(target_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    squares = tl.sum(features * features, axis=1)
    scale = tl.where(squares == 0, 0.0, tl.div_rn(1.0, tl.sqrt_rn(squares) + epsilon))
    difference = features * scale[:, None] - target
    tl.store(partial_ptr + program, tl.sum(tl.sum(weights[None, :] * difference * difference, axis=1), axis=0))


@triton.jit  # type: ignore[untyped-decorator]
def mean_kernel(
    partial_ptr: tl.tensor,  # [num_images, num_tiles] float32
    value_ptr: tl.tensor,  # [num_images] float32
    num_pixels: tl.tensor,
    num_tiles: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """The sum of an image's partial sums over its number of pixels; one program an image, always in the same order."""
    image = tl.program_id(0).to(tl.int64)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for first in range(0, num_tiles, BLOCK):
        tiles = first + tl.arange(0, BLOCK)
        total += tl.load(partial_ptr + image * num_tiles + tiles, mask=tiles < num_tiles, other=0.0)
    tl.store(value_ptr + image, tl.sum(total, axis=0) / num_pixels)


@triton.jit  # type: ignore[untyped-decorator]
def backward_kernel(
    grad_value_ptr: tl.tensor,  # [num_images] float32
    features_ptr: tl.tensor,  # [num_images, num_pixels, CHANNELS]
    target_ptr: tl.tensor,  # as features, of unit length
    weights_ptr: tl.tensor,  # [CHANNELS]
    grad_features_ptr: tl.tensor,  # as features
    num_pixels: tl.tensor,
    num_tiles: tl.tensor,
    epsilon: tl.tensor,
    CHANNELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
) -> None:
    """With s = 1 / (|f| + epsilon), u = f s, g = 2 grad_value weights (u - target) / num_pixels: grad_f = s (g - f / |f| sum(g u)).

    Where f is zero, so is its gradient.
    """
    program = tl.program_id(0)
    channels = tl.arange(0, BLOCK_CHANNELS)
    weights = tl.load(weights_ptr + channels, mask=channels < CHANNELS, other=0.0).to(tl.float32)
    pixels = (program % num_tiles) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    inside = (pixels < num_pixels)[:, None] & (channels < CHANNELS)[None, :]
    image = (program // num_tiles).to(tl.int64)
    offsets = (image * num_pixels + pixels)[:, None] * CHANNELS + channels[None, :]

    features = tl.load(features_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    target = tl.load(target_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    squares = tl.sum(features * features, axis=1)
    norm = tl.sqrt_rn(tl.where(squares == 0, 1.0, squares))
    scale = tl.where(squares == 0, 0.0, tl.div_rn(1.0, norm + epsilon))
    unit = features * scale[:, None]
    grad_unit = (tl.load(grad_value_ptr + image) * 2 / num_pixels) * weights[None, :] * (unit - target)
    along = tl.div_rn(tl.sum(grad_unit * unit, axis=1), norm)
    grad_features = scale[:, None] * (grad_unit - features * along[:, None])
    tl.store(grad_features_ptr + offsets, grad_features.to(grad_features_ptr.dtype.element_ty), mask=inside)
