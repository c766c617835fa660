"""`latentray train codec-finetune`: encoder and generator tuned together on films, level by level, beside a critic if asked for.

Beyond Weber et al. 2022, whose generator stays as the adversarial training left it and so sets the ceiling of every reconstruction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.config import parse_loss
from engine.encode.codec import Codec
from engine.encode.gauge import project
from engine.networks.coarse import shrink
from engine.recipe import PixelRecipe
from trainers import randomness
from trainers.export import LICENCE
from trainers.losses.wgan_gp import critic_loss, generator_loss
from trainers.nets.code_statistics import FirstCodes, RunningMean
from trainers.nets.discriminator_file import DISCRIMINATOR, save_discriminator
from trainers.nets.evaluating import evaluating
from trainers.nets.pggan_discriminator import GrowingDiscriminator
from trainers.nets.sided_encoder import SidedEncoder, without_common_gradient
from trainers.nets.trainable_pggan import TrainablePggan, level_at
from trainers.presets.codec import CodecFinetuneConfig
from trainers.task import Batch, Phase, Stateful
from trainers.tasks.codec_start import start_critic, start_encoder, start_generator
from trainers.tasks.joined_codec import (
    ExportedCodec,
    HeldOut,
    count_parameters,
    film_loss,
    gflop,
    mean_of,
    objective_for,
    side_by_side,
)

_SAMPLES = 8
_TYPICAL = 4  # codes: even at 32x32 a thousand pixels each


def build_codec_finetune(
    cfg: CodecFinetuneConfig, *, device: torch.device, seed: int, codec: Codec | None = None, discriminator: str | None = None
) -> CodecFinetuneTask:
    """The task, from a codec or from nothing; initial weights depend on `seed` alone. Levels above a codec's resolution are left out.

    Raises ConfigError where levels, sides or files do not fit one another, CodecError for a codec of another kind.
    """
    if codec is not None:
        cfg = cfg.cut_to(codec.recipe.resolution)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(randomness.step_seed(seed, "codec-finetune/weights", 0))
        generator = start_generator(cfg, codec)
        encoder = start_encoder(cfg, codec, generator)
        critic = start_critic(cfg, generator, discriminator, device)
    mean = RunningMean(1, generator.settings.code_size)
    if codec is not None and (known := mean_of(codec)) is not None:
        mean.start(known, cfg.mean_images)
    return CodecFinetuneTask(cfg, encoder, generator, critic, mean, codec=codec, device=device, seed=seed)


class CodecFinetuneTask:
    """A critic's phase, where there is one, then that of encoder and generator together."""

    name = "codec-finetune"
    labels: tuple[str, ...] = ()
    alternate = ""
    resolution: int
    batch_size: int
    part_size: int
    group: int

    def __init__(
        self,
        cfg: CodecFinetuneConfig,
        encoder: SidedEncoder,
        generator: TrainablePggan,
        critic: GrowingDiscriminator | None,
        mean: RunningMean,
        *,
        codec: Codec | None,
        device: torch.device,
        seed: int,
    ) -> None:
        self.cfg, self._device, self._seed, self._codec = cfg, device, seed, codec
        self.encoder = encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.generator = generator.to(device)
        self.critic = None if critic is None else critic.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mean = mean.to(device)
        self._is_new = codec is None
        self.first = FirstCodes(is_done=codec is not None and codec.encoder is not None).to(device)
        self.recipe = PixelRecipe(resolution=generator.resolution) if codec is None else codec.recipe
        whole = objective_for(
            parse_loss(cfg.loss),
            resolution=generator.resolution,
            lpips_net=cfg.lpips_net,
            lpips_size=cfg.lpips_size,
            weights=cfg.perceptual_weights,
        ).to(device)
        sides = {level.resolution for level in cfg.levels}
        self._objectives = {side: whole if side == generator.resolution else whole.at(side) for side in sides}
        betas = (cfg.betas[0], cfg.betas[1])
        groups = [{"params": list(network.parameters())} for network in (self.generator, self.encoder)]
        self._optimiser = torch.optim.AdamW(groups, lr=1e-3, betas=betas, weight_decay=cfg.weight_decay, fused=True)
        self._critic_optimiser = None
        if self.critic is not None:
            self._critic_optimiser = torch.optim.Adam(self.critic.parameters(), lr=cfg.critic_lr, betas=(0.0, 0.99), fused=True)
        self._held_out = HeldOut()
        self._compiled_at: int | None = None
        self._make: Callable[..., Tensor] = self.generator
        self.on_images(0)

    def phases(self) -> list[Phase]:
        """The critic's, every so many steps, then that of the codec."""
        both = [self.encoder, self.generator]
        codec = Phase(
            name="codec", modules=both, optimiser=self._optimiser, loss=self._codec_loss, clip=self.cfg.clip, after=self._note_codes
        )
        if self.critic is None or self._critic_optimiser is None:
            return [codec]
        every = self.cfg.critic_every
        return [Phase(name="critic", modules=[self.critic], optimiser=self._critic_optimiser, loss=self._critic_loss, every=every), codec]

    def on_images(self, seen: int) -> None:
        """Sets level, fade and learning rate."""
        moment = self.cfg.moment(seen)
        level = self.cfg.levels[moment.at]
        self.level = level.resolution
        fade = level.fade if self._is_new and moment.at > 0 else 0  # what a codec brings is trained, and so is what comes first
        self.alpha = 1 - moment.seen / fade if moment.seen < fade else None
        self.resolution = max(self.level, self.encoder.side)
        self.batch_size = level.batch
        self.part_size = level.part or level.batch
        below = self.cfg.levels[moment.at - 1].resolution if self._is_new and moment.at > 0 else self.level
        self._begins_from = below if below < self.level and moment.seen == 0 else None
        self._is_waiting = self._is_new and seen < self.cfg.wait
        self._is_settling = self._is_new and seen < self.cfg.settle
        self.group = min(self.cfg.group, level.batch) if self._is_settling or self.critic is not None else 1
        rise = min(1.0, max(0, seen - self.cfg.wait) / self.cfg.warm_up) if self._is_new and self.cfg.warm_up else 1.0
        for group, rate in zip(self._optimiser.param_groups, (1.0, self.cfg.encoder_rate * rise), strict=True):
            group["lr"] = moment.lr * rate
        if 0 < self.cfg.compile_from <= self.level and self._compiled_at != self.level:
            torch.compiler.reset()  # the graphs of lower levels are done with, and there is a limit to their number
            self._make, self._compiled_at = torch.compile(self.generator, dynamic=False), self.level

    def state(self) -> Mapping[str, Stateful]:
        """Networks, optimisers, and what is kept of the codes."""
        found: dict[str, Stateful] = {"encoder": self.encoder, "generator": self.generator, "optimiser": self._optimiser}
        found |= {"mean": self.mean, "first": self.first}
        if self.critic is not None and self._critic_optimiser is not None:
            found |= {"critic": self.critic, "critic_optimiser": self._critic_optimiser}
        return found

    def samples(self) -> Tensor:
        """Held-out films beside what the codec makes of them at this level; before the first evaluation, films of random codes."""
        self._begin()
        shown = self._held_out.films
        if shown is None or shown.shape[-1] < self.resolution:
            with torch.no_grad():
                return self._random(range(_SAMPLES)).clamp(-1, 1)
        with evaluating(self.encoder):
            return side_by_side(shown, self._reconstruct, side=self.level)

    def evaluate(self, films: Callable[[int], Tensor] | None) -> dict[str, float]:
        """PSNR, SSIM and sliced Wasserstein distance of the encoder's reconstructions at this level, and the distance of random films."""
        if films is None:
            return {}
        self._begin()
        held_out = films(self.resolution).to(self._device)
        with evaluating(self.encoder):
            return self._held_out.figures(held_out, self._reconstruct, side=self.level, random=self._random)

    def summary(self) -> dict[str, Any]:
        """Weights, and GFLOP of an image's part of a step by resolution: three times the way forward. The critic's are not counted."""
        parts: dict[str, nn.Module] = {"encoder": self.encoder, "generator": self.generator.whole}
        side, code = self.encoder.side, self.generator.settings.code_size
        coded = gflop(self.encoder, 1, 1, side, side, device=self._device)
        sides = dict.fromkeys(level.resolution for level in self.cfg.levels)
        steps = {side: gflop(partial(self.generator, resolution=side), 1, 1, code, device=self._device) for side in sides}
        return {
            "parameters": count_parameters(parts if self.critic is None else parts | {"critic": self.critic}),
            "gflop_per_image": {str(side): round(3 * (coded + made), 3) for side, made in steps.items()},
        }

    def export(self, out: Path, provenance: dict[str, Any]) -> None:
        """Writes the codec of the last level that is whole. Below the side that the encoder sees it has no encoder."""
        level = self._begins_from or (self.level if self.alpha is None else self.level // 2)
        settings = {name: value for name, value in asdict(self.cfg).items() if name not in ("images", "perceptual_weights")}
        ExportedCodec(
            encoder=self.encoder if level >= self.encoder.side else None,
            generator=self.generator.up_to(level),
            mean=self.mean.value.cpu(),
            recipe=PixelRecipe(**{**self.recipe.to_json(), "resolution": level}),
            storage=self.cfg.storage,
            frozen=None,
            loss="mse=1" if self._codec is None else self._codec.spec.loss,
            licence=LICENCE if self._codec is None else self._codec.spec.licence,
            provenance={
                **provenance,
                "task": self.name,
                "settings": settings,
                "start": None if self._codec is None else self._codec.name,
                "generator": None if self._codec is None else self._codec.spec.provenance,
            },
        ).write(out)
        if self.critic is not None:
            save_discriminator(out / DISCRIMINATOR, self.critic, level_at(level))

    def _codec_loss(self, batch: Batch) -> dict[str, Tensor]:
        films, size = batch.pixels, self.generator.settings.code_size
        self._begin()
        codes = self._codes(films)
        noisy = project(codes + self.cfg.noise * batch.normal("noise", 1, size), "sphere")
        made = self._make(noisy, self.level, self._share())
        loss, error = film_loss(self._objectives[self.level], made, shrink(films, self.level))
        found = {"loss": loss, "mse": error}
        if self.critic is not None:
            random = self._make(batch.normal("random", 1, size), self.level, self._share())
            found["adversarial"] = generator_loss(self._score, random)["loss"]
            found["loss"] = loss + self.cfg.adversarial * found["adversarial"]
        return found

    def _codes(self, films: Tensor) -> Tensor:
        """The films' codes, of which note is taken; without a gradient while a fresh encoder waits."""
        raw = self.encoder.raw(films)
        self.first.add(raw)
        if self._is_waiting:
            raw = raw.detach()
        elif self._is_settling:
            raw = without_common_gradient(raw, self.group)
        codes = project(raw, "sphere")
        self.mean.add(codes)
        return codes

    def _begin(self) -> None:
        """Fits a level before anything is made of it: to the same, however often this is called until its first step is done."""
        if self._begins_from is not None:
            self.generator.begin_level(self.level, self._typical_codes(), below=self._begins_from)

    def _typical_codes(self) -> Tensor:
        """Codes about the mean code, as far from it as codes are; the same in all processes."""
        mean, size = self.mean.value, self.generator.settings.code_size
        away = (1 - mean.square().mean()).clamp_min(0).sqrt()
        drawn = randomness.normal(self._seed, "codec-finetune/begin", range(_TYPICAL), 1, size).to(self._device)
        return project(mean + away * drawn, "sphere")

    def _critic_loss(self, batch: Batch) -> dict[str, Tensor]:
        assert self.critic is not None
        self._begin()
        with torch.no_grad():
            fake = self._make(batch.normal("random", 1, self.generator.settings.code_size), self.level, self._share())
        real, mix = shrink(batch.pixels, self.level), batch.uniform("mix", 1, 1, 1)
        cfg = self.cfg
        return critic_loss(self._score, real, fake, mix, gp_weight=cfg.gp_weight, drift=cfg.drift, slope=self.critic.slope)

    def _score(self, films: Tensor) -> Tensor:
        assert self.critic is not None
        scores: Tensor = self.critic(films, level_at(self.level), self.alpha, group=self.group)
        return scores

    def _share(self) -> Tensor | None:
        """The fade as a tensor: for compiled code a number is a constant, and a new one means compiling again."""
        return None if self.alpha is None else torch.tensor(self.alpha, device=self._device)

    def _note_codes(self) -> None:
        self.mean.update(self.cfg.mean_images)
        self.first.apply_to(self.encoder)

    def _reconstruct(self, films: Tensor) -> Tensor:
        made: Tensor = self.generator(self.encoder(films), self.level, self._share())
        return made

    def _random(self, numbers: range) -> Tensor:
        codes = randomness.normal(self._seed, "codec-finetune/samples", numbers, 1, self.generator.settings.code_size)
        made: Tensor = self.generator(codes.to(self._device), self.level, self._share())
        return made
