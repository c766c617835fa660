"""The parity gate: a backend does no work before its codes and films agree with eager float32, whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.encode.codec import Codec

Stage = Callable[[Tensor], Tensor]

# Largest relative difference of one row against eager float32, and between two ways to compute one row with the same backend.
# Half precision rounds each layer to 8 (bf16) or 11 (fp16) bits; a row that got mixed up with another is off by about 1.
LIMITS = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 5e-2}

# The same for gradients in codes, which pass the generator twice and cancel: a descent wants their direction. One that is off by 0.2 of
# its length gives up 2 % of the decrease of a step; one of another film is off by 1 and more.
GRADIENT_LIMITS = {"fp32": 1e-2, "fp16": 5e-2, "bf16": 0.2}

_REFERENCE_ROWS = 4  # eager float32 sees no more at once, so that the gate needs little memory beside a large batch


@dataclass(frozen=True)
class Difference:
    """Two batches row by row: the largest absolute difference, and the largest |a - b| / |b| over rows (Euclidean norms)."""

    max_abs: float
    relative: float

    @classmethod
    def between(cls, rows: Tensor, expected: Tensor) -> Difference:
        """[N, ...] twice. Infinite where shapes differ or a value is not finite."""
        if rows.shape != expected.shape or not rows.isfinite().all():
            return cls(float("inf"), float("inf"))
        a, b = rows.double().flatten(1), expected.double().flatten(1)
        relative = (a - b).norm(dim=1) / b.norm(dim=1).clamp(min=1e-12)
        return cls((a - b).abs().max().item(), relative.max().item())


@dataclass(frozen=True)
class Parity:
    """What the gate measured of one stage: each check by its name, and the limit on its relative difference."""

    limit: float
    checks: dict[str, Difference]

    def faults(self) -> list[str]:
        """The checks that fail, as text with their figures."""
        return [
            f"{name} {found.relative:.2g} (limit {self.limit:g})" for name, found in self.checks.items() if not found.relative <= self.limit
        ]

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values; what is not finite becomes None."""
        return {"limit": self.limit} | {
            name: {key: value if value < float("inf") else None for key, value in asdict(found).items()}
            for name, found in self.checks.items()
        }


def measure_parity(stage: Stage, reference: Stage | None, probe: Tensor, *, precision: str, limit: float | None = None) -> Parity:
    """Compares `stage` with `reference`, eager float32, on `probe` [B, ...] whose rows all differ, but for the last of three or
    more, a copy of the first.

    "eager": each row against the reference; left out without one. "identical_rows": the two equal rows of one batch, where there are such.
    `limit` takes the place of that in LIMITS.
    "batch_of_one": a row alone against the same row in the batch. "permuted_batch": the batch in another order.
    """
    order = torch.arange(len(probe), device=probe.device).roll(1).flip(0)
    found = stage(probe)
    checks = {} if reference is None else {"eager": Difference.between(found, _in_pieces(reference, probe))}
    if len(probe) > 2:
        checks["identical_rows"] = Difference.between(found[-1:], found[:1])
    checks |= {
        "batch_of_one": Difference.between(stage(probe[:1]), found[:1]),
        "permuted_batch": Difference.between(stage(probe[order]), found[order]),
    }
    return Parity(LIMITS[precision] if limit is None else limit, checks)


def probe_pixels(codec: Codec, batch_size: int) -> Tensor:
    """Synthetic films [B, 1, R, R] in [-1, 1] on the codec's device: smooth shapes and fine noise, the same every time."""
    draw, size = torch.Generator().manual_seed(0), codec.recipe.resolution
    coarse = torch.rand(batch_size, 1, min(size, 12), min(size, 12), generator=draw) * 2 - 1
    films = F.interpolate(coarse, size=(size, size), mode="bilinear") + 0.05 * torch.randn(batch_size, 1, size, size, generator=draw)
    return _with_equal_ends(films.clamp(-1, 1)).to(codec.device)


def probe_latents(codec: Codec, batch_size: int) -> Tensor:
    """Codes [B, *shape] from N(0, I) on the gauge, on the codec's device, the same every time."""
    latents = torch.randn(batch_size, *codec.code_shape, generator=torch.Generator().manual_seed(0))
    return _with_equal_ends(codec.project(latents)).to(codec.device)


def _in_pieces(reference: Stage, probe: Tensor) -> Tensor:
    return torch.cat([reference(piece) for piece in torch.split(probe, _REFERENCE_ROWS)])


def _with_equal_ends(rows: Tensor) -> Tensor:
    if len(rows) > 2:  # of two, both must differ to show whether they are kept apart
        rows[-1] = rows[0]
    return rows
