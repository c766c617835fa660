"""The constants of SSIM; shapes and types with bytes and flops, read by the test and the benchmark; launches by device and height."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# Wang et al. 2004: a Gaussian window of 11 taps with sigma 1.5, K1 0.01 and K2 0.03, for values in [0, 1]
_BELL = tuple(math.exp(-((tap - 5) ** 2) / (2 * 1.5**2)) for tap in range(11))
WINDOW = tuple(weight / math.fsum(_BELL) for weight in _BELL)
C1 = 0.01**2
C2 = 0.03**2

BACKWARD_BLOCK = 1024  # pixels a program of the backward pass
MEAN_BLOCK = 256  # tiles that the pass over partial sums adds at a time


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One program takes a tile of `tile_rows` rows in blocks of `block_rows` x `block_columns` windows, on `warps` times 32 threads.

    Powers of two; blocks at least 16 high and 32 wide. A tile is `block_columns` - 10 pixels wide: the window's halo is in the block.
    """

    tile_rows: int
    block_rows: int
    block_columns: int
    warps: int

    @property
    def tile_columns(self) -> int:
        return self.block_columns - len(WINDOW) + 1

    def num_tiles(self, height: int, width: int) -> int:
        """Tiles of one film, the partial ones included."""
        return -(-height // self.tile_rows) * -(-width // self.tile_columns)


# Name of the device (torch.cuda.get_device_name) -> height rounded up to a power of two -> launch; what is missing is in "default".
# Only defaults so far: nothing was measured. A program walks down its tile and pays two blocks for the halo, so tall tiles cost less a
# pixel; short ones of small films keep more programs at work. Blocks of
# 32 columns on eight warps are the widest that spill nowhere. The batch has no say: a film's sums must not depend on its neighbours.
LAUNCHES: dict[str, dict[int, Launch]] = {
    "default": {
        16: Launch(tile_rows=16, block_rows=16, block_columns=32, warps=8),
        32: Launch(tile_rows=32, block_rows=16, block_columns=32, warps=8),
        64: Launch(tile_rows=32, block_rows=16, block_columns=32, warps=8),
        128: Launch(tile_rows=32, block_rows=16, block_columns=32, warps=8),
        256: Launch(tile_rows=64, block_rows=16, block_columns=32, warps=8),
        512: Launch(tile_rows=128, block_rows=16, block_columns=32, warps=8),
        1024: Launch(tile_rows=128, block_rows=16, block_columns=32, warps=8),
    },
}


def bucket(height: int) -> int:
    """`height` rounded up to a power of two, at least 16; 1024 for all that is taller than 512."""
    return min(max(1 << (height - 1).bit_length(), 16), 1024)


def launch_for(device_name: str, height: int) -> Launch:
    """The tuned launch for this device and height, or the default one."""
    return LAUNCHES.get(device_name, {}).get(bucket(height)) or LAUNCHES["default"][bucket(height)]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Two batches of films [batch, 1, height, width] of one type.

    Bytes are what must cross the memory bus: halos come from the cache, partial sums are a few bytes a tile, and neither is counted.
    """

    batch: int
    height: int
    width: int
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.batch}x{self.height}x{self.width}-{str(self.dtype).removeprefix('torch.')}"

    @property
    def num_pixels(self) -> int:
        return self.batch * self.height * self.width

    @property
    def value_bytes(self) -> int:
        """No gradient wanted: read x and y."""
        return 2 * self.num_pixels * self.dtype.itemsize

    @property
    def forward_bytes(self) -> int:
        """Read x and y, write d ssim / dx in float32, so that the gradient is rounded to the type of x once."""
        return self.value_bytes + 4 * self.num_pixels

    @property
    def backward_bytes(self) -> int:
        """Read x, y and d ssim / dx, write the gradient of x."""
        return (3 * self.dtype.itemsize + 4) * self.num_pixels

    @property
    def with_gradient_bytes(self) -> int:
        """`mse_ssim_with_gradient`: read x and y, write the gradient: 12 bytes a pixel in float32 instead of 28, 6 of 18 in half."""
        return 3 * self.num_pixels * self.dtype.itemsize

    @property
    def value_flops(self) -> int:
        """A pixel: sum, difference, their centres and squares 6, squared error 2; four moments filtered along both axes, a tap two flops;
        similarity 20. What the definition asks for: products with bands, whose zeros are multiplied too, take several times as many."""
        return (6 + 2 + 4 * 2 * 2 * len(WINDOW) + 20) * self.num_pixels

    @property
    def forward_flops(self) -> int:
        """The values. A pixel more: three coefficients 20, filtered along both axes; their sum 4."""
        return self.value_flops + (20 + 3 * 2 * 2 * len(WINDOW) + 4) * self.num_pixels

    @property
    def backward_flops(self) -> int:
        """A pixel: difference 1, two scales 2, their sum 1."""
        return 4 * self.num_pixels


# Small enough for the interpreter: the least side, tiles (22 columns wide, 16 to 32 rows high) that are full and partial, one and several
# each way, one image and several.
TEST_CASES = tuple(
    Case(batch=batch, height=height, width=width, dtype=dtype)
    for batch, height, width in ((1, 11, 11), (3, 13, 12), (2, 17, 25), (1, 36, 22))
    for dtype in DTYPES
)

# Sides of films as refinement climbs; the batch is 8.
BENCHMARK_CASES = tuple(Case(batch=8, height=side, width=side, dtype=dtype) for side in (64, 128, 256, 512, 1024) for dtype in DTYPES)
