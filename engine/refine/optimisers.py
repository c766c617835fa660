"""The optimisers of refinement by name: state for S slots, each of which belongs to the film in it."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from engine.errors import ConfigError
from engine.refine.adam import SlotAdam
from engine.refine.lbfgs import SlotLbfgs

OPTIMISERS = ("adam", "lbfgs")


class Optimiser(Protocol):
    """State for S slots. Slots never influence each other: a film takes the same path whatever its slot and its neighbours."""

    def start(self, rows: Tensor) -> None:
        """The slots `rows` [k], by number, get new films: their state is as fresh."""

    def step(self, latents: Tensor, loss: Tensor, gradient: Tensor, active: Tensor) -> Tensor:
        """The next codes to evaluate [S, *shape], before the gauge's projection, from codes, their loss [S] and its gradient [S, *shape].

        All float32. Slots where `active` [S] is False come back as they are, and so does their state. Codes, loss and gradient that are
        not finite harm their own slot only, until the next `start`.
        """
        ...


def build_optimiser(name: str, like: Tensor, *, lr: float, metric: Tensor | None = None) -> Optimiser:
    """The optimiser `name` for codes shaped and placed as `like` [S, *shape]. `lr`: how far a first step moves each entry of a code.

    metric [k, d]: what L-BFGS may know of the generator before its first step (`networks/latent_metric.py`); Adam has no use for it.
    Raises ConfigError for an unknown name.
    """
    if name == "adam":
        return SlotAdam(like, lr=lr)
    if name == "lbfgs":
        return SlotLbfgs(like, lr=lr, metric=metric)
    raise ConfigError(f"optimiser must be one of {', '.join(OPTIMISERS)}: {name}")
