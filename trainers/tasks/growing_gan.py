"""What GANs that grow level by level share: two phases on films of the level that the images seen tell, an average, and figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.recipe import PixelRecipe
from trainers.ema import Ema
from trainers.nets.pggan_discriminator import GrowingDiscriminator
from trainers.presets.pggan import PgganConfig
from trainers.task import Batch, Phase, Stateful
from trainers.tasks.gan_figures import LEAST_JUDGED, gan_figures

_SAMPLES = 16


class GrowingGan(ABC):
    """Each step the discriminator learns first, then the generator, after which its average follows.

    `growth`: levels, batches, rates and fades, which a task's own settings have under the same names. What the losses are, and how films
    are made and exported, a subclass says.
    """

    name: str
    labels: tuple[str, ...] = ()
    alternate = ""

    def __init__(
        self, growth: PgganConfig, generator: nn.Module, discriminator: GrowingDiscriminator, *, device: torch.device, seed: int
    ) -> None:
        self._growth, self.discriminator = growth, discriminator
        self.generator = generator
        self.average = Ema(generator, growth.ema)
        self.stage = growth.stage(0)
        self.device, self._seed = device, seed
        self._compiled_at = self.stage.level
        self._make = self._maker()
        betas = (growth.betas[0], growth.betas[1])
        self._optimisers = {
            name: torch.optim.Adam(network.parameters(), lr=growth.lr[0], betas=betas, eps=growth.epsilon, fused=True)
            for name, network in (("generator", generator), ("discriminator", discriminator))
        }

    @abstractmethod
    def _network(self) -> nn.Module:
        """The part of the generator that makes films, and is compiled where the settings ask for it."""

    @abstractmethod
    def _discriminator_loss(self, batch: Batch) -> dict[str, Tensor]: ...

    @abstractmethod
    def _generator_loss(self, batch: Batch) -> dict[str, Tensor]: ...

    @abstractmethod
    def _films(self, count: int, purpose: str) -> Iterator[Tensor]:
        """Films of the averaged generator in [-1, 1], in portions, from random numbers that are the same each time."""

    @abstractmethod
    def summary(self) -> dict[str, Any]: ...

    @abstractmethod
    def export(self, out: Path, provenance: dict[str, Any]) -> None: ...

    def phases(self) -> list[Phase]:
        """The discriminator's, then the generator's, after which its average follows."""
        judge, maker = self._optimisers["discriminator"], self._optimisers["generator"]
        return [
            Phase(name="discriminator", modules=[self.discriminator], optimiser=judge, loss=self._discriminator_loss),
            Phase(name="generator", modules=[self.generator], optimiser=maker, loss=self._generator_loss, after=self.average.update),
        ]

    def on_images(self, seen: int) -> None:
        """Sets level, fade and learning rate."""
        self.stage = self._growth.stage(seen)
        for optimiser in self._optimisers.values():
            for parameters in optimiser.param_groups:
                parameters["lr"] = self._growth.of("lr", self.stage.level)
        if self._growth.compile and self._compiled_at != self.stage.level:
            torch.compiler.reset()  # the graphs of lower levels are done with, and there is a limit to their number
            self._make, self._compiled_at = self._maker(), self.stage.level

    @property
    def recipe(self) -> PixelRecipe:
        """Films at the side of the last level."""
        return PixelRecipe(resolution=4 << (len(self._growth.channels) - 1))

    @property
    def resolution(self) -> int:
        """Side of the films of this level."""
        return self.stage.resolution

    @property
    def batch_size(self) -> int:
        """Images of a step at this level, over all processes."""
        return self._growth.count("batch_size", self.stage.level)

    @property
    def part_size(self) -> int:
        """Images that one process takes at a time."""
        return self._growth.count("part_size", self.stage.level) or self.batch_size

    @property
    def group(self) -> int:
        """Consecutive images over which the discriminator takes the spread."""
        return self._growth.count("group", self.stage.level)

    def state(self) -> Mapping[str, Stateful]:
        """Both networks, both optimisers, and the average."""
        optimisers = {f"{name}_optimiser": optimiser for name, optimiser in self._optimisers.items()}
        return {"generator": self.generator, "discriminator": self.discriminator, "average": self.average, **optimisers}

    def samples(self) -> Tensor:
        """Films [16, 1, r, r] of the averaged generator, the same each time, clamped to [-1, 1]."""
        return torch.cat(list(self._films(_SAMPLES, f"{self.name}/samples")))

    def evaluate(self, films: Callable[[int], Tensor] | None) -> dict[str, float | str]:
        """`gan_figures` of the held-out films and of as many of the averaged generator, at the level that is trained."""
        if films is None or self.resolution < LEAST_JUDGED:
            return {}
        real = films(self.resolution)
        made = self._films(len(real), f"{self.name}/evaluation")
        return gan_figures(real, made, inception=self._growth.inception, device=self.device)

    def _maker(self) -> Callable[..., Tensor]:
        network = self._network()
        return torch.compile(network, dynamic=False) if self._growth.compile else network

    def _share(self) -> Tensor | float | None:
        """The fade; for compiled code a number is a constant, and a new one means compiling again."""
        alpha = self.stage.alpha
        return torch.tensor(alpha, device=self.device) if self._growth.compile and alpha is not None else alpha

    def _score(self, films: Tensor) -> Tensor:
        scores: Tensor = self.discriminator(films, self.stage.level, self.stage.alpha, group=self.group)
        return scores

    def _faded(self, films: Tensor) -> Tensor:
        """Real films as the fade makes those of the generator: the share `alpha` of a pixel is the mean of its 2x2 pixels."""
        alpha = self.stage.alpha
        if alpha is None or not self._growth.fade_reals:
            return films
        coarse = F.interpolate(F.avg_pool2d(films, 2), scale_factor=2.0, mode="nearest")
        return films + alpha * (coarse - films)
