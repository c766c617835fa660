"""A trained discriminator that learns to tell the code of a film, in place of its score: the embedder of Segal et al. 2021, 4.5."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor

from engine.classify.classifier import resized
from engine.encode.gauge import project
from trainers.nets.discriminator_classifier import DiscriminatorClassifier
from trainers.nets.pggan_discriminator import GrowingDiscriminator


class DiscriminatorEncoder(DiscriminatorClassifier):
    """Films [N, 1, r, r] in [-1, 1] of any r -> codes [N, 1, code_size] float32 on the sphere. It sees them at `side` pixels."""

    def __init__(self, discriminator: GrowingDiscriminator, code_size: int) -> None:
        super().__init__(discriminator, code_size)
        self.side = self.resolution

    def forward(self, films: Tensor) -> Tensor:
        return project(self.raw(films), "sphere")

    def raw(self, films: Tensor) -> Tensor:
        """Codes as the last layer gives them."""
        return super().forward(resized(films, self.side)).unsqueeze(1)

    def stored(self, resolution: int) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
        """Registry name, settings and weights of the encoder that is stored; `resolution` is its own side."""
        assert resolution == self.side, "looked at when the task was built"
        return "pggan-discriminator", asdict(self.settings), self.plain()
