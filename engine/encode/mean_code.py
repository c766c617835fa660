"""A starting code for generators without an encoder and with a gauge, on which the plain mean of codes cannot lie."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.encode.gauge import Gauge, project


def find_mean_code(
    generate: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    *,
    gauge: Gauge,
    samples: int = 1000,
    batch_size: int = 16,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Of `samples` codes z ~ N(0, I) on the gauge, the one whose film is closest to their mean film: [*shape] float32 on the CPU.

    Films are compared at 64x64 (area mean), so that all of them are kept and each is generated once. The same seed gives the same code.
    """
    draw = torch.Generator().manual_seed(seed)
    codes = project(torch.randn(samples, *shape, generator=draw), gauge)
    with torch.no_grad():
        films = torch.cat([_small(generate(part.to(device))) for part in torch.split(codes, batch_size)])  # [samples, pixels]
    distance = (films - films.mean(dim=0)).square().sum(dim=1)
    return codes[int(distance.argmin())].clone()


def _small(films: Tensor) -> Tensor:
    side = min(64, films.shape[-1])
    return F.interpolate(films.float(), size=(side, side), mode="area").flatten(1).cpu()
