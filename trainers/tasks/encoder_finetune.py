"""`latentray train encoder-finetune`: an encoder learns films through a frozen generator; stage 2 of Weber et al. 2022."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.config import parse_loss
from engine.encode.codec import Codec
from engine.networks.coarse import shrink
from trainers.nets.sided_encoder import SidedEncoder
from trainers.presets.encoder import EncoderFinetuneConfig
from trainers.task import Batch
from trainers.tasks.encoder_task import EncoderTask, start_encoder
from trainers.tasks.joined_codec import film_loss, objective_for, pggan_of

_SAMPLES = 8


def build_encoder_finetune(cfg: EncoderFinetuneConfig, *, device: torch.device, seed: int, codec: Codec) -> EncoderFinetuneTask:
    """The task for a codec's generator, and its encoder unless a fresh one is wanted or needed.

    Raises CodecError for another generator than a PGGAN, ConfigError where settings do not fit it or weights of the loss are missing.
    """
    pggan_of(codec)
    return EncoderFinetuneTask(cfg, start_encoder(cfg, codec, EncoderFinetuneTask.name, seed), codec, device=device, seed=seed)


class EncoderFinetuneTask(EncoderTask):
    """Equation 4 on films: the generator stays as it is, its gradient goes through to the encoder."""

    name = "encoder-finetune"
    _generator_passes = 2.0

    def __init__(self, cfg: EncoderFinetuneConfig, encoder: SidedEncoder, codec: Codec, *, device: torch.device, seed: int) -> None:
        super().__init__(cfg, encoder, codec, device=device, seed=seed)
        self.recipe = codec.recipe
        self.resolution = max(self.films_of.side, self.encoder.side)
        full, side = codec.recipe.resolution, self.films_of.side
        loss = parse_loss(cfg.loss)
        whole = objective_for(loss, resolution=full, lpips_net=cfg.lpips_net, lpips_size=cfg.lpips_size, weights=cfg.perceptual_weights).to(
            device
        )
        self._objective = whole if side == full else whole.at(side)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Equation 4: the weighted terms of the loss between films and what the generator makes of their codes, in float32."""
        made = self._reconstruct(batch.pixels)
        loss, error = film_loss(self._objective, made, shrink(batch.pixels, self.films_of.side))
        return {"loss": loss, "mse": error}

    def samples(self) -> Tensor:
        """Held-out films beside their reconstructions; before the first evaluation, films of fixed random codes."""
        if self._held_out.films is not None:
            return self._beside(self._held_out.films)
        with torch.no_grad():
            return self._random(range(_SAMPLES))

    def evaluate(self, films: Callable[[int], Tensor] | None) -> dict[str, float]:
        """PSNR, SSIM and sliced Wasserstein distance of reconstructions of held-out films, and the distance of random films."""
        return {} if films is None else self._judged(films(self.resolution), self._random)

    def _random(self, numbers: range) -> Tensor:
        return self.films_of(self._codes("samples", numbers))
