"""Shapes and types with their bytes and flops, read by the test and the benchmark; how the kernels are launched, by device and width."""

from __future__ import annotations

from dataclasses import dataclass

import torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_CHANNELS = 512
MEAN_BLOCK = 1024  # partial sums that the kernel of the mean takes at once


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How much one program takes: `pixels` of one image, with all their channels, on `warps` times 32 threads."""

    pixels: int
    warps: int


# Name of the device (torch.cuda.get_device_name) -> channels rounded up to a power of two -> launch; what is missing is in "default".
# Only defaults so far: nothing was measured. They give a thread 16 values of the features and as many of the target, or fewer.
LAUNCHES: dict[str, dict[int, Launch]] = {
    "default": {
        1: Launch(pixels=512, warps=4),
        2: Launch(pixels=512, warps=4),
        4: Launch(pixels=512, warps=4),
        8: Launch(pixels=256, warps=4),
        16: Launch(pixels=128, warps=4),
        32: Launch(pixels=64, warps=4),
        64: Launch(pixels=32, warps=4),
        128: Launch(pixels=16, warps=4),
        256: Launch(pixels=8, warps=4),
        512: Launch(pixels=4, warps=4),
    },
}


def bucket(channels: int) -> int:
    """`channels` rounded up to a power of two: the width of the block that holds a pixel."""
    return 1 << (channels - 1).bit_length()


def launch_for(device_name: str, channels: int) -> Launch:
    """The tuned launch for this device and width, or the default one."""
    width = bucket(channels)
    return LAUNCHES.get(device_name, {}).get(width) or LAUNCHES["default"][width]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Features [batch, channels, height, width] of one type."""

    batch: int
    channels: int
    height: int
    width: int
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.batch}x{self.channels}x{self.height}x{self.width}-{str(self.dtype).removeprefix('torch.')}"

    @property
    def num_pixels(self) -> int:
        return self.batch * self.height * self.width

    @property
    def num_values(self) -> int:
        return self.num_pixels * self.channels

    @property
    def forward_bytes(self) -> int:
        """Read features and target. Weights, partial sums (one in 2,048 values) and results are not counted here or below."""
        return 2 * self.num_values * self.dtype.itemsize

    @property
    def backward_bytes(self) -> int:
        """Read features and target, write the gradient of the features."""
        return 3 * self.num_values * self.dtype.itemsize

    @property
    def forward_flops(self) -> int:
        """A value: square and sum 2, scale 1, difference 1, weighted square 2, sum 1. A pixel: root, epsilon, reciprocal, sum 4."""
        return 7 * self.num_values + 4 * self.num_pixels

    @property
    def backward_flops(self) -> int:
        """A value: square and sum 2, scale 1, difference 1, weights 2, product and sum 2, multiply, subtract, scale 3. A pixel: 4."""
        return 11 * self.num_values + 4 * self.num_pixels


# Small enough for the interpreter: full and partial blocks of channels and of pixels, one program and several, one image and several.
TEST_CASES = tuple(
    Case(batch=batch, channels=channels, height=height, width=width, dtype=dtype)
    for batch, channels, height, width in (
        (1, 1, 33, 21),
        (3, 2, 9, 11),
        (2, 33, 7, 9),
        (1, 64, 13, 13),
        (2, 192, 3, 5),
        (2, 384, 3, 3),
        (1, 100, 1, 1),
        (3, 512, 3, 2),
    )
    for dtype in DTYPES
)

# Where the op stands in LPIPS, (channels, side) of each level: AlexNet on films of 224 pixels, VGG-16 on films of 256; the batch is 8.
ALEXNET = ((64, 55), (192, 27), (384, 13), (256, 13), (256, 13))
VGG = ((64, 256), (128, 128), (256, 64), (512, 32), (512, 16))
BENCHMARK_CASES = tuple(
    Case(batch=8, channels=channels, height=side, width=side, dtype=dtype)
    for channels, side in dict.fromkeys((*ALEXNET, *VGG))
    for dtype in DTYPES
)
