"""The least time that a step of refinement can take on a device: its arithmetic and its bytes, layer by layer, at measured rates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from benchmarks.timing import take_turns

BYTES_A_VALUE = 2  # bfloat16
MATRIX, COPIED = 8192, 2**29


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one film costs in one layer, forward and gradient in its input: floating-point operations, and bytes where each norm is part
    of its convolution. Weights are read once for a batch and are left out."""

    flops: int
    bytes: int


def layers(channels: list[int], *, code_size: int = 512) -> Iterator[Layer]:
    """Of the progressive GAN's generator in its frozen form: a convolution after upsampling has 4 taps a pixel and not 9."""
    yield Layer(flops=2 * 2 * code_size * channels[0] * 16, bytes=0)
    yield _convolution(channels[0], channels[0], side=4, taps=9, upsampled=False)
    for level, (below, width) in enumerate(pairwise(channels), start=1):
        side = 4 * 2**level
        yield _convolution(below, width, side=side, taps=4, upsampled=True)
        yield _convolution(width, width, side=side, taps=9, upsampled=False)


def _convolution(into: int, out: int, *, side: int, taps: int, upsampled: bool) -> Layer:
    """Forward: the input is read and the output written. Backward: output and its gradient are read, the input's gradient is written."""
    inputs = into * side * side // (4 if upsampled else 1)
    outputs = out * side * side
    return Layer(flops=2 * 2 * taps * into * out * side * side, bytes=BYTES_A_VALUE * (2 * inputs + 3 * outputs))


def image_steps_a_second(channels: list[int], *, flops: float, bandwidth: float) -> float:
    """The floor, as a rate, at so many operations and bytes a second: no layer is faster than the slower of its two."""
    return 1 / sum(max(layer.flops / flops, layer.bytes / bandwidth) for layer in layers(channels))


def measure(*, repeats: int, matrix: int = MATRIX, copied: int = COPIED, device: str | None = None) -> dict[str, Any]:
    """Operations a second of a bfloat16 matrix product, and bytes a second of a copy (read and written): medians of turns."""
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    a = torch.randn(matrix, matrix, device=place, dtype=torch.bfloat16)
    source = torch.empty(copied, dtype=torch.uint8, device=place)
    target = torch.empty_like(source)

    def multiply(turn: int) -> int:
        for _ in range(10):
            a @ a
        return 10 * 2 * matrix**3

    def copy(turn: int) -> int:
        for _ in range(10):
            target.copy_(source)
        return 10 * 2 * copied

    rates = take_turns({"flops": multiply, "bandwidth": copy}, repeats=repeats)
    return {name: sorted(values)[len(values) // 2] for name, values in rates.items()}
