"""What an importer makes of a checkpoint: a network that this package knows, with plain weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

# features: what a perceptual loss looks at; codec: a generator with the encoder that was trained with it
ImportedRole = Literal["generator", "encoder", "features", "codec"]


@dataclass(frozen=True, kw_only=True)
class ImportedNetwork:
    """`network` and `settings` as the registry takes them, `state` float32 under the network's own names.

    `is_average`: whether the weights are a moving average over training, None where the file does not say.
    `facts`: what else the file says of itself, as JSON. A codec's own fields are its generator's; `encoder` is the other half, and `recipe`
    what its films need, as fields of `PixelRecipe`. Settings that the weights leave open, such as the resolution, are not there.
    """

    role: ImportedRole
    layout: str
    network: str
    settings: dict[str, Any]
    state: dict[str, Tensor]
    is_average: bool | None
    facts: dict[str, Any] = field(default_factory=dict)
    file_sha256: str = ""
    encoder: ImportedNetwork | None = None
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def num_values(self) -> int:
        """How many numbers the weights are."""
        own = sum(tensor.numel() for tensor in self.state.values())
        return own + (0 if self.encoder is None else self.encoder.num_values)
