"""`latentray train pggan`: the progressive GAN of Karras et al. 2018 as Segal et al. 2021 trained it on chest radiographs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.encode.codec import save_codec
from engine.encode.codec_spec import CodecSpec, CodeSpec, NetworkSpec, WeightsFile
from engine.encode.mean_code import find_mean_code
from engine.networks.pggan import PgganGenerator, PgganSettings
from engine.recipe import PixelRecipe
from trainers import randomness
from trainers.ema import Ema
from trainers.losses.wgan_gp import critic_loss, generator_loss
from trainers.nets.discriminator_file import DISCRIMINATOR, save_discriminator
from trainers.nets.pggan_cost import step_gflop
from trainers.nets.pggan_discriminator import DiscriminatorSettings, GrowingDiscriminator
from trainers.nets.pggan_generator import GrowingGenerator
from trainers.presets.pggan import PgganConfig
from trainers.task import Batch, Phase, Stateful
from trainers.tasks.gan_figures import LEAST_JUDGED, check_inception, films_at_once, gan_figures
from trainers.tasks.joined_codec import count_parameters

_SAMPLES = 16
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


class PgganTask:
    """Each step the discriminator learns first, then the generator, on films of the level that the images seen tell."""

    name = "pggan"
    labels: tuple[str, ...] = ()
    alternate = ""

    def __init__(
        self, cfg: PgganConfig, generator: GrowingGenerator, discriminator: GrowingDiscriminator, *, device: torch.device, seed: int
    ) -> None:
        self.cfg, self.generator, self.discriminator = cfg, generator, discriminator
        self.average = Ema(generator, cfg.ema)
        self.stage = cfg.stage(0)
        self.device, self._seed = device, seed
        self._compiled_at = self.stage.level
        self._make: Callable[..., Tensor] = torch.compile(generator, dynamic=False) if cfg.compile else generator
        self._optimisers = {
            name: torch.optim.Adam(network.parameters(), lr=cfg.lr[0], betas=(cfg.betas[0], cfg.betas[1]), eps=cfg.epsilon, fused=True)
            for name, network in (("generator", generator), ("discriminator", discriminator))
        }

    def phases(self) -> list[Phase]:
        """The discriminator's, then the generator's, after which its average follows."""
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
                after=self.average.update,
            ),
        ]

    def on_images(self, seen: int) -> None:
        """Sets level, fade and learning rate."""
        self.stage = self.cfg.stage(seen)
        for optimiser in self._optimisers.values():
            for parameters in optimiser.param_groups:
                parameters["lr"] = self.cfg.of("lr", self.stage.level)
        if self.cfg.compile and self._compiled_at != self.stage.level:
            torch.compiler.reset()  # the graphs of lower levels are done with, and there is a limit to their number
            self._make, self._compiled_at = torch.compile(self.generator, dynamic=False), self.stage.level

    @property
    def recipe(self) -> PixelRecipe:
        """Films at the side of the last level."""
        return PixelRecipe(resolution=4 << self.generator.top)

    @property
    def resolution(self) -> int:
        """Side of the films of this level."""
        return self.stage.resolution

    @property
    def batch_size(self) -> int:
        """Images of a step at this level, over all processes."""
        return self.cfg.count("batch_size", self.stage.level)

    @property
    def part_size(self) -> int:
        """Images that one process takes at a time."""
        return self.cfg.count("part_size", self.stage.level) or self.batch_size

    @property
    def group(self) -> int:
        """Consecutive images over which the discriminator takes the spread."""
        return self.cfg.count("group", self.stage.level)

    def state(self) -> Mapping[str, Stateful]:
        """Both networks, both optimisers, and the average."""
        optimisers = {f"{name}_optimiser": optimiser for name, optimiser in self._optimisers.items()}
        return {"generator": self.generator, "discriminator": self.discriminator, "average": self.average, **optimisers}

    def samples(self) -> Tensor:
        """Films [16, 1, r, r] of the averaged generator on the same codes each time, clamped to [-1, 1]."""
        return torch.cat(list(self._films(_SAMPLES, "pggan/samples")))

    def evaluate(self, films: Callable[[int], Tensor] | None) -> dict[str, float | str]:
        """`gan_figures` of the held-out films and of as many of the averaged generator, at the level that is trained."""
        if films is None or self.resolution < LEAST_JUDGED:
            return {}
        real = films(self.resolution)
        return gan_figures(real, self._films(len(real), "pggan/evaluation"), inception=self.cfg.inception, device=self.device)

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
        file, mean_file = "generator.safetensors", "mean.safetensors"
        spec = CodecSpec(
            name=f"pggan-{settings.code_size}-at-{generator.resolution}",
            encoder=None,
            generator=NetworkSpec(network="pggan", settings=asdict(settings), weights=file),
            code=CodeSpec(dims=("layer", "channel"), shape=generator.code_shape, gauge="sphere", mean=WeightsFile(weights=mean_file)),
            recipe=PixelRecipe(resolution=generator.resolution),
            licence="not stated; that of the films it was trained on applies",
            provenance={"task": self.name, "weights": f"average, decay {self.cfg.ema}"} | provenance,
        )
        save_codec(out, spec, weights={file: weights, mean_file: {"mean": mean}})
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
        codes, alpha = batch.normal("code", 1, self.cfg.code_size), self.stage.alpha
        # for compiled code a number is a constant, and a new one means compiling again
        share = torch.tensor(alpha, device=self.device) if self.cfg.compile and alpha is not None else alpha
        return self._make(codes, self.stage.level, share)

    def _score(self, films: Tensor) -> Tensor:
        scores: Tensor = self.discriminator(films, self.stage.level, self.stage.alpha, group=self.group)
        return scores

    def _faded(self, films: Tensor) -> Tensor:
        """Real films as the fade makes those of the generator: the share `alpha` of a pixel is the mean of its 2x2 pixels."""
        alpha = self.stage.alpha
        if alpha is None or not self.cfg.fade_reals:
            return films
        coarse = F.interpolate(F.avg_pool2d(films, 2), scale_factor=2.0, mode="nearest")
        return films + alpha * (coarse - films)

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
