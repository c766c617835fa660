"""Quality of reconstructions: one value an image, from gray films in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch
from torch import Tensor

from engine.resample import resize_film

__all__ = ["MS_SSIM_LEAST_SIZE", "PSNR_CAP", "ms_ssim", "mse", "psnr", "psnr_of_mse", "resize_film", "ssim", "to_unit"]

PSNR_CAP = 150.0  # dB: an error of 3e-8 a pixel, float32's own rounding of values in [0, 1]

_TAPS = 11
_SIGMA = 1.5
_C1 = 0.01**2  # (K1 x data_range)^2 and (K2 x data_range)^2 with data_range 1
_C2 = 0.03**2
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_LEAST_SIZE = _TAPS * 2 ** (len(_SCALE_WEIGHTS) - 1)  # pixels: the window still fits at the coarsest scale

_CPU_STRIP_PIXELS = 2**17  # a strip and its four maps stay in a core's second-level cache: 15 ms a 1024x1024 film, 30 ms in one piece


def to_unit(pixels: Tensor) -> Tensor:
    """Pixels of the engine, in [-1, 1], as gray values in [0, 1]; what lies outside is clamped, as a display would."""
    return (pixels.float() * 0.5 + 0.5).clamp(0, 1)


def mse(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of each image: [N, 1, H, W] twice -> [N] float32. Differentiable. Raises ValueError where shapes differ."""
    _check(x, y)
    return (x.float() - y.float()).square().flatten(1).mean(1)


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, data_range 1: [N, 1, H, W] twice -> [N] float32. See `psnr_of_mse`."""
    return psnr_of_mse(mse(x, y))


def psnr_of_mse(error: Tensor) -> Tensor:
    """Mean squared errors of values in [0, 1] as dB, at most PSNR_CAP.

    Equal images read PSNR_CAP instead of infinity, so that a mean over an archive and its JSON stay finite. NaN stays NaN.
    """
    return -10 * torch.log10(error.clamp(min=10 ** (-PSNR_CAP / 10)))


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of each image: [N, 1, H, W] twice, in [0, 1] -> [N] float32.

    Wang et al. 2004: Gaussian window of 11 taps, sigma 1.5, K1 0.01, K2 0.03, data_range 1, population covariance, mean over the
    positions where the window lies inside the image. Raises ValueError for shapes that differ or sides under 11 pixels.
    """
    _check(x, y, least_size=_TAPS)
    return _each(lambda a, b: _similarity(a, b)[0], x, y)


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Multi-scale structural similarity of each image: [N, 1, H, W] twice, in [0, 1] -> [N] float32.

    Wang, Simoncelli and Bovik 2003, their five weights, with the window of `ssim`: contrast and structure at five scales, luminance at
    the coarsest; each next scale is the mean of 2x2 pixels. A negative factor counts as 0.
    Raises ValueError for shapes that differ or sides under MS_SSIM_LEAST_SIZE.
    """
    _check(x, y, least_size=MS_SSIM_LEAST_SIZE)
    return _each(_multi_scale, x, y)


def _check(x: Tensor, y: Tensor, *, least_size: int = 1) -> None:
    if x.shape != y.shape or x.ndim != 4 or x.shape[1] != 1:
        raise ValueError(f"metrics take two batches [N, 1, H, W] of one shape: {tuple(x.shape)} and {tuple(y.shape)}")
    if min(x.shape[-2:]) < least_size:
        raise ValueError(f"images must be at least {least_size} pixels high and wide: {tuple(x.shape[-2:])}")


def _each(measure: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """`measure` of each pair of images, [N] float32; memory is that of one film a thread.

    On a CPU each thread takes whole images: strips are so small that threads which share one wait for each other longer than they
    work (a 1024x1024 film took 20 ms by one thread and 180 by two beside a decoder).
    """
    if len(x) == 0:
        return x.new_empty(0, dtype=torch.float32)
    pairs = list(zip(x.float().squeeze(1), y.float().squeeze(1), strict=True))
    threads = torch.get_num_threads()
    if x.device.type != "cpu" or threads == 1:
        return torch.stack([measure(a, b) for a, b in pairs])
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return torch.stack(list(pool.map(lambda pair: measure(*pair), pairs)))
    finally:
        torch.set_num_threads(threads)


def _multi_scale(x: Tensor, y: Tensor) -> Tensor:
    """MS-SSIM of one pair [H, W] as a scalar."""
    result = torch.ones((), device=x.device)
    for scale, weight in enumerate(_SCALE_WEIGHTS):
        if scale:
            x, y = (torch.nn.functional.avg_pool2d(image[None, None], 2)[0, 0] for image in (x, y))
        whole, contrast = _similarity(x, y)
        factor = whole if scale == len(_SCALE_WEIGHTS) - 1 else contrast
        result = result * factor.clamp(min=0) ** weight
    return result


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean SSIM, and its mean contrast-structure part, of one pair [H, W], strip by strip."""
    height, width = x.shape[0] - _TAPS + 1, x.shape[1] - _TAPS + 1
    rows = max(1, _CPU_STRIP_PIXELS // x.shape[1]) if x.device.type == "cpu" else height
    whole = torch.zeros((), dtype=torch.float64, device=x.device)
    contrast = torch.zeros_like(whole)
    for top in range(0, height, rows):
        strip = slice(top, min(top + rows, height) + _TAPS - 1)
        luminance_map, contrast_map = _maps(x[strip], y[strip])
        whole += (luminance_map * contrast_map).sum(dtype=torch.float64)
        contrast += contrast_map.sum(dtype=torch.float64)
    return (whole / (height * width)).float(), (contrast / (height * width)).float()


def _maps(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure at every position of the window.

    Sum and difference carry all five moments in four maps: with s = x + y and d = x - y, 4 cov(x, y) = var s - var d and
    2 (var x + var y) = var s + var d; the means likewise. The sum is centred on 0, which keeps float32 variances exact enough.
    """
    total, difference = x + y - 1, x - y
    moments = _blur(torch.stack([total, difference, total * total, difference * difference]))
    mean_total, mean_difference, square_total, square_difference = moments
    variance_total = square_total - mean_total.square()
    variance_difference = square_difference - mean_difference.square()
    power_total, power_difference = (mean_total + 1).square(), mean_difference.square()
    luminance = (0.5 * (power_total - power_difference) + _C1) / (0.5 * (power_total + power_difference) + _C1)
    contrast = (0.5 * (variance_total - variance_difference) + _C2) / (0.5 * (variance_total + variance_difference) + _C2)
    return luminance, contrast


def _blur(maps: Tensor) -> Tensor:
    """[C, H, W] -> [C, H - 10, W - 10]: the Gaussian window as shifted sums, which no TF32 or autocast setting can coarsen."""
    window = _window()
    for axis in (-2, -1):
        length = maps.shape[axis] - _TAPS + 1
        blurred = maps.narrow(axis, 0, length) * window[0]
        for tap in range(1, _TAPS):
            blurred.add_(maps.narrow(axis, tap, length), alpha=window[tap])
        maps = blurred
    return maps


@lru_cache(maxsize=1)
def _window() -> list[float]:
    offsets = torch.arange(_TAPS, dtype=torch.float64) - _TAPS // 2
    weights = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    values: list[float] = (weights / weights.sum()).tolist()
    return values
