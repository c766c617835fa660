"""The pixel recipe on tensors of any device: the same pixels as `prepare.py`, for films that were decoded where they are used."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from engine.recipe import Equalise, PixelRecipe, Resize, Square
from engine.resample import lanczos_weights


def prepare_tensor(samples: Tensor, recipe: PixelRecipe, *outs: Tensor, white: float) -> None:
    """As `prepare`, for samples [H, W, C] uint8 or uint16 (C = 1 gray, 3 RGB) and `outs` [S, S] float32, all on one device."""
    gray = _to_gray(samples.to(torch.float32))
    unit = _own_range(gray.clamp_(0, white)) if recipe.intensity == "minmax" else (gray / white).clamp_(0, 1)
    squared = _make_square(_equalise(unit, recipe.equalise), recipe.square)
    for out in outs:
        torch.sub(resize_tensor(squared, len(out), recipe.resize) * 2, 1, out=out)


def resize_tensor(unit: Tensor, size: int, how: Resize) -> Tensor:
    """[H, W] to [size, size], clamped to [0, 1]: weights of the rows times the film times weights of the columns."""
    rows = _weights(how, unit.shape[0], size, unit.device)
    columns = _weights(how, unit.shape[1], size, unit.device)
    # In float64: tensor cores would round a float32 product to ten bits.
    return (rows @ unit.double() @ columns.T).clamp_(0, 1).float()


def _to_gray(samples: Tensor) -> Tensor:
    if samples.shape[-1] == 1:
        return samples[..., 0]
    red, green, blue = samples.unbind(-1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _own_range(gray: Tensor) -> Tensor:
    """[0, 1] from the darkest to the brightest sample; of a film of one gray all are 0."""
    lowest, highest = gray.aminmax()
    extent = highest - lowest
    return (gray - lowest) / torch.where(extent > 0, extent, torch.ones_like(extent))


def _equalise(unit: Tensor, how: Equalise) -> Tensor:
    if how == "none":
        return unit
    levels = unit * 255
    counts = torch.bincount(levels.round().long().flatten(), minlength=256)
    first = int(counts[counts > 0][0])
    if first == unit.numel():
        return unit
    heights = ((counts.cumsum(0) - first).double() / (unit.numel() - first)).clamp_(0, 1)
    below = levels.floor().clamp_(0, 254).long()
    share = (levels - below).double()
    return (heights[below] * (1 - share) + heights[below + 1] * share).float()


def _make_square(unit: Tensor, how: Square) -> Tensor:
    height, width = unit.shape
    if how == "stretch" or height == width:
        return unit
    side = min(height, width) if how == "crop" else max(height, width)
    top, left = abs(side - height) // 2, abs(side - width) // 2
    if how == "crop":
        return unit[top : top + side, left : left + side]
    return torch.nn.functional.pad(unit, (left, side - width - left, top, side - height - top))


def _weights(how: Resize, length: int, size: int, device: torch.device) -> Tensor:
    return area_weights(length, size, device) if how == "area" else lanczos_weights(length, size, device, torch.float64)


@lru_cache(maxsize=8)  # films of one set have few sizes; 3000 to 1024 takes 24 MiB
def area_weights(length: int, size: int, device: torch.device) -> Tensor:
    """Share of each of `length` source samples in each of `size` target ones, float64 [size, length]; rows sum to 1."""
    scale = length / size
    target = torch.arange(size, dtype=torch.float64)[:, None]
    source = torch.arange(length, dtype=torch.float64)[None]
    # the overlap of a target sample with each source sample, whichever of the two is wider
    weights = (torch.minimum((target + 1) * scale, source + 1) - torch.maximum(target * scale, source)).clamp_(min=0)
    return (weights / weights.sum(dim=1, keepdim=True)).to(device)
