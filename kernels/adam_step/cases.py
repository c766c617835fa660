"""Shapes and types with their bytes and flops, read by the test and the benchmark; how the kernel is launched, by device and width."""

from __future__ import annotations

from dataclasses import dataclass

import torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # of the gradient; codes and moments are float32
MAX_CHANNELS = 4096  # of a layer on the sphere
PLAIN_WIDTH = 2048  # values of a code without gauge that are taken as one row


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How a program, which takes a slot, goes through it: `values` at a time, in whole rows, on `warps` times 32 threads."""

    values: int
    warps: int


# Name of the device (torch.cuda.get_device_name) -> width of a row rounded up to a power of two -> launch; what is missing is in "default".
# Only defaults so far: nothing was measured. They give a thread 4 or 8 values: slots are few, so each has many threads.
LAUNCHES: dict[str, dict[int, Launch]] = {
    "default": {
        1: Launch(values=512, warps=4),
        2: Launch(values=512, warps=4),
        4: Launch(values=512, warps=4),
        8: Launch(values=512, warps=4),
        16: Launch(values=512, warps=4),
        32: Launch(values=1024, warps=8),
        64: Launch(values=1024, warps=8),
        128: Launch(values=1024, warps=8),
        256: Launch(values=1024, warps=8),
        512: Launch(values=1024, warps=8),
        1024: Launch(values=1024, warps=8),
        2048: Launch(values=2048, warps=8),
        4096: Launch(values=4096, warps=16),
    },
}


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """How codes of one shape are cut: rows of `width`, taken `block_rows` at a time in blocks `block_width` wide, on `warps` warps."""

    width: int
    block_rows: int
    block_width: int
    warps: int


def bucket(size: int) -> int:
    """`size` rounded up to a power of two."""
    return 1 << (size - 1).bit_length()


def blocks_for(device_name: str, values: int, channels: int, gauge: str) -> Blocks:
    """For codes of `values` numbers, `channels` along the last axis, by the tuned launch for this device and width or the default one."""
    width = channels if gauge == "sphere" else min(values, PLAIN_WIDTH)
    block_width = bucket(width)
    launch = LAUNCHES.get(device_name, {}).get(block_width) or LAUNCHES["default"][block_width]
    block_rows = min(max(1, launch.values // block_width), bucket(-(-values // width)))
    return Blocks(width=width, block_rows=block_rows, block_width=block_width, warps=launch.warps)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Codes [slots, layers, channels] with a gradient of one type."""

    slots: int
    layers: int
    channels: int
    gauge: str
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.slots}x{self.layers}x{self.channels}-{self.gauge}-{str(self.dtype).removeprefix('torch.')}"

    @property
    def num_values(self) -> int:
        return self.slots * self.layers * self.channels

    @property
    def step_bytes(self) -> int:
        """Read codes, gradient and moments, write codes, moments and, at worst, the best codes. The second look finds them in the cache."""
        return self.num_values * (3 * 4 + self.dtype.itemsize + 4 * 4)

    @property
    def step_flops(self) -> int:
        """A value: first moment 3, second 4, step 6 (root, correction, epsilon, scale, division, difference), and on the sphere 5 more
        (largest, division, square and sum, scale). What a slot or a row takes once is not counted."""
        return self.num_values * (18 if self.gauge == "sphere" else 13)


# Small enough for the interpreter: full and partial blocks of rows and of columns, one block and several, one slot and several.
TEST_CASES = tuple(
    Case(slots=slots, layers=layers, channels=channels, gauge=gauge, dtype=dtype)
    for slots, layers, channels, gauge in (
        (4, 1, 1, "sphere"),
        (3, 5, 3, "sphere"),
        (1, 1, 512, "sphere"),
        (5, 18, 512, "sphere"),
        (2, 3, 1000, "sphere"),
        (2, 4, 4096, "sphere"),
        (4, 1, 1, "none"),
        (3, 7, 100, "none"),
        (2, 3, 1000, "none"),
        (2, 16, 1024, "none"),
    )
    for dtype in DTYPES
)

# Codes of the generator of Segal et al. 2021, of one with a code for each of its layers, and of an autoencoder with a map of codes.
BENCHMARK_CASES = tuple(
    Case(slots=slots, layers=layers, channels=channels, gauge=gauge, dtype=torch.float32)
    for slots in (8, 64)
    for layers, channels, gauge in ((1, 512, "sphere"), (18, 512, "sphere"), (16, 1024, "none"))
)
