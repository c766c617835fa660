"""`latentray train stylegan`: the style-based GAN of Karras et al. 2019, as Saboo et al. 2020 use it on chest radiographs of 128x128."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.networks.stylegan import StyleGenerator, StyleSettings
from engine.recipe import PixelRecipe
from trainers import randomness
from trainers.export import VECTOR, Part, export_codec
from trainers.losses import r1, wgan_gp
from trainers.nets.discriminator_file import DISCRIMINATOR, save_discriminator
from trainers.nets.mapping_network import MappingNetwork, MappingSettings
from trainers.nets.pggan_discriminator import DiscriminatorSettings, GrowingDiscriminator
from trainers.nets.stylegan_file import MAPPING, save_mapping
from trainers.nets.trainable_stylegan import GrowingStylegan, noise_size
from trainers.presets.stylegan import StyleganConfig
from trainers.task import Batch
from trainers.tasks.gan_figures import check_inception, films_at_once
from trainers.tasks.growing_gan import GrowingGan
from trainers.tasks.joined_codec import count_parameters, gflop

_MEAN_CODE_SAMPLES = 10_000


def build_stylegan(cfg: StyleganConfig, *, device: torch.device, seed: int) -> StyleganTask:
    """The task with initial weights that depend on `seed` alone. Raises ConfigError where weights for FID are wanted and missing."""
    check_inception(cfg.inception)
    settings = StyleSettings(channels=cfg.channels, code_size=cfg.code_size, space=cfg.space, blur=cfg.blur, leak=cfg.leak)
    mapping = MappingSettings(code_size=cfg.code_size, layers=cfg.mapping_layers, multiplier=cfg.mapping_multiplier, leak=cfg.leak)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(randomness.step_seed(seed, "stylegan/weights", 0))
        generator = GrowingStylegan(settings, mapping)
        discriminator = GrowingDiscriminator(DiscriminatorSettings(channels=cfg.channels, output_range="signed", leak=cfg.leak))
    generator.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    discriminator.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return StyleganTask(cfg, generator, discriminator, device=device, seed=seed)


class StyleganTask(GrowingGan):
    """The style-based generator with its mapping network, by R1 or WGAN-GP; films are shown and judged without truncation.

    The discriminator is the progressive GAN's: without Karras's filter before it halves a film. The mean w is not tracked over batches,
    which differ between processes and parts of a step; it is made of the averaged mapping network when it is asked for.
    """

    name = "stylegan"
    generator: GrowingStylegan

    def __init__(
        self, cfg: StyleganConfig, generator: GrowingStylegan, discriminator: GrowingDiscriminator, *, device: torch.device, seed: int
    ) -> None:
        self.cfg = cfg
        super().__init__(cfg.growth, generator, discriminator, device=device, seed=seed)

    def summary(self) -> dict[str, Any]:
        """Weights of the networks, and GFLOP of a film that is made and judged once, by resolution."""
        g = self.generator
        return {
            "parameters": count_parameters({"mapping": g.mapping, "generator": g.synthesis, "discriminator": self.discriminator}),
            "gflop_per_image": {str(4 << level): round(self._gflop(level), 4) for level in range(g.synthesis.top + 1)},
        }

    def mean_w(self) -> tuple[MappingNetwork, Tensor]:
        """The averaged mapping network, and its mean w [code_size] over 10,000 codes, which it has as its `mean` too: a copy."""
        mapping = copy.deepcopy(self._averaged.mapping)
        z = randomness.normal(self._seed, "stylegan/mean", range(1), _MEAN_CODE_SAMPLES, self.cfg.code_size)[0]
        return mapping, mapping.find_mean(z.to(self.device))

    def export(self, out: Path, provenance: dict[str, Any]) -> None:
        """Writes the averaged synthesis network of the last complete level as a codec without an encoder, whose code is w.

        Its noise is one realisation, which depends on the seed alone. The averaged mapping network, with the mean of w, and the
        discriminator lie beside it.
        """
        level = self.stage.complete
        noise = randomness.normal(self._seed, "stylegan/constant-noise", range(1), noise_size(level)).to(self.device)
        settings, weights = self._averaged.synthesis.plain(level, noise)
        generator = StyleGenerator(settings)
        generator.load_state_dict(weights)
        mapping, mean = self.mean_w()
        export_codec(
            out,
            name=f"stylegan-{settings.code_size}-at-{generator.resolution}",
            encoder=None,
            generator=Part(network="stylegan", settings=settings, module=generator),
            dims=VECTOR,
            shape=generator.code_shape,
            gauge="none",
            mean=mean.expand(generator.code_shape),
            recipe=PixelRecipe(resolution=generator.resolution),
            provenance={"task": self.name, "weights": f"average, decay {self.cfg.ema}"} | provenance,
        )
        save_mapping(out / MAPPING, mapping)
        save_discriminator(out / DISCRIMINATOR, self.discriminator, level)

    def _discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        cfg, real = self.cfg, self._faded(batch.pixels)
        with torch.no_grad():
            fake = self._fake(batch)
        if cfg.loss == "r1":
            return r1.discriminator_loss(self._score, real, fake, gamma=cfg.gamma)
        mix = batch.uniform("mix", 1, 1, 1)
        return wgan_gp.critic_loss(self._score, real, fake, mix, gp_weight=cfg.gp_weight, drift=cfg.drift, slope=self.discriminator.slope)

    def _generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        loss = r1.generator_loss if self.cfg.loss == "r1" else wgan_gp.generator_loss
        return loss(self._score, self._fake(batch))

    def _fake(self, batch: Batch) -> Tensor:
        """Films, each of two codes that meet at a layer of its own (style mixing, section 3.1) or of one, and of its own noise."""
        level = self.stage.level
        z = batch.normal("code", 2, self.cfg.code_size)
        codes = mixed(self.generator.mapping(z.flatten(0, 1)), batch.uniform("mixing", 2), 2 * (level + 1), self.cfg.mixing)
        return self._make(codes, batch.normal("noise", noise_size(level)), level, self._share())

    def _network(self) -> nn.Module:
        return self.generator.synthesis

    def _gflop(self, level: int) -> float:
        g, size = self._averaged, self.cfg.code_size

        def once(z: Tensor) -> Tensor:
            codes = g.mapping(z)[:, None].expand(-1, 2 * (level + 1), -1)
            scores: Tensor = self.discriminator(g.synthesis(codes, z.new_empty(1, noise_size(level)), level), level)
            return scores

        return gflop(once, 1, size, device=self.device)

    @property
    def _averaged(self) -> GrowingStylegan:
        network = self.average.module
        assert isinstance(network, GrowingStylegan)
        return network

    @torch.no_grad()
    def _films(self, count: int, purpose: str) -> Iterator[Tensor]:
        """Films of the averaged generator in [-1, 1], in portions, from codes and noise that are the same each time."""
        level, network, at_once = self.stage.level, self._averaged, films_at_once(self.resolution)
        for first in range(0, count, at_once):
            numbers = range(first, min(first + at_once, count))
            z = randomness.normal(self._seed, purpose, numbers, self.cfg.code_size).to(self.device)
            noise = randomness.normal(self._seed, f"{purpose}/noise", numbers, noise_size(level)).to(self.device)
            codes = network.mapping(z)[:, None].expand(-1, 2 * (level + 1), -1)
            film: Tensor = network.synthesis(codes, noise, level, self.stage.alpha)
            yield film.clamp(-1, 1)


def mixed(pairs: Tensor, draws: Tensor, layers: int, probability: float) -> Tensor:
    """Two w of each film, [2 N, C] with those of a film side by side -> the w of each of its layers, [N, layers, C].

    `draws` [N, 2] uniform in [0, 1): with `probability` the second w is that of all layers from one on, which is 1 to layers - 1, all
    equally likely.
    """
    first, second = pairs[0::2], pairs[1::2]  # [N, C]
    cut = 1 + (draws[:, 1:] * (layers - 1)).long()
    is_second = (torch.arange(layers, device=pairs.device) >= cut) & (draws[:, :1] < probability)  # [N, layers]
    return torch.where(is_second[..., None], second[:, None], first[:, None])
