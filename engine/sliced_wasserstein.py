"""Sliced Wasserstein distance between two sets of films, scale by scale: how real generated films look (Karras et al. 2018, section 5)."""

from __future__ import annotations

from statistics import fmean

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_SIDE = 8  # pixels: a patch, and one place more
_COARSEST = 16  # pixels: the last level of the pyramid
_PATCH = 7
_REPEATS, _DIRECTIONS = 4, 128
_FLAT = 1e-6  # a level that deviates less is rounding on a flat one; one gray of an 8-bit film is 8e-3
_PART_PIXELS = 2**20  # films whose pyramid is made at a time: 4 MiB a map, a third of the time of 64 MiB
_BINOMIAL = (0.0625, 0.25, 0.375, 0.25, 0.0625)


def swd(real: Tensor, fake: Tensor, *, seed: int = 0, descriptors: int = 128) -> dict[str, float]:
    """Distances between films [n, 1, R, R] and [m, 1, R, R], times 1000: `swd_<side>` of each level of the pyramid, and `swd_mean`.

    See `SlicedWasserstein`, which takes films as they come. Raises ValueError as it does.
    """
    distance = SlicedWasserstein(real.shape[-1], seed, descriptors=descriptors)
    distance.add_real(real)
    distance.add_fake(fake)
    return distance.compute()


class SlicedWasserstein:
    """The distances of `swd`, from films that come in any portions; equal films in equal order give equal figures.

    Each film becomes a Laplacian pyramid from its own side R down to 16 pixels (a film under 16 has one level: itself); from each level
    `descriptors` patches of 7x7 are taken at random places. The patches of a level, less their mean and over their deviation, are projected
    on 4 x 128 random directions; the distance is the mean difference between the sorted projections of the two sets. Sets of different
    size are compared as distributions: the area between their quantile functions, which for equal sizes is that mean difference.

    What to know of it. Karras takes 16384 films; few films raise every figure, so compare figures of equal counts only, and put the
    distance between two sets of real films beside them as a floor. As each set is normalised by itself, a level's overall brightness and
    contrast do not count. Gray films have patches of 49 values where Karras's have 147. Patches stay on the device of the films, about
    25 kB a film and level.
    """

    def __init__(self, resolution: int, seed: int = 0, *, descriptors: int = 128) -> None:
        """`resolution`: the side R of the films. Raises ValueError for films under 8 pixels, or an odd side above the coarsest level."""
        if resolution < LEAST_SIDE:
            raise ValueError(f"sliced Wasserstein distance needs films of {LEAST_SIDE} pixels or more: {resolution}")
        if descriptors < 1:
            raise ValueError(f"sliced Wasserstein distance needs a descriptor a film or more: {descriptors}")
        self.sides = _sides(resolution)
        self.seed, self.descriptors = seed, descriptors
        self._real = _Patches(self.sides, descriptors, seed, 0)
        self._fake = _Patches(self.sides, descriptors, seed, 1)

    def add_real(self, films: Tensor) -> None:
        """Takes films [n, 1, R, R] in [-1, 1]. Raises ValueError for films of another shape or with values that are no numbers."""
        self._real.add(films)

    def add_fake(self, films: Tensor) -> None:
        """As `add_real`, for the set that is judged."""
        self._fake.add(films)

    def clear_fake(self) -> None:
        """Forgets the fake films and their random places, so that the next ones are judged against the same real ones."""
        self._fake = _Patches(self.sides, self.descriptors, self.seed, 1)

    @torch.no_grad()
    def compute(self) -> dict[str, float]:
        """The distances of the films so far, times 1000, by name. Raises ValueError while a set is empty."""
        for name, films in (("real", self._real.films), ("fake", self._fake.films)):
            if not films:
                raise ValueError(f"sliced Wasserstein distance needs films of both sets, none were added: {name}")
        distances = {}
        for level, side in enumerate(self.sides):
            real, fake = self._real.vectors(level), self._fake.vectors(level)
            draw = _draw(self.seed, 2, level)
            distances[f"swd_{side}"] = 1000 * fmean(sliced_wasserstein(real, fake, draw) for _ in range(_REPEATS))
        return {**distances, "swd_mean": fmean(distances.values())}


def sliced_wasserstein(real: Tensor, fake: Tensor, draw: torch.Generator) -> float:
    """Mean Wasserstein-1 distance of float64 vectors [n, k] and [m, k] on 128 random directions, drawn from `draw` (of the CPU).

    Projected in float64, which neither TF32 nor autocast coarsens, and compared in float32.
    """
    directions = torch.randn(_DIRECTIONS, real.shape[1], generator=draw, dtype=torch.float64)
    directions = (directions / directions.norm(dim=1, keepdim=True)).to(real.device)
    total = 0.0
    for part in directions.split(16):  # as many sorted projections as there is room for
        first, second = (_sorted((part @ vectors.T).float()) for vectors in (real, fake))
        total += float(_area_between(first, second).sum())
    return total / _DIRECTIONS


def laplacian_pyramid(films: Tensor, levels: int) -> list[Tensor]:
    """Films [n, 1, R, R] as `levels` maps of sides R, R/2 ...: each what the next one, doubled, lacks; the last is what remains."""
    pyramid, rest = [], films
    for _ in range(levels - 1):
        coarse = halved(rest)
        pyramid.append(rest - doubled(coarse))
        rest = coarse
    return [*pyramid, rest]


