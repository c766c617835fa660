"""`latentray train encoder-bootstrap`: an encoder learns the codes of films that the generator makes; stage 1 of Weber et al. 2022."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from engine.encode.codec import Codec
from engine.errors import ConfigError
from trainers.nets.discriminator_encoder import DiscriminatorEncoder
from trainers.nets.discriminator_file import load_discriminator
from trainers.nets.evaluating import evaluating
from trainers.nets.sided_encoder import SidedEncoder
from trainers.presets.encoder import EncoderBootstrapConfig
from trainers.randomness import step_seed
from trainers.task import Batch
from trainers.tasks.encoder_task import EncoderTask, start_encoder
from trainers.tasks.joined_codec import pggan_of

_SAMPLES = 8
_JUDGED = 64
_PURPOSE = "judged"


def build_encoder_bootstrap(
    cfg: EncoderBootstrapConfig, *, device: torch.device, seed: int, codec: Codec, discriminator: str | None = None
) -> EncoderBootstrapTask:
    """The task for a codec's generator. Raises CodecError for another than a PGGAN, ConfigError where settings or the discriminator do not
    fit it, TrainError for a file that holds no discriminator.
    """
    pggan_of(codec)
    if (cfg.network == "discriminator") != (discriminator is not None):
        wrong = "only network discriminator starts from --discriminator" if discriminator else "network needs --discriminator"
        raise ConfigError(f"{wrong}: {cfg.network}")
    encoder: SidedEncoder | DiscriminatorEncoder
    if discriminator is None:
        encoder = start_encoder(cfg, codec, EncoderBootstrapTask.name, seed)
    else:
        encoder = _start_discriminator(Path(discriminator), codec, seed)
    return EncoderBootstrapTask(cfg, encoder, codec, device=device, seed=seed)


def _start_discriminator(file: Path, codec: Codec, seed: int) -> DiscriminatorEncoder:
    """The discriminator of a file with a last layer that depends on `seed` alone."""
    network = load_discriminator(file, device=torch.device("cpu"))
    side = 4 << network.top
    if side != codec.recipe.resolution:
        raise ConfigError(f"discriminator sees films of {side} pixels a side, the codec makes others: {codec.recipe.resolution}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(step_seed(seed, f"{EncoderBootstrapTask.name}/weights", 0))
        return DiscriminatorEncoder(network, codec.code_shape[-1])


class EncoderBootstrapTask(EncoderTask):
    """Every step draws codes z ~ N(0, I) and makes films of them: no data set, and no film twice."""

    name = "encoder-bootstrap"
    recipe = None
    resolution = None
    _generator_passes = 1.0

    def __init__(
        self, cfg: EncoderBootstrapConfig, encoder: SidedEncoder | DiscriminatorEncoder, codec: Codec, *, device: torch.device, seed: int
    ) -> None:
        super().__init__(cfg, encoder, codec, device=device, seed=seed)
        self.distance = cfg.distance

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The mean distance between E(G(z)) and z on the gauge, since the length of z leaves no trace in a film."""
        codes = self.codec.project(batch.normal("code", *self.codec.code_shape))
        with torch.no_grad():
            films = self.films_of(codes)
        if self.distance == "l1":  # equation 2
            return {"loss": (self.encoder.raw(films) - codes).abs().mean()}
        if self.distance == "mse":  # Segal et al. 2021, 4.5
            return {"loss": (self.encoder.raw(films) - codes).square().mean()}
        return {"loss": (self.encoder(films) - codes).square().mean()}

    def samples(self) -> Tensor:
        """Films of fixed codes, and what becomes of them."""
        with torch.no_grad():
            films = self._made(range(_SAMPLES))
        return self._beside(films)

    def evaluate(self, films: Callable[[int], Tensor] | None) -> dict[str, float]:
        """On 64 films of codes that training does not draw: the mean distance of codes, and how close films of the codes found are."""
        count = range(_JUDGED)
        with torch.no_grad(), evaluating(self.encoder):
            parts = [range(start, start + _SAMPLES) for start in count[::_SAMPLES]]
            made = torch.cat([self._made(part) for part in parts])
            found = torch.cat([self.encoder(part) for part in torch.split(made, _SAMPLES)])
        distance = float((found - self._codes(_PURPOSE, count)).abs().mean())
        return {"code_distance": distance, **self._judged(made)}

    def _made(self, numbers: range) -> Tensor:
        return self.films_of(self._codes(_PURPOSE, numbers))
