"""Shapes and types with their bytes and flops, read by the test and the benchmark; how the kernels are launched, by device and width."""

from __future__ import annotations

from dataclasses import dataclass

import torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_CHANNELS = 512


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How much one program takes: `pixels`, with all their channels, on `warps` times 32 threads."""

    pixels: int
    warps: int


# Name of the device (torch.cuda.get_device_name) -> channels rounded up to a power of two -> launch; what is missing is in "default".
# Only defaults so far: nothing was measured. They give a thread 16 values, fewer for the narrowest: registers stay few.
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
    """Activations [batch, channels, height, width] of one type, normalised or normalised and upsampled.

    Bytes in units of x        | forward | backward
    plain                      |       2 |        3
    upsampled in the same pass |       5 |        6
    ... in a pass of its own   |       7 |        8
    """

    batch: int
    channels: int
    height: int
    width: int
    dtype: torch.dtype
    upsample: bool = False

    def __str__(self) -> str:
        size = f"{self.batch}x{self.channels}x{self.height}x{self.width}"
        return f"{size}{'-upsample' if self.upsample else ''}-{str(self.dtype).removeprefix('torch.')}"

    @property
    def num_values(self) -> int:
        """Of x; the output has as many, or four times as many."""
        return self.batch * self.channels * self.height * self.width

    @property
    def copies(self) -> int:
        return 4 if self.upsample else 1

    @property
    def forward_bytes(self) -> int:
        """Read x, write y. The bias is a few kilobytes that stay in the cache, and is not counted here or below."""
        return (1 + self.copies) * self.num_values * self.dtype.itemsize

    @property
    def backward_bytes(self) -> int:
        """Read the gradient and x, write the gradient of x."""
        return (2 + self.copies) * self.num_values * self.dtype.itemsize

    @property
    def separate_bytes(self) -> int:
        """What upsampling adds, forward and as much backward, when it is a pass of its own: the small tensor once more written and read."""
        return 2 * self.num_values * self.dtype.itemsize if self.upsample else 0

    @property
    def forward_flops(self) -> int:
        """A value: bias 1, leaky 2 (compare, multiply), square and sum 2, scale 1. A pixel: mean, epsilon, reciprocal root 3."""
        return 6 * self.num_values + 3 * self.batch * self.height * self.width

    @property
    def backward_flops(self) -> int:
        """The forward pass again. A value: product and sum 2, multiply and subtract 2, scale 1, leaky 1; its copies. A pixel: mean 1."""
        return self.forward_flops + (6 + self.copies - 1) * self.num_values + self.batch * self.height * self.width


# Small enough for the interpreter: full and partial blocks of channels and of pixels, one program and several, one image and several,
# rows shorter than a block of pixels and longer.
TEST_CASES = tuple(
    Case(batch=batch, channels=channels, height=height, width=width, dtype=dtype, upsample=upsample)
    for batch, channels, height, width in (
        (1, 1, 33, 21),
        (3, 2, 9, 11),
        (2, 3, 17, 19),
        (1, 16, 16, 16),
        (2, 33, 7, 9),
        (1, 100, 1, 1),
        (3, 512, 3, 7),
    )
    for dtype in DTYPES
    for upsample in (False, True)
)

# Where the op stands in the generator of Segal et al. 2021: (channels, side) of each level; the batch is 8. All but the last level are
# upsampled once.
LEVELS = ((512, 4), (512, 8), (512, 16), (512, 32), (256, 64), (128, 128), (64, 256), (32, 512), (16, 1024))
BENCHMARK_CASES = tuple(
    Case(batch=8, channels=channels, height=side, width=side, dtype=dtype, upsample=upsample)
    for channels, side in LEVELS
    for dtype in DTYPES
    for upsample in ((False, True) if (channels, side) != LEVELS[-1] else (False,))
)
