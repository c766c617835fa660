"""The Triton kernels of MSE + SSIM: a program walks down a tile of one film, block by block."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.mse_ssim import cases

TAPS = tl.constexpr(len(cases.WINDOW))
REACH = tl.constexpr(len(cases.WINDOW) - 1)
WINDOW = tl.constexpr(cases.WINDOW)
TWO_C1 = tl.constexpr(2 * cases.C1)
TWO_C2 = tl.constexpr(2 * cases.C2)


@triton.jit  # type: ignore[untyped-decorator]
def _band(SIZE: tl.constexpr, SHIFT: tl.constexpr) -> tl.tensor:
    """[SIZE, SIZE]: at (i, k) the window's weight of tap k - i + SHIFT, 0 where there is no such tap."""
    taps = tl.arange(0, SIZE)[None, :] - tl.arange(0, SIZE)[:, None] + SHIFT
    band = tl.zeros([SIZE, SIZE], tl.float32)
    for tap in tl.static_range(TAPS):
        band = tl.where(taps == tap, WINDOW[tap], band)
    return band


@triton.jit  # type: ignore[untyped-decorator]
def _dot(a: tl.tensor, b: tl.tensor, c: tl.tensor) -> tl.tensor:
    """a b + c, about as exact as float32: tensor cores take three products of halves that have 11 bits each."""
    return tl.dot(a, b, c, input_precision="tf32x3")


