"""`latentray train vae`: the variational autoencoder of Kumar and Triana 2024, figure 4, after Kingma and Welling 2014."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.networks.vae import VaeEncoder, VaeGenerator
from engine.recipe import PixelRecipe
from trainers import randomness
from trainers.export import VECTOR, Part, export_codec
from trainers.losses.vae import kl_to_standard, reconstruction, sample
from trainers.nets.evaluating import evaluating
from trainers.presets.vae import VaeConfig
from trainers.task import Batch, HeldOut, Phase, Stateful
from trainers.tasks.joined_codec import HeldOut as Judged
from trainers.tasks.joined_codec import count_parameters, gflop, side_by_side

_SAMPLES = 16


def build_vae(cfg: VaeConfig, *, device: torch.device, seed: int) -> VaeTask:
    """The task with initial weights that depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(randomness.step_seed(seed, "vae/weights", 0))
        encoder, generator = VaeEncoder(cfg.settings), VaeGenerator(cfg.settings)
        variance = nn.Linear(encoder.feature_size, cfg.code_size)
    start_gray(generator.layers)
    return VaeTask(cfg, encoder, variance, generator, device=device, seed=seed)


class VaeTask:
    """One phase: the evidence lower bound, with a sample of q(z|x) a film. A step is one group, since the decoder has batch norm."""

    name = "vae"
    labels: tuple[str, ...] = ()
    alternate = ""

    def __init__(
        self, cfg: VaeConfig, encoder: VaeEncoder, variance: nn.Linear, generator: VaeGenerator, *, device: torch.device, seed: int
    ) -> None:
        self.cfg, self._device, self._seed = cfg, device, seed
        self.encoder: VaeEncoder = encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.generator: VaeGenerator = generator.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.variance = variance.to(device)
        parameters = [parameter for network in self._networks for parameter in network.parameters()]
        self._optimiser = torch.optim.Adam(parameters, lr=cfg.lr, betas=(cfg.betas[0], cfg.betas[1]), fused=True)
        self._held_out = Judged()
        self.batch_size = self.part_size = self.group = cfg.batch_size
        self.on_images(0)

    def phases(self) -> list[Phase]:
        """Encoder, variances and decoder together."""
        return [Phase(name="elbo", modules=self._networks, optimiser=self._optimiser, loss=self._elbo)]

    def on_images(self, seen: int) -> None:
        """Sets the weight of the KL divergence."""
        self.beta = warmed(self.cfg.beta, seen, self.cfg.warm_up)

    @property
    def recipe(self) -> PixelRecipe:
        """How files become films."""
        return self.cfg.recipe

    @property
    def resolution(self) -> int:
        """Side of the films."""
        return self.cfg.resolution

    def state(self) -> Mapping[str, Stateful]:
        """Networks with their running statistics, and the optimiser."""
        return {"encoder": self.encoder, "variance": self.variance, "generator": self.generator, "optimiser": self._optimiser}

    def samples(self) -> Tensor:
        """Held-out films beside their reconstructions, then films of random codes; before the first evaluation those alone."""
        with evaluating(*self._networks):
            random = self._random(range(_SAMPLES)).clamp(-1, 1)
            if self._held_out.films is None:
                return random
            return torch.cat([side_by_side(self._held_out.films, self._reconstruct, side=self.resolution), random])

    def evaluate(self, films: HeldOut | None) -> dict[str, float | str]:
        """PSNR, SSIM and sliced Wasserstein distance of reconstructions from the mean codes, and the distance of random films."""
        if films is None:
            return {}
        held_out = films(self.resolution).to(self._device)
        with evaluating(*self._networks):
            return {**self._held_out.figures(held_out, self._reconstruct, side=self.resolution, random=self._random)}

    def summary(self) -> dict[str, Any]:
        """Weights, and GFLOP of an image's part of a step: three times the way forward."""
        side = self.resolution
        with evaluating(*self._networks):
            coded = gflop(self.encoder, 1, 1, side, side, device=self._device)
            made = gflop(self.generator, 1, 1, self.cfg.code_size, device=self._device)
        parts: dict[str, nn.Module] = {"encoder": self.encoder, "variance": self.variance, "generator": self.generator}
        return {"parameters": count_parameters(parts), "gflop_per_image": {str(side): round(3 * (coded + made), 3)}}

    def export(self, out: Path, provenance: dict[str, Any]) -> None:
        """Writes the codec: the code is the mean of q(z|x), and zero is the mean code, as the prior has it."""
        settings = self.cfg.settings
        export_codec(
            out,
            name=f"vae-{settings.code_size}-at-{settings.resolution}",
            encoder=Part(network="vae", settings=settings, module=self.encoder),
            generator=Part(network="vae", settings=settings, module=self.generator),
            dims=VECTOR,
            shape=self.encoder.code_shape,
            gauge="none",
            mean="zero",
            recipe=self.recipe,
            provenance={**provenance, "task": self.name, "settings": asdict(self.cfg)},
            storage=self.cfg.storage,
        )

    @property
    def _networks(self) -> list[nn.Module]:
        return [self.encoder, self.variance, self.generator]

    def _elbo(self, batch: Batch) -> dict[str, Tensor]:
        features = self.encoder.features(batch.pixels)
        mean, log_variance = self.encoder.mean(features).float(), self.variance(features).float()
        z = sample(mean, log_variance, batch.normal("z", self.cfg.code_size))
        error = reconstruction(self.generator(z[:, None]), batch.pixels, over=self.cfg.over).mean()
        kl = kl_to_standard(mean, log_variance).mean()
        return {"loss": error + self.beta * kl, "rec": error, "kl": kl}

    def _reconstruct(self, films: Tensor) -> Tensor:
        made: Tensor = self.generator(self.encoder(films))
        return made

    @torch.no_grad()
    def _random(self, numbers: range) -> Tensor:
        codes = randomness.normal(self._seed, "vae/samples", numbers, 1, self.cfg.code_size)
        made: Tensor = self.generator(codes.to(self._device))
        return made


@torch.no_grad()
def start_gray(layers: nn.Sequential) -> None:
    """Fresh decoders make films of mid-gray with little contrast.

    As torch starts the last layer, films stray over more than their whole range, and the first steps push all codes far to one side.
    """
    last = layers[-1]
    assert isinstance(last, nn.ConvTranspose2d)
    assert last.bias is not None
    last.weight.mul_(0.1)
    last.bias.fill_(0.5)


def warmed(beta: float, seen: int, images: int) -> float:
    """The weight of the KL divergence after `seen` images: it grows in a straight line to `beta` over the first `images`."""
    return beta * min(1.0, seen / images) if images else beta
