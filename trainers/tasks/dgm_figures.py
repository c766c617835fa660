"""How well films are decomposed, on phantoms of which the truth is known: the same patients with an opacity and without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine import metrics
from engine.errors import ConfigError
from engine.source.phantom import draw_labels, render_phantom
from engine.source.phantoms.truth import box_of

Decompose = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Films [n, 1, R, R] float32 in [-1, 1] -> (normal films y', residue maps a), each of that shape."""

_OPACITY = ("opacity",)
_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class DecompositionFigures:
    """What `judge_opacities` finds, over `abnormal` films with an opacity and `normal` ones without.

    `peak_in_box`: share of opacities in whose bounding box |a| is greatest. `residue_normal`, `residue_abnormal`: means of |a| over films,
    with 2 from black to white. `psnr`: of y' + a against the film. `psnr_normal`: of y' against the same patient's film without the
    opacity; `psnr_as_it_is`: of the film itself against that one, which is what y' = z would have. dB, means over films.
    """

    abnormal: int
    normal: int
    peak_in_box: float
    residue_normal: float
    residue_abnormal: float
    psnr: float
    psnr_normal: float
    psnr_as_it_is: float

    @property
    def residue_ratio(self) -> float:
        """Mean |a| of normal films as a part of that of films with an opacity."""
        return self.residue_normal / self.residue_abnormal if self.residue_abnormal else float("inf")


def judge_opacities(decompose: Decompose, *, seed: int, count: int, size: int) -> DecompositionFigures:
    """Decomposes phantoms 0 to `count` - 1 of series `seed`, drawn at `size` pixels; other findings are there as they come.

    Raises ConfigError where none has an opacity, or all do.
    """
    has = np.array([bool(draw_labels(seed, index, size=size)["opacity"]) for index in range(count)], dtype=bool)
    if has.all() or not has.any():
        raise ConfigError(f"phantoms to be judged must be with and without an opacity, {has.sum()} have one of: {count}")
    residues, errors = [], []
    inside, healed, as_it_is = [], [], []
    for first in range(0, count, _AT_ONCE):
        indices = range(first, min(first + _AT_ONCE, count))
        phantoms = [render_phantom(seed, index, size=size) for index in indices]
        films = _films([phantom.pixels for phantom in phantoms])
        normal, residue = (part.float().cpu() for part in decompose(films))
        residues.append(residue.abs().mean(dim=(1, 2, 3)))
        errors.append(metrics.psnr(metrics.to_unit(normal + residue), metrics.to_unit(films)))
        for place, index in enumerate(indices):
            if has[index]:
                inside.append(peak_is_inside(residue[place, 0], box_of(phantoms[place].masks["opacity"])))
                healthy = metrics.to_unit(_films([render_phantom(seed, index, size=size, without=_OPACITY).pixels]))
                healed.append(metrics.psnr(metrics.to_unit(normal[place : place + 1]), healthy))
                as_it_is.append(metrics.psnr(metrics.to_unit(films[place : place + 1]), healthy))
    mean_residues, is_abnormal = torch.cat(residues), torch.from_numpy(has)
    return DecompositionFigures(
        abnormal=int(has.sum()),
        normal=int((~has).sum()),
        peak_in_box=sum(inside) / len(inside),
        residue_normal=float(mean_residues[~is_abnormal].mean()),
        residue_abnormal=float(mean_residues[is_abnormal].mean()),
        psnr=float(torch.cat(errors).mean()),
        psnr_normal=float(torch.cat(healed).mean()),
        psnr_as_it_is=float(torch.cat(as_it_is).mean()),
    )


def peak_is_inside(residue: Tensor, box: Sequence[int]) -> bool:
    """Whether the greatest |a| of a residue map [R, R] lies in the box (x0, y0, x1, y1), x1 and y1 just outside it."""
    row, column = divmod(int(residue.abs().argmax()), residue.shape[1])
    x0, y0, x1, y1 = box
    return x0 <= column < x1 and y0 <= row < y1


def _films(pixels: Sequence[np.ndarray[Any, Any]]) -> Tensor:
    """u1 [R, R] each, as a codec's recipe makes films of 8-bit gray at their own size: [n, 1, R, R] float32 in [-1, 1]."""
    return torch.from_numpy(np.stack(pixels)).unsqueeze(1).float() / 127.5 - 1
