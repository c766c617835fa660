"""What refinement minimises: a weighted sum of terms, one value an image, with everything about the target computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from engine.errors import ConfigError
from engine.metrics import mse

Features = tuple[Tensor, ...]  # what a term keeps of its targets; each tensor has one entry an image


@dataclass(frozen=True)
class Term:
    """One kind of distance between films, both [N, 1, R, R] in [0, 1].

    `prepare` turns targets into features, once; `distance` gives [N] values, differentiable in its films, from films and features.
    """

    prepare: Callable[[Tensor], Features]
    distance: Callable[[Tensor, Features], Tensor]


TERMS: dict[str, Term] = {
    "mse": Term(prepare=lambda targets: (targets,), distance=lambda films, features: mse(films, features[0])),
}
_NOT_AVAILABLE = ("lpips", "moco")


def check_loss(loss: tuple[tuple[str, float], ...], *, target_mse: float = 0.0) -> None:
    """Raises ConfigError, before any work, unless this version can compute `loss` and stop at `target_mse` by it."""
    for name, weight in loss:
        if name in _NOT_AVAILABLE:
            raise ConfigError(f"loss term is not available in this version, use --loss mse=1: {name}")
        if name not in TERMS:
            raise ConfigError(f"loss has an unknown term (known: {', '.join(sorted(TERMS))}): {name}")
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"loss weight of {name} must be 0 or more: {weight}")
    if target_mse > 0 and not dict(loss).get("mse"):
        raise ConfigError(f"refine.target_mse needs a loss with an mse term: {','.join(f'{name}={weight:g}' for name, weight in loss)}")


@dataclass(frozen=True)
class Objective:
    """The loss of some images against their targets. Films are compared in [0, 1], so `mse` is that of `engine.metrics`."""

    weights: dict[str, float]
    features: dict[str, Features]

    @classmethod
    def for_targets(cls, loss: tuple[tuple[str, float], ...], targets: Tensor) -> Objective:
        """The objective for target pixels [N, 1, R, R] in [-1, 1]; terms of weight 0 are left out. Raises ConfigError as `check_loss`."""
        check_loss(loss)
        weights = {name: weight for name, weight in loss if weight > 0}
        films = _unclamped_unit(targets)
        return cls(weights, {name: TERMS[name].prepare(films) for name in weights})

    def __call__(self, pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Pixels [N, 1, R, R] in [-1, 1] -> the loss [N] float32, differentiable, and the value [N] of each term before its weight."""
        films = _unclamped_unit(pixels)
        values = {name: TERMS[name].distance(films, self.features[name]) for name in self.weights}
        loss = sum((self.weights[name] * value for name, value in values.items()), start=films.new_zeros(len(films)))
        return loss, {name: value.detach() for name, value in values.items()}

    def rows(self, index: Tensor) -> Objective:
        """The objective of these images alone: `index` is a mask [N] or row numbers."""
        return Objective(self.weights, {name: tuple(part[index] for part in parts) for name, parts in self.features.items()})


def _unclamped_unit(pixels: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1]. No clamp, whose gradient is 0: a codec's generator keeps its films in the range and their gradient alive."""
    return pixels.float() * 0.5 + 0.5
