"""The directions in which a generator's films change most, once a codec: L-BFGS knows from its first step to be careful along them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

RANK = 64  # directions kept
RIDGE = 1.0  # in mean eigenvalues: where half of a direction's step is left


def fit_metric(generate: Callable[[Tensor], Tensor], codes: Iterable[Tensor], *, rank: int = RANK) -> Tensor:
    """M [k, d] float32, k at most `rank`, such that 1 - M'M is the inverse, up to a factor, of the mean J'J + ridge at `codes`.

    J is the derivative of a film by its code, so 2 J'J / pixels is the Gauss-Newton Hessian of the squared error. Each code gives one
    sample of its J'J: J'v for random v in pixel space, whose square has the mean J'J. `generate` maps codes [n, *shape] to films, is
    differentiable and may be a coarse level; `codes` gives batches on the gauge: 256 codes in all are enough for 512 entries. Samples are
    brought to one length, for the few codes at which a generator changes abruptly would outweigh all others. The rows of M are orthogonal.
    Raises ValueError where no film changes with its code.
    """
    draw = torch.Generator().manual_seed(0)
    samples = torch.cat([_sample(generate, batch, draw) for batch in codes]).double()
    lengths = samples.norm(dim=1, keepdim=True)
    usable = (lengths[:, 0] > 0) & lengths[:, 0].isfinite()
    if not usable.any():
        raise ValueError(f"a metric needs films that change with their codes: {len(samples)} do not")
    samples = samples[usable] / lengths[usable]
    _, singular, directions = torch.linalg.svd(samples, full_matrices=False)
    values = singular.square() / len(samples)  # eigenvalues of the mean; their sum is 1
    shrinkage = (values / (values + RIDGE / samples.shape[1])).sqrt()
    metric: Tensor = (shrinkage[:, None] * directions)[:rank].float().contiguous()
    return metric


def _sample(generate: Callable[[Tensor], Tensor], codes: Tensor, draw: torch.Generator) -> Tensor:
    """J'v for each code, [n, d] on the CPU."""
    with torch.inference_mode(False), torch.enable_grad():
        codes = codes.detach().clone().requires_grad_(True)
        films = generate(codes).float()
        v = torch.randn(films.shape, generator=draw).to(films.device)
        gradient = torch.autograd.grad(films, codes, v)[0]
    return gradient.flatten(1).float().cpu()
