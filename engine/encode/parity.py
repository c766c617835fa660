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

_DISTINCT_ROWS = 4  # eager float32 sees no more of a probe, so that the gate stays cheap beside a large batch


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


def measure_parity(stage: Stage, reference: Stage, probe: Tensor, *, precision: str) -> Parity:
    """Compares `stage` with `reference`, eager float32, on `probe` [B, ...] whose rows repeat after `num_distinct_rows(B)`.

    "eager": each row against the reference. "identical_rows": equal rows of one batch. "batch_of_one": a row alone against the same row
    in the batch. "permuted_batch": the batch in another order.
    """
    batch_size, distinct = len(probe), num_distinct_rows(len(probe))
    source = torch.arange(batch_size, device=probe.device) % distinct  # row i of the probe is a copy of row source[i]
    order = torch.arange(batch_size, device=probe.device).roll(1).flip(0)
    found = stage(probe)
    checks = {
        "eager": Difference.between(found, reference(probe[:distinct])[source]),
        "identical_rows": Difference.between(found, found[source]),
        "batch_of_one": Difference.between(stage(probe[:1]), found[:1]),
        "permuted_batch": Difference.between(stage(probe[order]), found[order]),
    }
    return Parity(LIMITS[precision], checks)


def num_distinct_rows(batch_size: int) -> int:
    """How many rows of a probe differ: few, and at most half, so that every batch of 2 or more has equal rows to compare."""
    return max(1, min(_DISTINCT_ROWS, batch_size // 2))


def probe_pixels(codec: Codec, batch_size: int) -> Tensor:
    """Synthetic films [B, 1, R, R] in [-1, 1] on the codec's device: smooth shapes and fine noise, the same every time."""
    draw = torch.Generator().manual_seed(0)
    distinct, size = num_distinct_rows(batch_size), codec.recipe.resolution
    coarse = torch.rand(distinct, 1, min(size, 12), min(size, 12), generator=draw) * 2 - 1
    films = F.interpolate(coarse, size=(size, size), mode="bilinear") + 0.05 * torch.randn(distinct, 1, size, size, generator=draw)
    return _repeated(films.clamp(-1, 1), batch_size).to(codec.device)


def probe_latents(codec: Codec, batch_size: int) -> Tensor:
    """Codes [B, *shape] from N(0, I) on the gauge, on the codec's device, the same every time."""
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(num_distinct_rows(batch_size), *codec.code_shape, generator=draw)
    return _repeated(codec.project(latents), batch_size).to(codec.device)


def _repeated(rows: Tensor, batch_size: int) -> Tensor:
    return rows[torch.arange(batch_size) % len(rows)]
