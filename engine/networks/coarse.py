"""Coarse films from a generator's lower levels: a linear head for each level, fitted to the film that the whole generator makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

RIDGE = 1e-6  # of the mean square of the activations: enough to solve where two channels say the same


@dataclass(frozen=True, kw_only=True)
class Head:
    """The 1x1 convolution that makes a film [N, 1, resolution, resolution] in [-1, 1] of a level's activations [N, C, ...].

    weight [1, C, 1, 1], bias [1], float32. `explained` is the part of the coarse films' variance that it explained when it was fitted.
    """

    resolution: int
    weight: Tensor
    bias: Tensor
    explained: float


def shrink(films: Tensor, resolution: int) -> Tensor:
    """Films [N, 1, R, R] -> [N, 1, resolution, resolution], means over squares of pixels; R is a multiple of `resolution`.

    What a coarse film is compared with, when heads are fitted and when codes are refined. Differentiable. Raises ValueError elsewhere.
    """
    side = films.shape[-1]
    if resolution == side:
        return films
    if side % resolution:
        raise ValueError(f"films of {side} pixels cannot be shrunk to a side that does not divide it: {resolution}")
    return F.avg_pool2d(films, side // resolution)


def fit_heads(
    levels: Callable[[Tensor], Iterator[tuple[int, Tensor]]], generate: Callable[[Tensor], Tensor], codes: Iterator[Tensor]
) -> dict[int, Head]:
    """Heads by resolution: least squares between the activations of each level and the shrunken film, over all pixels of all films.

    `levels` maps codes [n, *shape] to the activations of each level below the last, as (resolution, [n, C, r, r]); `generate` maps them
    to films [n, 1, R, R] in [-1, 1]; `codes` gives batches. Sums are float64. A thousand pixels a channel are plenty, and 64 films give
    them from 16x16 on; a level with fewer pixels than four times its unknowns gets no head.
    """
    sums: dict[int, _Sums] = {}
    with torch.no_grad():
        for batch in codes:
            films = generate(batch)
            for resolution, activations in levels(batch):
                sums.setdefault(resolution, _Sums(activations.shape[1])).add(activations, shrink(films, resolution))
    return {resolution: found.solve(resolution) for resolution, found in sums.items() if found.count >= 4 * len(found.cross)}


class _Sums:
    """The normal equations of one level; the last unknown is the bias."""

    def __init__(self, channels: int) -> None:
        self.square = torch.zeros(channels + 1, channels + 1, dtype=torch.float64)
        self.cross = torch.zeros(channels + 1, dtype=torch.float64)
        self.count, self.total, self.total_square = 0, 0.0, 0.0

    def add(self, activations: Tensor, films: Tensor) -> None:
        x = activations.permute(0, 2, 3, 1).flatten(0, 2).double().cpu()  # [pixels, C]
        x = torch.cat((x, x.new_ones(len(x), 1)), dim=1)
        y = films.flatten().double().cpu()
        self.square += x.T @ x
        self.cross += x.T @ y
        self.count += len(y)
        self.total += y.sum().item()
        self.total_square += y.square().sum().item()

    def solve(self, resolution: int) -> Head:
        ridge = RIDGE * self.square.diagonal()[:-1].mean() * torch.ones_like(self.cross)
        ridge[-1] = 0
        solution = torch.linalg.solve(self.square + ridge.diag(), self.cross)
        residual = self.total_square - 2 * (solution @ self.cross) + solution @ self.square @ solution
        variance = self.total_square - self.total**2 / self.count
        return Head(
            resolution=resolution,
            weight=solution[:-1].float().reshape(1, -1, 1, 1),
            bias=solution[-1:].float(),
            explained=1 - float(residual) / max(variance, 1e-30),
        )


def heads_to_tensors(heads: Mapping[int, Head]) -> dict[str, Tensor]:
    """The heads as named tensors, for a weights file: `<resolution>.weight`, `.bias`, `.explained`."""
    named: dict[str, Tensor] = {}
    for resolution, head in sorted(heads.items()):
        named |= {f"{resolution}.weight": head.weight, f"{resolution}.bias": head.bias}
        named[f"{resolution}.explained"] = torch.tensor([head.explained])
    return named


def heads_from_tensors(named: Mapping[str, Tensor]) -> dict[int, Head]:
    """The heads of a weights file. Raises ValueError for tensors that are no heads."""
    heads: dict[int, Head] = {}
    for name in sorted(named):
        resolution, _, part = name.partition(".")
        if part not in ("weight", "bias", "explained") or not resolution.isdecimal():
            raise ValueError(f"no head has a tensor of this name: {name}")
        try:
            parts = {each: named[f"{resolution}.{each}"].float() for each in ("weight", "bias", "explained")}
        except KeyError as error:
            raise ValueError(f"a head lacks its tensor: {error.args[0]}") from None
        weight, bias = parts["weight"], parts["bias"]
        if weight.dim() != 4 or weight.shape != (1, weight.shape[1], 1, 1) or bias.shape != (1,):
            raise ValueError(f"a head's weight must be [1, C, 1, 1] and its bias [1]: {resolution}")
        explained = parts["explained"].flatten()[0].item()
        heads[int(resolution)] = Head(resolution=int(resolution), weight=weight, bias=bias, explained=explained)
    return heads
