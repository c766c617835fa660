"""A trained discriminator with one logit a label in place of its score, as it is trained: with equalised learning rates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.networks.pggan_discriminator import PgganDiscriminatorSettings
from trainers.nets.equalised import EqualLinear, equalised_parts, in_float32
from trainers.nets.pggan_discriminator import GrowingDiscriminator


class DiscriminatorClassifier(nn.Module):
    """Films [N, 1, R, R] in [-1, 1] -> logits [N, classes] float32, at the discriminator's highest level (Segal et al. 2021, 3.3).

    The last layer is new, all others start as the discriminator's. The spread is that of groups of one film: a film's labels cannot depend
    on the films beside it.
    """

    def __init__(self, discriminator: GrowingDiscriminator, classes: int) -> None:
        super().__init__()
        was, width = discriminator.settings, discriminator.settings.channels[0]
        self.settings = PgganDiscriminatorSettings(channels=was.channels, output_range=was.output_range, leak=was.leak, classes=classes)
        self.resolution = 4 << discriminator.top
        self.trunk = discriminator
        self.trunk.linear = nn.Identity()  # type: ignore[assignment]  # its input is what the last layer sees
        below = len(self.trunk.from_gray) - 1
        self.trunk.from_gray = nn.ModuleList([nn.Identity()] * below + [self.trunk.from_gray[below]])  # lower levels see no film any more
        self.linear = EqualLinear(width, classes)

    def forward(self, films: Tensor) -> Tensor:
        with in_float32(films):
            logits: Tensor = self.linear(self.embed(films).float())
        return logits

    def embed(self, films: Tensor) -> Tensor:
        """Films [N, 1, R, R] in [-1, 1] -> what the last layer sees, [N, channels[0]] float32."""
        seen: Tensor = self.trunk(films, self.trunk.top, group=1)
        return seen.reshape(len(films), -1)

    @torch.no_grad()
    def plain(self) -> dict[str, Tensor]:
        """The weights of `engine.networks.pggan_discriminator` with these settings, on this network's device."""
        found: dict[str, Tensor] = {}
        for name, layer in equalised_parts(self).items():
            plain = name.removeprefix("trunk.")
            plain = "from_gray" if plain.startswith("from_gray.") else plain
            found[f"{plain}.weight"], found[f"{plain}.bias"] = (part.clone() for part in layer.scaled())
        return found
