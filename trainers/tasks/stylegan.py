"""`latentray train stylegan`: the style-based GAN of Karras et al. 2019, as Saboo et al. 2020 use it on chest radiographs of 128x128."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.networks.stylegan import StyleGenerator, StyleSettings
from engine.recipe import PixelRecipe
from trainers import randomness
from trainers.ema import Ema
from trainers.export import VECTOR, Part, export_codec
from trainers.losses import r1, wgan_gp
from trainers.nets.discriminator_file import DISCRIMINATOR, save_discriminator
from trainers.nets.mapping_network import MappingNetwork, MappingSettings
from trainers.nets.pggan_discriminator import DiscriminatorSettings, GrowingDiscriminator
from trainers.nets.stylegan_file import MAPPING, save_mapping
from trainers.nets.trainable_stylegan import GrowingStylegan, noise_size
from trainers.presets.stylegan import StyleganConfig
from trainers.task import Batch, HeldOut, Phase, Stateful
from trainers.tasks.gan_figures import check_inception, films_at_once, gan_figures
from trainers.tasks.joined_codec import count_parameters, gflop

_SAMPLES = 16
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


class StyleganTask:
    """Each step the discriminator learns first, then the generator with its mapping, on films of the level that the images seen tell.

    The discriminator is the progressive GAN's: without Karras's filter before it halves a film. The mean w is not tracked over batches,
    which differ between processes and parts of a step; it is made of the averaged mapping network when it is asked for.
    """

    name = "stylegan"
    labels: tuple[str, ...] = ()
    alternate = ""

    def __init__(
        self, cfg: StyleganConfig, generator: GrowingStylegan, discriminator: GrowingDiscriminator, *, device: torch.device, seed: int
    ) -> None:
        self.cfg, self.generator, self.discriminator = cfg, generator, discriminator
        self.average = Ema(generator, cfg.ema)
        self.stage = cfg.growth.stage(0)
        self.device, self._seed = device, seed
        self._compiled_at = self.stage.level
        self._make: Callable[..., Tensor] = self._synthesis()
        self._optimisers = {
            name: torch.optim.Adam(network.parameters(), lr=cfg.lr[0], betas=(cfg.betas[0], cfg.betas[1]), eps=cfg.epsilon, fused=True)
            for name, network in (("generator", generator), ("discriminator", discriminator))
        }

    def phases(self) -> list[Phase]:
        """The discriminator's, then the generator's, after which its average follows."""
        judge, maker = self._optimisers["discriminator"], self._optimisers["generator"]
        return [
            Phase(name="discriminator", modules=[self.discriminator], optimiser=judge, loss=self._discriminator_loss),
            Phase(name="generator", modules=[self.generator], optimiser=maker, loss=self._generator_loss, after=self.average.update),
        ]

    def on_images(self, seen: int) -> None:
        """Sets level, fade and learning rate."""
        self.stage = self.cfg.growth.stage(seen)
        for optimiser in self._optimisers.values():
            for parameters in optimiser.param_groups:
                parameters["lr"] = self.cfg.growth.of("lr", self.stage.level)
        if self.cfg.compile and self._compiled_at != self.stage.level:
            torch.compiler.reset()  # the graphs of lower levels are done with, and there is a limit to their number
            self._make, self._compiled_at = self._synthesis(), self.stage.level

    @property
    def recipe(self) -> PixelRecipe:
        """Films at the side of the last level."""
        return PixelRecipe(resolution=4 << self.generator.synthesis.top)

    @property
    def resolution(self) -> int:
        """Side of the films of this level."""
        return self.stage.resolution

    @property
    def batch_size(self) -> int:
        """Images of a step at this level, over all processes."""
        return self.cfg.growth.count("batch_size", self.stage.level)

    @property
    def part_size(self) -> int:
        """Images that one process takes at a time."""
        return self.cfg.growth.count("part_size", self.stage.level) or self.batch_size

    @property
    def group(self) -> int:
        """Consecutive images over which the discriminator takes the spread."""
        return self.cfg.growth.count("group", self.stage.level)

    def state(self) -> Mapping[str, Stateful]:
        """Both networks, both optimisers, and the average."""
        optimisers = {f"{name}_optimiser": optimiser for name, optimiser in self._optimisers.items()}
        return {"generator": self.generator, "discriminator": self.discriminator, "average": self.average, **optimisers}

    def samples(self) -> Tensor:
        """Films [16, 1, r, r] of the averaged generator on the same codes and noise each time, not truncated, clamped to [-1, 1]."""
        return torch.cat(list(self._films(_SAMPLES, "stylegan/samples")))

    def evaluate(self, films: HeldOut | None) -> dict[str, float | str]:
        """`gan_figures` of the held-out films and of as many of the averaged generator, not truncated."""
        if films is None:
            return {}
        real = films(self.resolution)
        return gan_figures(real, self._films(len(real), "stylegan/evaluation"), inception=self.cfg.inception, device=self.device)

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
        level, alpha = self.stage.level, self.stage.alpha
        z = batch.normal("code", 2, self.cfg.code_size)
        codes = mixed(self.generator.mapping(z.flatten(0, 1)), batch.uniform("mixing", 2), 2 * (level + 1), self.cfg.mixing)
        # for compiled code a number is a constant, and a new one means compiling again
        share = torch.tensor(alpha, device=self.device) if self.cfg.compile and alpha is not None else alpha
        return self._make(codes, batch.normal("noise", noise_size(level)), level, share)

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

    def _synthesis(self) -> Callable[..., Tensor]:
        synthesis = self.generator.synthesis
        return torch.compile(synthesis, dynamic=False) if self.cfg.compile else synthesis

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