def halved(maps: Tensor) -> Tensor:
    """[n, 1, H, W] -> [n, 1, H/2, W/2]: binomial filter of 5 taps along both axes, mirrored at the border; even places are kept."""
    for axis in (2, 3):
        padded = _mirrored(maps, axis)
        maps = _every_second(padded, axis, 0) * _BINOMIAL[0]
        for tap in range(1, len(_BINOMIAL)):
            maps.add_(_every_second(padded, axis, tap), alpha=_BINOMIAL[tap])
    return maps


def doubled(maps: Tensor) -> Tensor:
    """[n, 1, H, W] -> [n, 1, 2H, 2W]: zeros between the values, then twice the filter of `halved` along both axes.

    The filter meets values with its taps 1, 6, 1 at even places and with 4, 4 at odd ones. As it is mirrored with the zeros in place,
    the second value lies before the first, and the last one after itself.
    """
    for axis in (2, 3):
        length = maps.shape[axis]
        padded = torch.cat([maps.narrow(axis, 1, 1), maps, maps.narrow(axis, length - 1, 1)], axis)
        left, right = padded.narrow(axis, 0, length), padded.narrow(axis, 2, length)
        even = torch.add(left, right).mul_(0.125).add_(maps, alpha=0.75)
        odd = torch.add(maps, right).mul_(0.5)
        maps = torch.stack([even, odd], axis + 1).flatten(axis, axis + 1)
    return maps


class _Patches:
    """Patches of one set of films, level by level, from places that do not depend on the portions in which films come."""

    def __init__(self, sides: tuple[int, ...], per_film: int, seed: int, which: int) -> None:
        self.sides, self.per_film, self.films = sides, per_film, 0
        self._taken: list[list[Tensor]] = [[] for _ in sides]
        self._draws = [_draw(seed, which, level) for level in range(len(sides))]

    @torch.no_grad()
    def add(self, films: Tensor) -> None:
        side = self.sides[0]
        if films.shape[1:] != (1, side, side):
            raise ValueError(f"sliced Wasserstein distance takes films [n, 1, {side}, {side}]: {tuple(films.shape)}")
        for part in torch.split(films, max(1, _PART_PIXELS // side**2)):
            pixels = part.float()
            if not pixels.isfinite().all():
                raise ValueError(f"films have values that are no numbers, among those from film {self.films} on")
            for level, map_ in enumerate(laplacian_pyramid(pixels, len(self.sides))):
                self._taken[level].append(self._patches(map_, level))
            self.films += len(part)

    def vectors(self, level: int) -> Tensor:
        """All patches of a level, float64 [patches, 49], of mean 0 and deviation 1 over all of their values."""
        patches = torch.cat(self._taken[level]).double().flatten(1)
        patches -= patches.mean()
        deviation = float(patches.square().mean().sqrt())
        return patches.div_(deviation) if deviation > _FLAT else patches.zero_()

    def _patches(self, maps: Tensor, level: int) -> Tensor:
        """[n, 1, S, S] -> [n * per_film, 7, 7]"""
        windows = maps[:, 0].unfold(1, _PATCH, 1).unfold(2, _PATCH, 1)  # a view: [n, S - 6, S - 6, 7, 7]
        corners = torch.randint(windows.shape[1], (len(maps) * self.per_film, 2), generator=self._draws[level]).to(maps.device)
        film = torch.arange(len(maps), device=maps.device).repeat_interleave(self.per_film)
        return windows[film, corners[:, 0], corners[:, 1]]


def _draw(seed: int, *stream: int) -> torch.Generator:
    """Random numbers of their own for each stream of a seed."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, *stream]).generate_state(1, np.uint64)[0]))


def _sides(resolution: int) -> tuple[int, ...]:
    sides = [resolution]
    while sides[-1] // 2 >= _COARSEST:
        if sides[-1] % 2:
            raise ValueError(
                f"sliced Wasserstein distance halves films down to {_COARSEST} pixels, which an odd side prevents: {resolution}"
            )
        sides.append(sides[-1] // 2)
    return tuple(sides)


def _sorted(rows: Tensor) -> Tensor:
    """Each row in ascending order. On a CPU NumPy sorts, almost four times as fast as torch, which also looks after indices."""
    if rows.device.type != "cpu":
        return rows.sort(dim=1).values
    values = rows.numpy()
    values.sort(axis=1)
    return rows


def _area_between(first: Tensor, second: Tensor) -> Tensor:
    """Wasserstein-1 distance of sorted rows [d, n] and [d, m]: the area between their quantile functions, [d] float64."""
    n, m = first.shape[1], second.shape[1]
    if n != m:  # both functions are flat between the quantiles i / n and j / m; in units of 1 / (n m) these are whole numbers
        device = first.device
        steps = torch.unique(torch.cat([torch.arange(1, n + 1, device=device) * m, torch.arange(1, m + 1, device=device) * n]))
        widths = steps.diff(prepend=steps.new_zeros(1))
        first, second = first[:, (steps - 1) // m], second[:, (steps - 1) // n]
        return torch.mv((first - second).abs().double(), widths.double() / (n * m))
    return (first - second).abs().mean(dim=1, dtype=torch.float64)


def _mirrored(maps: Tensor, axis: int) -> Tensor:
    """Maps with two more values at both ends of an axis, mirrored without repeating the outermost."""
    return F.pad(maps, (2, 2, 0, 0) if axis == 3 else (0, 0, 2, 2), mode="reflect")


def _every_second(padded: Tensor, axis: int, tap: int) -> Tensor:
    """What a tap of five meets at the even places of the maps that were mirrored: half as many values along the axis."""
    part = slice(tap, tap + padded.shape[axis] - 5, 2)
    return padded[:, :, part] if axis == 2 else padded[:, :, :, part]
