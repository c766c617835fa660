"""`latentray train dgm`: the disentangled generative model of Tang et al. 2021, from films that are known to be normal or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from engine import metrics
from engine.encode.codec_directory import write_aside
from engine.errors import TrainError
from engine.networks.dgm import DgmEncoder, DgmGenerator, DgmSettings
from engine.networks.dgm_head import HEAD, DgmHead, DgmHeadSettings, head_to_file
from engine.recipe import PixelRecipe
from trainers import randomness
from trainers.auc import auc
from trainers.export import MAP, Part, export_codec
from trainers.losses import dgm as losses
from trainers.nets.dgm_discriminator import MultiScaleDiscriminator, MultiScaleSettings
from trainers.presets.dgm import DgmConfig
from trainers.task import Batch, HeldOut, Phase, Stateful
from trainers.tasks.joined_codec import count_parameters, gflop

_SHOWN = 8
_AT_ONCE = 2**20  # pixels of films that are judged together


def build_dgm(cfg: DgmConfig, *, device: torch.device, seed: int) -> DgmTask:
    """The task with initial weights that depend on `seed` alone. Raises ConfigError where sizes do not fit one another."""
    critic_settings = MultiScaleSettings(scales=cfg.scales, width=cfg.critic_width, layers=cfg.critic_layers, norm=cfg.critic_norm)
    critic_settings.check_side(cfg.resolution)
    settings = DgmSettings(
        resolution=cfg.resolution, widths=cfg.widths, blocks=cfg.blocks, reconstruct=cfg.reconstruct, mlp_width=cfg.mlp_width
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(randomness.step_seed(seed, "dgm/weights", 0))
        return DgmTask(cfg, settings, MultiScaleDiscriminator(critic_settings), device=device)


class DgmTask:
    """Each step the discriminator learns first, then all encoders and decoders together, with the head where there is one.

    D_J learns whichever film the codec will give; without need for it the codec is written without it.
    """

    name = "dgm"
    group = 2  # a normal and an abnormal film: each part of a step has real films for the discriminator

    def __init__(self, cfg: DgmConfig, settings: DgmSettings, discriminator: MultiScaleDiscriminator, *, device: torch.device) -> None:
        self.cfg, self.settings, self._device = cfg, settings, device
        self.labels: tuple[str, ...] = (cfg.abnormal,)
        self.alternate = "abnormal"
        self.recipe = PixelRecipe(resolution=settings.resolution)
        self.resolution, self.batch_size, self.part_size = settings.resolution, cfg.batch, cfg.part or cfg.batch
        self.encoder = _laid_out(DgmEncoder(settings), device)
        self.generator = _laid_out(DgmGenerator(DgmSettings(**asdict(settings) | {"reconstruct": "joint"})), device)
        self.head = DgmHead(DgmHeadSettings(channels=settings.widths[-1], label=cfg.abnormal)).to(device) if cfg.head else None
        self.discriminator = _laid_out(discriminator, device)
        self._modules = [self.encoder, self.generator, *([] if self.head is None else [self.head])]
        betas = (cfg.betas[0], cfg.betas[1])
        self._optimiser, self._critic_optimiser = (
            torch.optim.Adam([p for module in modules for p in module.parameters()], lr=cfg.lr, betas=betas, weight_decay=cfg.weight_decay)
            for modules in (self._modules, [self.discriminator])
        )
        self._shown: Tensor | None = None
        self.on_images(0)

    def phases(self) -> list[Phase]:
        """The discriminator's, then that of encoders and decoders."""
        return [
            Phase(name="discriminator", modules=[self.discriminator], optimiser=self._critic_optimiser, loss=self._critic_loss),
            Phase(name="decomposition", modules=self._modules, optimiser=self._optimiser, loss=self._loss),
        ]

    def on_images(self, seen: int) -> None:
        """Sets the learning rates."""
        lr = self.cfg.lr_at(seen)
        for optimiser, rate in ((self._optimiser, 1.0), (self._critic_optimiser, self.cfg.critic_lr)):
            for group in optimiser.param_groups:
                group["lr"] = lr * rate

    def state(self) -> Mapping[str, Stateful]:
        """All networks and both optimisers."""
        found: dict[str, Stateful] = {"encoder": self.encoder, "generator": self.generator, "discriminator": self.discriminator}
        found |= {"optimiser": self._optimiser, "discriminator_optimiser": self._critic_optimiser}
        return found if self.head is None else found | {"head": self.head}

    def samples(self) -> Tensor | None:
        """Held-out abnormal films as rows of film, y', a and z' [4n, 1, R, R]; a residue of 0 is gray. None before an evaluation."""
        if self._shown is None or not len(self._shown):
            return None
        films = self._shown.to(self._device)
        with torch.no_grad():
            normal, residue = self.generator.decompose(self.encoder(films))
        return torch.stack([films, normal, residue, normal + residue], dim=1).flatten(0, 1).clamp(-1, 1)

    def evaluate(self, films: HeldOut | None) -> dict[str, float | str]:
        """On held-out films: PSNR of z' = y' + a, the mean of |a| over normal and over abnormal films and the first as a part of the second
        ("residue_ratio", the smaller the better), and the head's area under the curve. What films of one class do not tell is left out.
        """
        if films is None:
            return {}
        held_out = films(self.resolution)
        if not len(held_out):
            return {}
        is_abnormal = films.labels()[:, 0] > 0
        self._shown = held_out[is_abnormal][:_SHOWN].clone()
        errors, residues, logits = (torch.cat(parts) for parts in zip(*map(self._judge, torch.split(held_out, self._at_once)), strict=True))
        found: dict[str, float | str] = {"psnr": float(metrics.psnr_of_mse(errors).mean()), "judged_films": float(len(held_out))}
        for name, chosen in (("residue_normal", ~is_abnormal), ("residue_abnormal", is_abnormal)):
            if chosen.any():
                found[name] = float(residues[chosen].mean())
        if is_abnormal.any() and not is_abnormal.all():
            found["residue_ratio"] = float(residues[~is_abnormal].mean() / residues[is_abnormal].mean().clamp_min(1e-12))
            if self.head is not None:
                found["auc"] = auc(logits, is_abnormal)
        return found

    def summary(self) -> dict[str, Any]:
        """Weights, and GFLOP of an image's part of a step: three times what its losses take on the way forward."""
        side, device = self.resolution, self._device
        ways = {
            "encoders": gflop(self.encoder, 1, 1, side, side, device=device),
            "decoders": gflop(self._decode_all, 1, *self.settings.code_shape, device=device),
            "discriminator": gflop(lambda films: self.discriminator(films)[-1], 1, 1, side, side, device=device),
        }
        parts: dict[str, nn.Module] = {"encoder": self.encoder, "generator": self.generator, "discriminator": self.discriminator}
        return {
            "parameters": count_parameters(parts if self.head is None else parts | {"head": self.head}),
            "gflop_per_image": {name: round(3 * count, 3) for name, count in ways.items()},
        }

    def export(self, out: Path, provenance: dict[str, Any]) -> None:
        """Writes encoder and generator as a codec, and the head beside it. Codes are whatever the encoder says: none ignores its length."""
        settings, whole = self.settings, self.generator.state_dict()
        with torch.device("meta"):
            generator = DgmGenerator(settings)
        generator = generator.to_empty(device="cpu")
        generator.load_state_dict({name: whole[name] for name in generator.state_dict()})
        channels, side, _ = settings.code_shape
        export_codec(
            out,
            name=f"dgm-{channels}x{side}x{side}-at-{settings.resolution}",
            encoder=Part(network="dgm", settings=settings, module=self.encoder),
            generator=Part(network="dgm", settings=settings, module=generator),
            dims=MAP,
            shape=settings.code_shape,
            gauge="none",
            mean=None,
            recipe=self.recipe,
            storage=self.cfg.storage,
            provenance={"task": self.name, "abnormal": self.cfg.abnormal} | provenance,
        )
        if self.head is not None:
            tensors, header = head_to_file(self.head)
            try:
                write_aside(out / HEAD, save(tensors, metadata=header))
            except OSError as error:
                raise TrainError(f"head cannot be written ({error.strerror}): {out / HEAD}") from None

    def _critic_loss(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            made = self.generator.normal(self.encoder.normal(batch.pixels))
        films, is_abnormal = self._with_noise(batch.pixels, batch, "real"), batch.marks[:, 0] > 0
        loss = losses.discrimination(self.discriminator(self._with_noise(made, batch, "made")), self.discriminator(films[~is_abnormal]))
        if not self.cfg.critic_abnormal:
            return {"loss": loss}
        told = losses.recognition(self.discriminator(films[is_abnormal]))
        return {"loss": loss + self.cfg.critic_abnormal * told, "abnormal": told}

    def _loss(self, batch: Batch) -> dict[str, Tensor]:
        cfg, films, is_abnormal = self.cfg, batch.pixels, batch.marks[:, 0]
        assert self.generator.joint is not None
        codes = self.encoder(films)
        normal, residue = (part.float() for part in self.generator.decompose(codes))
        both = self.generator.joint(*self.generator.split(codes))
        found = {
            "adversarial": losses.adversarial(self.discriminator(self._with_noise(normal, batch, "made"))),
            "sum": losses.reconstruction(normal + residue, films),
            "joint": losses.reconstruction(both, films),
            "blank": losses.blankness(residue, 1 - is_abnormal),
            "variation": losses.total_variation(normal, reduction=cfg.tv),
        }
        loss = cfg.adversarial * found["adversarial"] + cfg.reconstruction * (found["sum"] + found["joint"] + found["blank"])
        loss = loss + cfg.smoothness * found["variation"]
        if self.head is not None:
            found["head"] = losses.classification(self.head(codes), is_abnormal)
            loss = loss + cfg.head * found["head"]
        return {"loss": loss} | found

    def _with_noise(self, films: Tensor, batch: Batch, name: str) -> Tensor:
        side = self.resolution
        return films + self.cfg.critic_noise * batch.normal(name, 1, side, side) if self.cfg.critic_noise else films

    def _decode_all(self, codes: Tensor) -> Tensor:
        assert self.generator.joint is not None
        return torch.cat([*self.generator.decompose(codes), self.generator.joint(*self.generator.split(codes))])

    @torch.no_grad()
    def _judge(self, films: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Squared error of z' in [0, 1] units, mean of |a|, and the head's logit, each [n], on the CPU."""
        films = films.to(self._device)
        codes = self.encoder(films)
        normal, residue = self.generator.decompose(codes)
        errors = metrics.mse(metrics.to_unit(normal + residue), metrics.to_unit(films))
        logits = torch.zeros(len(films)) if self.head is None else self.head(codes)
        return errors.cpu(), residue.abs().mean(dim=(1, 2, 3)).cpu(), logits.cpu()

    @property
    def _at_once(self) -> int:
        return max(1, _AT_ONCE // self.resolution**2)


def _laid_out(module: Any, device: torch.device) -> Any:
    return module.to(device, memory_format=torch.channels_last)
