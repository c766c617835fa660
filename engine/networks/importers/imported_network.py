"""What an importer makes of a checkpoint: a network that this package knows, with plain weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

ImportedRole = Literal["generator", "encoder", "features"]  # features: what a perceptual loss looks at


@dataclass(frozen=True, kw_only=True)
class ImportedNetwork:
    """`network` and `settings` as the registry takes them, `state` float32 under the network's own names.

    `is_average`: whether the weights are a moving average over training, None where the file does not say.
    `facts`: what else the file says of itself, as JSON.
    """

    role: ImportedRole
    layout: str
    network: str
    settings: dict[str, Any]
    state: dict[str, Tensor]
    is_average: bool | None
    facts: dict[str, Any] = field(default_factory=dict)
    file_sha256: str = ""

    @property
    def num_values(self) -> int:
        """How many numbers the weights are."""
        return sum(tensor.numel() for tensor in self.state.values())
