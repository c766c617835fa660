"""What the two trainings of an encoder have in common: the encoder, its optimiser, the frozen generator, and the codec of both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.encode.codec import Codec
from engine.errors import ConfigError
from engine.networks.coarse import Head
from trainers import randomness
from trainers.nets.code_statistics import FirstCodes
from trainers.nets.discriminator_encoder import DiscriminatorEncoder
from trainers.nets.evaluating import evaluating
from trainers.nets.sided_encoder import EncoderShape, SidedEncoder, build_encoder, take_encoder
from trainers.presets.encoder import EncoderTraining
from trainers.task import Batch, Phase, Stateful
from trainers.tasks.joined_codec import ExportedCodec, HeldOut, count_parameters, gflop, mean_of, pggan_of, side_by_side

_FIRST = 16  # films
_FIRST_SPREAD = 0.5  # less than that of the codes looked for, which a fresh encoder does not know


class FrozenFilms:
    """Films [N, 1, side, side] in [-1, 1] of codes [N, 1, d], by a generator with its weights fixed, differentiable in the codes.

    `side`: 0 for the codec's own resolution, or one for which it has a coarse head; ConfigError for any other. In half precision inside
    where autocast is on, else in float32.
    """

    def __init__(self, codec: Codec, side: int) -> None:
        full = codec.recipe.resolution
        self.side = side or full
        if self.side != full and self.side not in codec.coarse:
            known = ", ".join(map(str, sorted(codec.coarse))) or "none; `latentray calibrate` fits them"
            raise ConfigError(f"generate_at must be 0 or the side of a coarse head of the codec ({known}): {side}")
        self._codec = codec
        self._head: Head | None = codec.coarse.get(self.side) if self.side != full else None
        self._networks: dict[torch.dtype, nn.Module] = {}

    def __call__(self, codes: Tensor) -> Tensor:
        kind = codes.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        films: Tensor = self.network(dtype)(codes)
        return films

    def network(self, dtype: torch.dtype) -> nn.Module:
        """The generator in one precision, on the codec's device."""
        if dtype not in self._networks:
            self._networks[dtype] = self._codec.frozen_generator(dtype, head=self._head).to(self._codec.device)
        return self._networks[dtype]


class EncoderTask(ABC):
    """One phase, that of the encoder. What is minimised, and on which films it is judged, a subclass says."""

    name: str
    labels: tuple[str, ...] = ()
    alternate = ""
    group = 1

    def __init__(
        self, cfg: EncoderTraining, encoder: SidedEncoder | DiscriminatorEncoder, codec: Codec, *, device: torch.device, seed: int
    ) -> None:
        self.cfg, self.codec, self._device, self._seed = cfg, codec.to(device), device, seed
        self.films_of = FrozenFilms(codec, cfg.generate_at)
        self.encoder = encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimiser = torch.optim.AdamW(self.encoder.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay, fused=True)
        self._held_out = HeldOut()
        self.batch_size, self.part_size = cfg.batch, cfg.part or cfg.batch
        self.on_images(0)
        if cfg.quick and (cfg.fresh or codec.encoder is None) and isinstance(encoder, SidedEncoder):
            self._standardise(encoder)

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """What the encoder minimises."""

    def phases(self) -> list[Phase]:
        """The encoder's."""
        return [Phase(name="encoder", modules=[self.encoder], optimiser=self._optimiser, loss=self.loss, clip=self.cfg.clip)]

    def on_images(self, seen: int) -> None:
        """Sets the learning rate."""
        for group in self._optimiser.param_groups:
            group["lr"] = self.cfg.lr_at(seen)

    def state(self) -> Mapping[str, Stateful]:
        """The encoder and its optimiser."""
        return {"encoder": self.encoder, "optimiser": self._optimiser}

    def summary(self) -> dict[str, Any]:
        """Weights, and GFLOP of an image's part of a step: three times the encoder's way forward, and the frozen generator's share."""
        side, generator = self.encoder.side, self.films_of.network(torch.float32)
        ways = {"encoder": 3.0 * gflop(self.encoder, 1, 1, side, side, device=self._device)}
        ways["generator"] = self._generator_passes * gflop(generator, 1, *self.codec.code_shape, device=self._device)
        return {
            "parameters": count_parameters({"encoder": self.encoder, "generator": self.codec.generator}),
            "gflop_per_image": {name: round(count, 3) for name, count in ways.items()},
        }

    def export(self, out: Path, provenance: dict[str, Any]) -> None:
        """Writes the codec of this encoder and the generator as it was."""
        codec = self.codec
        settings = {name: value for name, value in asdict(self.cfg).items() if name not in ("images", "perceptual_weights")}
        ExportedCodec(
            encoder=self.encoder,
            generator=pggan_of(codec),
            mean=mean_of(codec),
            recipe=codec.recipe,
            storage=self.cfg.storage,
            frozen=codec,
            loss=codec.spec.loss,
            licence=codec.spec.licence,
            provenance={**provenance, "task": self.name, "settings": settings, "start": codec.name, "generator": codec.spec.provenance},
        ).write(out)

    @property
    @abstractmethod
    def _generator_passes(self) -> float:
        """How often an image goes through the generator; back in the codes costs as much as forward."""

    def _standardise(self, encoder: SidedEncoder) -> None:
        """Gives a fresh encoder's codes of some films mean 0 and a moderate spread (`SidedEncoder.standardise`)."""
        first = FirstCodes(is_done=False).to(self._device)
        with torch.no_grad(), evaluating(encoder):
            first.add(encoder.raw(self.films_of(self._codes("first", range(_FIRST)))))
        first.apply_to(encoder, spread=_FIRST_SPREAD)

    def _codes(self, purpose: str, numbers: range) -> Tensor:
        """Codes z ~ N(0, I) on the gauge, by their numbers: the same each time, and none that training draws."""
        return self.codec.project(randomness.normal(self._seed, f"{self.name}/{purpose}", numbers, *self.codec.code_shape).to(self._device))

    def _reconstruct(self, films: Tensor) -> Tensor:
        return self.films_of(self.encoder(films))

    def _beside(self, films: Tensor) -> Tensor:
        with evaluating(self.encoder):
            return side_by_side(films, self._reconstruct, side=self.films_of.side)

    def _judged(self, films: Tensor, random: Callable[[range], Tensor] | None = None) -> dict[str, float]:
        with evaluating(self.encoder):
            return self._held_out.figures(films.to(self._device), self._reconstruct, side=self.films_of.side, random=random)


def start_encoder(cfg: EncoderTraining, codec: Codec, name: str, seed: int) -> SidedEncoder:
    """The codec's own encoder, or a fresh one that depends on `seed` alone. Raises ConfigError for a pool that does not fit."""
    resolution = codec.recipe.resolution
    if codec.encoder is not None and not cfg.fresh:
        return take_encoder(codec.encoder.get_submodule("network"), resolution)
    if resolution % cfg.pool:
        raise ConfigError(f"pool must divide the {resolution} pixels of a film's side: {cfg.pool}")
    shape = EncoderShape(codec.code_shape[-1], cfg.depths, cfg.widths, cfg.stochastic_depth, cfg.quick)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(randomness.step_seed(seed, f"{name}/weights", 0))
        return build_encoder(shape, resolution // cfg.pool)
