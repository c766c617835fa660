"""`latentray train gmvae`: the Gaussian-mixture autoencoder of Kumar and Triana 2024, with or without labels in the code (FS-GMVAE)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.encode.codec_directory import write_aside
from engine.encode.weights import write_tensors
from engine.errors import ConfigError, TrainError
from engine.networks.gmvae import GmVaeEncoder, GmVaeGenerator, GmVaeGeneratorSettings
from engine.networks.imagenet_features import ImagenetFeatures
from engine.networks.vae import VaeGenerator
from engine.recipe import PixelRecipe
from engine.refine.weight_files import read_weights, sha256_of
from trainers import randomness
from trainers.export import VECTOR, Part, export_codec
from trainers.losses.vae import kl_by_sample, kl_to_standard, label_loss, reconstruction, sample
from trainers.nets.evaluating import evaluating
from trainers.nets.gaussian_mixture import GaussianMixture
from trainers.nets.recent_codes import RecentCodes
from trainers.presets.gmvae import GmVaeConfig
from trainers.task import Batch, HeldOut, Phase, Stateful
from trainers.tasks.gmvae_figures import cluster_figures, label_figures
from trainers.tasks.joined_codec import HeldOut as Judged
from trainers.tasks.joined_codec import count_parameters, gflop, side_by_side
from trainers.tasks.vae import start_gray, warmed

MIXTURE = "mixture.safetensors"
_SHOWN, _EACH = 8, 8  # components, and films of each


def build_gmvae(cfg: GmVaeConfig, *, device: torch.device, seed: int) -> GmVaeTask:
    """The task with initial weights that depend on `seed`, and on the file of the features, alone.

    Raises ConfigError where the features are frozen or published ones, and their file is missing or of another network.
    """
    made = cfg.generator_settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(randomness.step_seed(seed, "gmvae/weights", 0))
        encoder = GmVaeEncoder(cfg.encoder_settings)
        generator = GmVaeGenerator(made) if isinstance(made, GmVaeGeneratorSettings) else VaeGenerator(made)
        variance = nn.Linear(encoder.feature_size, cfg.code_size)
        mixture = GaussianMixture(cfg.components, cfg.code_size)
    start_gray(generator.layers)
    weights = load_features(encoder, cfg)
    return GmVaeTask(cfg, encoder, variance, generator, mixture, weights=weights, device=device, seed=seed)


def load_features(encoder: GmVaeEncoder, cfg: GmVaeConfig) -> str:
    """Puts ImageNet's weights into the features, if a file is named; returns its digest, or "none". Raises ConfigError as `build_gmvae`."""
    features = encoder.features
    if cfg.imagenet_weights == "none":
        if cfg.frozen:
            raise ConfigError(f"frozen features need their weights (torchvision's file): --set imagenet_weights=FILE: {cfg.features}")
        return cfg.imagenet_weights
    if not isinstance(features, ImagenetFeatures):
        raise ConfigError(f"imagenet_weights are of use only for features of ImageNet, vgg16 or densenet121: {cfg.features}")
    path = Path(cfg.imagenet_weights)
    if not path.is_file():
        raise ConfigError(f"weights of {cfg.features} were not found: {path}")
    features.load_published(read_weights(path, features.published_shapes()))
    return sha256_of(path)


