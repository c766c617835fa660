"""`latentray train dcgan` and `train lsgan`: the GAN of Radford et al. 2016, and that of Kumar and Triana 2024, which has another loss."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.networks.dcgan import DcganGenerator, DcganSettings
from engine.recipe import PixelRecipe
from trainers import randomness
from trainers.ema import Ema
from trainers.export import VECTOR, Part, export_codec
from trainers.losses import cross_entropy, least_squares
from trainers.nets.dcgan_cost import step_gflop
from trainers.nets.dcgan_discriminator import DcganDiscriminator, DcganDiscriminatorSettings, start_weights
from trainers.nets.standing_statistics import take_statistics
from trainers.presets.dcgan import DcganConfig
from trainers.task import Batch, HeldOut, Phase, Stateful
from trainers.tasks.gan_figures import check_inception, films_at_once, gan_figures
from trainers.tasks.joined_codec import count_parameters

_SAMPLES = 16
_STATISTICS = 16  # batches of random codes
_Losses = tuple[Callable[[Tensor, Tensor], dict[str, Tensor]], Callable[[Tensor], dict[str, Tensor]]]  # of discriminator and generator
_LOSSES: dict[str, _Losses] = {
    "cross-entropy": (cross_entropy.discriminator_loss, cross_entropy.generator_loss),
    "least-squares": (least_squares.discriminator_loss, least_squares.generator_loss),
}


def build_dcgan(cfg: DcganConfig, *, device: torch.device, seed: int) -> DcganTask:
    """The task of Radford et al. with initial weights that depend on `seed` alone. Raises ConfigError where weights for FID are missing."""
    return _build("dcgan", cfg, device, seed)


def build_lsgan(cfg: DcganConfig, *, device: torch.device, seed: int) -> DcganTask:
    """The task of Kumar and Triana, as `build_dcgan`: the same weights from the same seed and settings."""
    return _build("lsgan", cfg, device, seed)


def _build(name: str, cfg: DcganConfig, device: torch.device, seed: int) -> DcganTask:
    check_inception(cfg.inception)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(randomness.step_seed(seed, "dcgan/weights", 0))
        generator = DcganGenerator(DcganSettings(channels=cfg.channels, code_size=cfg.code_size, kernel=cfg.kernel))
        discriminator = DcganDiscriminator(
            DcganDiscriminatorSettings(channels=cfg.channels[::-1], kernel=cfg.kernel, head=cfg.head, leak=cfg.leak)
        )
        for network in (generator, discriminator):
            start_weights(network)
    for network in (generator, discriminator):
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return DcganTask(name, cfg, generator, discriminator, device=device, seed=seed)


class DcganTask:
    """Each step the discriminator learns first, then the generator, `generator_steps` times from codes of their own.

    Batch norm looks at all images of a step: it is one group and is never divided, nor shared by processes. Real and made films go through
    the discriminator one after the other, each with the statistics of their own batch, as Radford's did. Running statistics, which films
    are made with once training ends, are in the state; those of an averaged generator are taken anew whenever it is shown or judged.
    """

    labels: tuple[str, ...] = ()
    alternate = ""

    def __init__(
        self,
        name: str,
        cfg: DcganConfig,
        generator: DcganGenerator,
        discriminator: DcganDiscriminator,
        *,
        device: torch.device,
        seed: int,
    ) -> None:
        self.name, self.cfg = name, cfg
        self.generator, self.discriminator = generator, discriminator
        self.average = Ema(generator, cfg.ema) if cfg.ema else None
        self.device, self._seed = device, seed
        self._loss_of_discriminator, self._loss_of_generator = _LOSSES[cfg.loss]
        self._optimisers = {
            name: torch.optim.Adam(network.parameters(), lr=cfg.lr, betas=(cfg.betas[0], cfg.betas[1]), fused=True)
            for name, network in (("generator", generator), ("discriminator", discriminator))
        }

    def phases(self) -> list[Phase]:
        """The discriminator's, then the generator's, after each of whose steps its average follows."""
        return [
            Phase(
                name="discriminator",
                modules=[self.discriminator],
                optimiser=self._optimisers["discriminator"],
                loss=self._discriminator_loss,
            ),
            Phase(
                name="generator",
                modules=[self.generator],
                optimiser=self._optimisers["generator"],
                loss=self._generator_loss,
                repeats=self.cfg.generator_steps,
                after=None if self.average is None else self.average.update,
            ),
        ]

    def on_images(self, seen: int) -> None:
        """Nothing changes with time."""

    @property
    def recipe(self) -> PixelRecipe:
        """Films of the generator's side, prepared as the settings say."""
        return PixelRecipe(resolution=self.cfg.resolution, square=self.cfg.square, equalise=self.cfg.equalise)

    @property
    def resolution(self) -> int:
        """Side of the films."""
        return self.cfg.resolution

    @property
    def batch_size(self) -> int:
        """Images of a step."""
        return self.cfg.batch_size

    @property
    def part_size(self) -> int:
        """All images of a step: batch norm takes them together."""
        return self.cfg.batch_size

    @property
    def group(self) -> int:
        """All images of a step."""
        return self.cfg.batch_size

    def state(self) -> Mapping[str, Stateful]:
        """Both networks with their running statistics, both optimisers, and the average where there is one."""
        state: dict[str, Stateful] = {"generator": self.generator, "discriminator": self.discriminator}
        if self.average is not None:
            state["average"] = self.average
        return state | {f"{name}_optimiser": optimiser for name, optimiser in self._optimisers.items()}

    def finished(self) -> DcganGenerator:
        """The generator as it is shown, judged and exported: a copy in evaluation mode, averaged where the settings ask for it."""
        if self.average is None:
            return copy.deepcopy(self.generator).requires_grad_(False).eval()
        network = copy.deepcopy(self.average.module)
        assert isinstance(network, DcganGenerator)
        size = self.cfg.batch_size
        batches = (range(start, start + size) for start in range(0, _STATISTICS * size, size))
        take_statistics(network, (self._codes(self._batch("statistics", numbers)) for numbers in batches))
        return network

    def samples(self) -> Tensor:
        """Films [16, 1, R, R] of the finished generator on the same codes each time."""
        return torch.cat(list(self._films(_SAMPLES, "samples")))

    def evaluate(self, films: HeldOut | None) -> dict[str, float | str]:
        """Distances between the held-out films and as many of the finished generator: see `gan_figures`."""
        if films is None:
            return {}
        real = films(self.resolution)
        return gan_figures(real, self._films(len(real), "evaluation"), inception=self.cfg.inception, device=self.device)

    def summary(self) -> dict[str, Any]:
        """Weights of both networks, and GFLOP of an image's part of a step."""
        networks = self.generator.settings, self.discriminator.settings
        cost = step_gflop(*networks, batch_size=self.cfg.batch_size, generator_steps=self.cfg.generator_steps)
        return {
            "parameters": count_parameters({"generator": self.generator, "discriminator": self.discriminator}),
            "gflop_per_image": {str(self.resolution): round(cost, 3)},
        }

    def export(self, out: Path, provenance: dict[str, Any]) -> None:
        """Writes the finished generator as a codec without an encoder, whose codes start from zero."""
        generator = self.finished()
        weights = "as trained" if self.average is None else f"average, decay {self.cfg.ema}"
        export_codec(
            out,
            name=f"{self.name}-{self.cfg.code_size}-at-{self.resolution}",
            encoder=None,
            generator=Part(network="dcgan", settings=generator.settings, module=generator),
            dims=VECTOR,
            shape=generator.code_shape,
            gauge="none",
            mean="zero",
            recipe=self.recipe,
            provenance={"task": self.name, "weights": weights} | provenance,
        )

    def _discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = self.generator(self._codes(batch))
        return self._loss_of_discriminator(self.discriminator(batch.pixels), self.discriminator(fake))

    def _generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        return self._loss_of_generator(self.discriminator(self.generator(self._codes(batch))))

    def _codes(self, batch: Batch) -> Tensor:
        """Random codes [n, 1, code_size] of these images."""
        shape = self.generator.code_shape
        return batch.normal("code", *shape) if self.cfg.codes == "normal" else batch.uniform("code", *shape) * 2 - 1

    def _batch(self, purpose: str, numbers: range) -> Batch:
        """Numbers that are drawn off the training steps, the same each time."""
        return Batch(numbers=numbers, films=None, seed=self._seed, purpose=f"dcgan/{purpose}", device=self.device)

    @torch.no_grad()
    def _films(self, count: int, purpose: str) -> Iterator[Tensor]:
        """Films of the finished generator, in portions."""
        generator, at_once = self.finished(), films_at_once(self.resolution)
        for first in range(0, count, at_once):
            yield generator(self._codes(self._batch(purpose, range(first, min(first + at_once, count)))))
