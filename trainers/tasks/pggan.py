"""`latentray train pggan`: the progressive GAN of Karras et al. 2018 as Segal et al. 2021 trained it on chest radiographs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.encode.mean_code import find_mean_code
from engine.networks.pggan import PgganGenerator, PgganSettings
from engine.recipe import PixelRecipe
from trainers import randomness
from trainers.export import VECTOR, Part, export_codec
from trainers.losses.wgan_gp import critic_loss, generator_loss
from trainers.nets.discriminator_file import DISCRIMINATOR, save_discriminator
from trainers.nets.pggan_cost import step_gflop
from trainers.nets.pggan_discriminator import DiscriminatorSettings, GrowingDiscriminator
from trainers.nets.pggan_generator import GrowingGenerator
from trainers.presets.pggan import PgganConfig
from trainers.task import Batch
from trainers.tasks.gan_figures import check_inception, films_at_once
from trainers.tasks.growing_gan import GrowingGan
from trainers.tasks.joined_codec import count_parameters

_MEAN_CODE_SAMPLES = 256


def build_pggan(cfg: PgganConfig, *, device: torch.device, seed: int) -> PgganTask:
    """The task with initial weights that depend on `seed` alone. Raises ConfigError where weights for FID are wanted and missing."""
    check_inception(cfg.inception)
    settings = PgganSettings(
        channels=cfg.channels,
        code_size=cfg.code_size,
        norm_after_linear=cfg.norm_after_linear,
        output_range=cfg.output_range,
        leak=cfg.leak,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(randomness.step_seed(seed, "pggan/weights", 0))
        generator = GrowingGenerator(settings)
        discriminator = GrowingDiscriminator(DiscriminatorSettings(channels=cfg.channels, output_range=cfg.output_range, leak=cfg.leak))
    generator.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    discriminator.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return PgganTask(cfg, generator, discriminator, device=device, seed=seed)


class PgganTask(GrowingGan):
    """The progressive GAN's generator, by WGAN-GP."""

    name = "pggan"
    generator: GrowingGenerator

    def __init__(
        self, cfg: PgganConfig, generator: GrowingGenerator, discriminator: GrowingDiscriminator, *, device: torch.device, seed: int
    ) -> None:
        self.cfg = cfg
        super().__init__(cfg, generator, discriminator, device=device, seed=seed)

    def summary(self) -> dict[str, Any]:
        """Weights of both networks, and GFLOP of an image's part of a step by resolution, second gradients included."""
        return {
            "parameters": count_parameters({"generator": self.generator, "discriminator": self.discriminator}),
            "gflop_per_image": {str(4 << level): round(self._gflop(level), 3) for level in range(len(self.cfg.channels))},
        }

    def export(self, out: Path, provenance: dict[str, Any]) -> None:
        """Writes the averaged generator of the last complete level as a codec without an encoder, and the discriminator beside it."""
        level = self.stage.complete
        settings, weights = self._averaged.plain(level)
        generator = PgganGenerator(settings).to(self.device).eval()
        generator.load_state_dict(weights)
        with torch.no_grad():
            mean = find_mean_code(
                generator, generator.code_shape, gauge="sphere", samples=_MEAN_CODE_SAMPLES, seed=self._seed, device=self.device
            )
        export_codec(
            out,
            name=f"pggan-{settings.code_size}-at-{generator.resolution}",
            encoder=None,
            generator=Part(network="pggan", settings=settings, module=generator),
            dims=VECTOR,
            shape=generator.code_shape,
            gauge="sphere",
            mean=mean,
            recipe=PixelRecipe(resolution=generator.resolution),
            provenance={"task": self.name, "weights": f"average, decay {self.cfg.ema}"} | provenance,
        )
        save_discriminator(out / DISCRIMINATOR, self.discriminator, level)

    def _gflop(self, level: int) -> float:
        part = self.cfg.count("part_size", level) or self.cfg.count("batch_size", level)
        return step_gflop(self.generator.settings, self.discriminator.settings, level, batch_size=part)

    def _discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = self._fake(batch)
        real = self._faded(batch.pixels)
        mix = batch.uniform("mix", 1, 1, 1)
        cfg, slope = self.cfg, self.discriminator.slope
        return critic_loss(self._score, real, fake, mix, gp_weight=cfg.gp_weight, drift=cfg.drift, slope=slope)

    def _generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        return generator_loss(self._score, self._fake(batch))

    def _fake(self, batch: Batch) -> Tensor:
        return self._make(batch.normal("code", 1, self.cfg.code_size), self.stage.level, self._share())

    def _network(self) -> GrowingGenerator:
        return self.generator

    @property
    def _averaged(self) -> GrowingGenerator:
        network = self.average.module
        assert isinstance(network, GrowingGenerator)
        return network

    @torch.no_grad()
    def _films(self, count: int, purpose: str) -> Iterator[Tensor]:
        """Films of the averaged generator in [-1, 1], in portions, from codes that are the same each time."""
        at_once = films_at_once(self.resolution)
        for first in range(0, count, at_once):
            numbers = range(first, min(first + at_once, count))
            codes = randomness.normal(self._seed, purpose, numbers, 1, self.cfg.code_size).to(self.device)
            film: Tensor = self._averaged(codes, self.stage.level, self.stage.alpha)
            yield film.clamp(-1, 1)
