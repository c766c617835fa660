"""Varies films as they are seen: geometry and gray, from each image's own random numbers, whatever batch it comes in."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainers import randomness
from trainers.presets.films import AugmentConfig

_DRAWN = ("flip", "rotation", "scale", "shift_x", "shift_y", "gamma", "gain", "offset")


def augment(films: Tensor, seed: int, numbers: range, cfg: AugmentConfig) -> Tensor:
    """Films [n, 1, r, r] float32 in [-1, 1] of images `numbers` of the run -> the same, varied as `cfg` allows, on the films' device.

    Film i depends on seed and numbers[i] alone: on a CPU its bits are the same in any batch. With nothing to vary `films` is returned
    as it is. What is turned or shifted into view repeats the film's edge.
    """
    if len(films) != len(numbers):
        raise ValueError(f"films and their numbers differ: {len(films)} and {len(numbers)}")
    if cfg.is_identity or not len(films):
        return films
    drawn = _drawn(seed, numbers)
    if cfg.flip:
        films = torch.stack([film.flip(-1) if row["flip"] < cfg.flip else film for film, row in zip(films, drawn, strict=True)])
    if cfg.rotation or cfg.scale or cfg.shift:
        films = _move(films, [_affine(row, cfg) for row in drawn])
    if cfg.gamma or cfg.gain or cfg.offset:
        films = torch.stack([_regray(film, row, cfg) for film, row in zip(films, drawn, strict=True)])
    return films.contiguous(memory_format=torch.channels_last)


def mirrored(seed: int, numbers: range, cfg: AugmentConfig) -> list[bool]:
    """Which of these images `augment` mirrors, for what is known of places on them."""
    return [row["flip"] < cfg.flip for row in _drawn(seed, numbers)] if cfg.flip else [False] * len(numbers)


def _drawn(seed: int, numbers: range) -> list[dict[str, float]]:
    return [dict(zip(_DRAWN, row, strict=True)) for row in randomness.uniform(seed, "augment", numbers, len(_DRAWN)).tolist()]


def _between(value: float, limit: float) -> float:
    """[0, 1) -> [-limit, limit)."""
    return (2 * value - 1) * limit


def _affine(row: dict[str, float], cfg: AugmentConfig) -> list[float]:
    """Where a pixel of the varied film comes from: x' = a x + b y + c, y' = -b x + a y + d, coordinates from -1 to 1 over the film."""
    angle = math.radians(_between(row["rotation"], cfg.rotation))
    size = (1 + cfg.scale) ** _between(row["scale"], 1)
    shift_x, shift_y = (2 * _between(row[name], cfg.shift) for name in ("shift_x", "shift_y"))
    return [math.cos(angle) / size, math.sin(angle) / size, shift_x, shift_y]


def _move(films: Tensor, affine: list[list[float]]) -> Tensor:
    """Bilinear sampling. The coordinates are products and sums of single numbers: a matrix product may round differently by batch."""
    n, _, _, r = films.shape
    a, b, c, d = torch.tensor(affine, device=films.device).view(n, 4, 1, 1).unbind(1)
    centres = (torch.arange(r, device=films.device, dtype=torch.float32) * 2 + 1) / r - 1
    x, y = centres.view(1, 1, r), centres.view(1, r, 1)
    grid = torch.stack([a * x + b * y + c, a * y - b * x + d], dim=-1)  # [n, r, r, 2]
    return torch.nn.functional.grid_sample(films, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _regray(film: Tensor, row: dict[str, float], cfg: AugmentConfig) -> Tensor:
    """One film at a time: a power's last bit may differ between the body and the end of a vector loop."""
    unit = film.add(1).mul_(0.5).clamp_(0, 1)
    if cfg.gamma:
        unit.pow_((1 + cfg.gamma) ** _between(row["gamma"], 1))
    if cfg.gain or cfg.offset:
        unit.mul_(1 + _between(row["gain"], cfg.gain)).add_(_between(row["offset"], cfg.offset)).clamp_(0, 1)
    return unit.mul_(2).sub_(1)