@triton.jit  # type: ignore[untyped-decorator]
def _pair(x_ptr: tl.tensor, y_ptr: tl.tensor, start: tl.tensor, offsets: tl.tensor, inside: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Both films at `start` + `offsets`, 0 outside."""
    x = tl.load(x_ptr + start + offsets, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + start + offsets, mask=inside, other=0.0).to(tl.float32)
    return x, y


@triton.jit  # type: ignore[untyped-decorator]
def forward_kernel(
    x_ptr: tl.tensor,  # [N, height, width]
    y_ptr: tl.tensor,  # as x
    parts_ptr: tl.tensor,  # [N, tiles, 2] float32: sums of squared errors and of similarities
    gradient_ptr: tl.tensor,  # as x, of any type: mse_scale * (x - y) + ssim_scale * d(sum of similarities)/dx
    height: tl.tensor,
    width: tl.tensor,
    mse_scale: tl.tensor,
    ssim_scale: tl.tensor,
    TILE_ROWS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    GRADIENT: tl.constexpr,
) -> None:
    """One program takes a tile of TILE_ROWS x (BLOCK_COLUMNS - 10) pixels; a window belongs to the tile that its last pixel is in.

    With s = x + y and d = x - y the means give luminance L and the variances contrast K of a window (4 cov(x, y) = var s - var d,
    2 var x + 2 var y = var s + var d), and its similarity L K has the derivative w(p) (A + S s(p) + D d(p)) in its pixel p. So the
    gradient in p is A, S and D, filtered by the window, of all windows that p is in: those whose last pixels are p to p + 10, which is
    the filter of the moments once more, since the window is symmetric.
    Columns are filtered by eleven shifted loads that hit the cache, later by a product with a band. Rows are filtered by products with
    bands: block b of the result is near @ block b + far @ block b + 1, and the first term is carried down the tile.
    """
    TILE_COLUMNS: tl.constexpr = BLOCK_COLUMNS - REACH
    tiles_across = tl.cdiv(width, TILE_COLUMNS)
    tiles = tiles_across * tl.cdiv(height, TILE_ROWS)
    image, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    top, left = tile // tiles_across * TILE_ROWS, tile % tiles_across * TILE_COLUMNS
    corner = (image.to(tl.int64) * height + top) * width + left
    x_ptr += corner
    y_ptr += corner
    gradient_ptr += corner
    block_rows, block_columns = tl.arange(0, BLOCK_ROWS), tl.arange(0, BLOCK_COLUMNS)
    offsets = block_rows[:, None] * width + block_columns[None, :]
    is_own_column = (block_columns < tl.minimum(TILE_COLUMNS, width - left))[None, :]
    is_window_column = ((left + block_columns >= REACH) & (left + block_columns < width))[None, :]

    # s and d less their means at the tile's corner: variances stay as they are and keep their digits where the film is flat
    inside = is_own_column & (block_rows < height - top)[:, None]
    x, y = _pair(x_ptr, y_ptr, 0, offsets, inside)
    num_inside = tl.sum(inside.to(tl.float32))
    centre_s, centre_d = tl.sum(x + y) / num_inside, tl.sum(x - y) / num_inside

    near, far, across = _band(BLOCK_ROWS, 0), _band(BLOCK_ROWS, BLOCK_ROWS), tl.trans(_band(BLOCK_COLUMNS, 0))
    none = tl.zeros([BLOCK_ROWS, BLOCK_COLUMNS], tl.float32)
    near_s, near_d, near_ss, near_dd = none, none, none, none
    near_by_1, near_by_s, near_by_d = none, none, none
    squares, similarities = 0.0, 0.0
    num_blocks = tl.cdiv(tl.minimum(height - top, TILE_ROWS), BLOCK_ROWS)
    start = tl.zeros([], tl.int64)
    for block in tl.range(0, num_blocks + 2, num_stages=1, disable_licm=True):
        rows = top + block * BLOCK_ROWS + block_rows - REACH
        inside = is_window_column & ((rows >= 0) & (rows < height))[:, None]
        row_s, row_d, row_ss, row_dd = none, none, none, none
        for tap in tl.static_range(TAPS):
            x, y = _pair(x_ptr, y_ptr, start - REACH * width + (tap - REACH), offsets, inside)
            s, d = x + y - centre_s, x - y - centre_d
            row_s += WINDOW[tap] * s
            row_d += WINDOW[tap] * d
            row_ss += WINDOW[tap] * (s * s)
            row_dd += WINDOW[tap] * (d * d)
        mean_s, near_s = _dot(far, row_s, near_s), _dot(near, row_s, none)
        mean_d, near_d = _dot(far, row_d, near_d), _dot(near, row_d, none)
        variance_s, near_ss = _dot(far, row_ss, near_ss) - mean_s * mean_s, _dot(near, row_ss, none)
        variance_d, near_dd = _dot(far, row_dd, near_dd) - mean_d * mean_d, _dot(near, row_dd, none)

        rows += REACH - BLOCK_ROWS  # of the last pixels of the windows that are now whole
        is_window = is_window_column & ((rows >= tl.maximum(top, REACH)) & (rows < height))[:, None]
        whole_s, whole_d = mean_s + centre_s, mean_d + centre_d
        luminance_scale = 1 / (whole_s * whole_s + whole_d * whole_d + TWO_C1)
        contrast_scale = 1 / (variance_s + variance_d + TWO_C2)
        luminance = (whole_s * whole_s - whole_d * whole_d + TWO_C1) * luminance_scale
        contrast = (variance_s - variance_d + TWO_C2) * contrast_scale
        is_own = is_window & is_own_column & (rows < top + TILE_ROWS)[:, None]
        similarities += tl.sum(tl.where(is_own, luminance * contrast, 0.0))

        rows -= BLOCK_ROWS  # of the pixels whose windows are now all known
        inside = is_own_column & ((rows >= top) & (rows < height))[:, None]
        x, y = _pair(x_ptr, y_ptr, start - 2 * BLOCK_ROWS * width, offsets, inside)
        squares += tl.sum((x - y) * (x - y))
        if GRADIENT:
            # 1 - L and 1 - K, each written so that nothing cancels
            less_luminance, less_contrast = 2 * whole_d * whole_d * luminance_scale, 2 * variance_d * contrast_scale
            by_s = tl.where(is_window, 2 * luminance * contrast_scale * less_contrast, 0.0)
            by_d = tl.where(is_window, -2 * luminance * contrast_scale * (1 + contrast), 0.0)
            along = 2 * contrast * luminance_scale * (whole_s * less_luminance - whole_d * (1 + luminance))
            by_1 = tl.where(is_window, along - by_s * mean_s - by_d * mean_d, 0.0)
            part, near_by_1 = _dot(far, by_1, near_by_1), _dot(near, by_1, none)
            slope = _dot(part, across, none)
            part, near_by_s = _dot(far, by_s, near_by_s), _dot(near, by_s, none)
            slope += _dot(part, across, none) * (x + y - centre_s)
            part, near_by_d = _dot(far, by_d, near_by_d), _dot(near, by_d, none)
            slope += _dot(part, across, none) * (x - y - centre_d)
            gradient = mse_scale * (x - y) + ssim_scale * slope
            stored = gradient_ptr + (start - 2 * BLOCK_ROWS * width) + offsets
            tl.store(stored, gradient.to(gradient_ptr.dtype.element_ty), mask=inside)
        start += BLOCK_ROWS * width

    parts_ptr += tl.program_id(0).to(tl.int64) * 2
    tl.store(parts_ptr, squares)
    tl.store(parts_ptr + 1, similarities)


@triton.jit  # type: ignore[untyped-decorator]
def mean_kernel(
    parts_ptr: tl.tensor,  # [N, tiles, 2] float32
    mse_ptr: tl.tensor,  # [N] float32
    ssim_ptr: tl.tensor,  # as mse
    tiles: tl.tensor,
    num_pixels: tl.tensor,  # of one film, as the next
    num_windows: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Sums of tiles to means, one program a film: always in the same order, which `torch.sum` does not promise when N changes."""
    image = tl.program_id(0)
    parts_ptr += image.to(tl.int64) * tiles * 2
    squares, similarities = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for first in range(0, tiles, BLOCK):
        places = first + tl.arange(0, BLOCK)
        squares += tl.load(parts_ptr + places * 2, mask=places < tiles, other=0.0)
        similarities += tl.load(parts_ptr + places * 2 + 1, mask=places < tiles, other=0.0)
    tl.store(mse_ptr + image, tl.sum(squares) / num_pixels)
    tl.store(ssim_ptr + image, tl.sum(similarities) / num_windows)


@triton.jit  # type: ignore[untyped-decorator]
def backward_kernel(
    grad_mse_ptr: tl.tensor,  # [N] float32
    grad_ssim_ptr: tl.tensor,  # as grad_mse
    x_ptr: tl.tensor,  # [N, num_pixels]
    y_ptr: tl.tensor,  # as x
    slope_ptr: tl.tensor,  # as x, float32: d ssim / dx
    grad_x_ptr: tl.tensor,  # as x
    num_pixels: tl.tensor,  # of one film
    mse_scale: tl.tensor,  # 2 / num_pixels
    BLOCK: tl.constexpr,
) -> None:
    """grad_x = grad_mse d mse / dx + grad_ssim d ssim / dx; one program takes BLOCK pixels of one film."""
    blocks = tl.cdiv(num_pixels, BLOCK)
    image = tl.program_id(0) // blocks
    pixels = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    offsets = image.to(tl.int64) * num_pixels + pixels
    inside = pixels < num_pixels
    x = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    slope = tl.load(slope_ptr + offsets, mask=inside, other=0.0)
    grad_x = tl.load(grad_mse_ptr + image) * mse_scale * (x - y) + tl.load(grad_ssim_ptr + image) * slope
    tl.store(grad_x_ptr + offsets, grad_x.to(grad_x_ptr.dtype.element_ty), mask=inside)