class GmVaeTask:
    """One phase: the evidence lower bound with a mixture as prior, and the labels' cross-entropy where there are labels.

    A step is one group, since decoder and transition net have batch norm.
    """

    name = "gmvae"
    alternate = ""

    def __init__(
        self,
        cfg: GmVaeConfig,
        encoder: GmVaeEncoder,
        variance: nn.Linear,
        generator: GmVaeGenerator | VaeGenerator,
        mixture: GaussianMixture,
        *,
        weights: str,
        device: torch.device,
        seed: int,
    ) -> None:
        self.cfg, self._weights, self._device, self._seed = cfg, weights, device, seed
        self.labels = cfg.asked
        self.encoder: GmVaeEncoder = encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.generator: nn.Module = generator.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.variance, self.mixture = variance.to(device), mixture.to(device)
        self.recent = RecentCodes(cfg.kept, cfg.code_size).to(device)
        self._trained = [part for name, part in encoder.named_children() if not (cfg.frozen and name == "features")]
        self._trained += [self.variance, self.generator, self.mixture]
        if cfg.frozen:
            encoder.features.eval().requires_grad_(False)
        parameters = [parameter for part in self._trained for parameter in part.parameters()]
        self._optimiser = torch.optim.Adam(parameters, lr=cfg.lr, betas=(cfg.betas[0], cfg.betas[1]), fused=True)
        self._held_out = Judged()
        self.batch_size = self.part_size = self.group = cfg.batch_size
        self.on_images(0)

    def phases(self) -> list[Phase]:
        """Everything together; the mixture is put where codes lie once its time has come."""
        return [Phase(name="elbo", modules=self._trained, optimiser=self._optimiser, loss=self._elbo, after=self._note_codes)]

    def on_images(self, seen: int) -> None:
        """Sets the weight of the KL divergence, and which prior it is from."""
        self.beta = warmed(self.cfg.beta, seen, self.cfg.warm_up)
        self._has_mixture = seen >= self.cfg.mixture_at
        self._is_fitting = not self._has_mixture and seen + self.cfg.batch_size >= self.cfg.mixture_at

    @property
    def recipe(self) -> PixelRecipe:
        """How files become films."""
        return self.cfg.recipe

    @property
    def resolution(self) -> int:
        """Side of the films."""
        return self.cfg.resolution

    def state(self) -> Mapping[str, Stateful]:
        """Networks with their running statistics, the mixture, recent codes, and the optimiser."""
        return {
            "encoder": self.encoder,
            "variance": self.variance,
            "generator": self.generator,
            "mixture": self.mixture,
            "recent": self.recent,
            "optimiser": self._optimiser,
        }

    def samples(self) -> Tensor:
        """Held-out films beside their reconstructions, then a row of films for each of the first components."""
        with evaluating(self.encoder, self.generator):
            drawn = torch.cat([self._of_component(k, range(_EACH)) for k in range(min(_SHOWN, self.cfg.components))]).clamp(-1, 1)
            if self._held_out.films is None:
                return drawn
            return torch.cat([side_by_side(self._held_out.films, self._reconstruct, side=self.resolution), drawn])

    def evaluate(self, films: HeldOut | None) -> dict[str, float | str]:
        """PSNR, SSIM and sliced Wasserstein distance of reconstructions, and the distance of films drawn from the mixture.

        With `judge_by`, how far clusters tell that label; with `labels`, how often each is told rightly.
        """
        if films is None:
            return {}
        held_out = films(self.resolution)
        with evaluating(self.encoder, self.generator), torch.no_grad():
            found: dict[str, float | str] = {
                **self._held_out.figures(held_out.to(self._device), self._reconstruct, side=self.resolution, random=self._random)
            }
            if not self.labels or not len(held_out):
                return found
            codes = torch.cat([self.encoder(part.to(self._device))[:, 0] for part in torch.split(held_out, self.cfg.batch_size)]).float()
        marks, size = films.labels(), self.cfg.code_size
        found |= label_figures(codes[:, size:].cpu(), marks, self.cfg.labels)
        if self.cfg.judge_by:
            clusters = self.mixture.responsibilities(codes[:, :size]).argmax(dim=1).cpu()
            found |= cluster_figures(clusters, marks[:, self.labels.index(self.cfg.judge_by)], seed=self._seed)
        return found

    def summary(self) -> dict[str, Any]:
        """Weights, and GFLOP of an image's part of a step: three times the way forward, of frozen features once."""
        side, code = self.resolution, self.encoder.code_shape[1]
        with evaluating(self.encoder, self.generator):
            coded = gflop(self.encoder, 1, 1, side, side, device=self._device)
            made = gflop(self.generator, 1, 1, code, device=self._device)
        parts = {"encoder": self.encoder, "variance": self.variance, "generator": self.generator, "mixture": self.mixture}
        whole = (1 if self.cfg.frozen else 3) * coded + 3 * made
        return {"parameters": count_parameters(parts), "gflop_per_image": {str(side): round(whole, 3)}}

    def export(self, out: Path, provenance: dict[str, Any]) -> None:
        """Writes the codec, whose mean code is the mean of the mixture without a finding, and the mixture beside it."""
        cfg, shape = self.cfg, self.encoder.code_shape
        settings = {name: value for name, value in asdict(cfg).items() if name != "imagenet_weights"}
        settings["imagenet_weights"] = self._weights
        mean = torch.zeros(shape)
        mean[0, : cfg.code_size] = self.mixture.means.detach().mean(dim=0).cpu()
        export_codec(
            out,
            name=f"gmvae-{shape[1]}-at-{cfg.resolution}",
            encoder=Part(network="gmvae", settings=cfg.encoder_settings, module=self.encoder),
            generator=Part(network="gmvae" if cfg.decoder else "vae", settings=cfg.generator_settings, module=self.generator),
            dims=VECTOR,
            shape=shape,
            gauge="none",
            mean=mean,
            recipe=self.recipe,
            provenance={**provenance, "task": self.name, "settings": settings},
            storage=cfg.storage,
        )
        try:
            write_aside(out / MIXTURE, write_tensors(self.mixture.state_dict()))
        except OSError as error:
            raise TrainError(f"mixture cannot be written ({error.strerror}): {out / MIXTURE}") from None

    def _elbo(self, batch: Batch) -> dict[str, Tensor]:
        cfg = self.cfg
        hidden = self.encoder.hidden(batch.pixels)
        mean, log_variance = self.encoder.mean(hidden).float(), self.variance(hidden).float()
        z = code = sample(mean, log_variance, batch.normal("z", cfg.code_size))
        found: dict[str, Tensor] = {}
        if self.encoder.labels is not None:
            marks = batch.marks[:, : len(cfg.labels)]
            found["labels"] = label_loss(self.encoder.labels(hidden), marks).mean()
            code = torch.cat([z, marks], dim=1)
        found["rec"] = reconstruction(self.generator(code[:, None]), batch.pixels, over=cfg.over).mean()
        if self._has_mixture:
            found["kl"] = kl_by_sample(z, mean, log_variance, self.mixture.log_density).mean()
        else:
            found["kl"] = kl_to_standard(mean, log_variance).mean()
            self.recent.add(mean)
        loss = found["rec"] + self.beta * found["kl"]
        return {"loss": loss + cfg.label_weight * found["labels"] if "labels" in found else loss, **found}

    def _note_codes(self) -> None:
        if self._is_fitting:
            self.mixture.fit(self.recent.codes(), seed=self._seed)

    def _reconstruct(self, films: Tensor) -> Tensor:
        made: Tensor = self.generator(self.encoder(films))
        return made

    @torch.no_grad()
    def _of_component(self, component: int, numbers: range) -> Tensor:
        """Films [n, 1, R, R] of one component, with probabilities of labels of nought."""
        noise = randomness.normal(self._seed, f"gmvae/component {component}", numbers, self.cfg.code_size).to(self._device)
        z = self.mixture.draw(component, noise) if self._has_mixture else noise
        made: Tensor = self.generator(nn.functional.pad(z, (0, len(self.cfg.labels)))[:, None])
        return made

    def _random(self, numbers: range) -> Tensor:
        """Films of the components in turns."""
        return torch.cat([self._of_component(number % self.cfg.components, range(number, number + 1)) for number in numbers])
