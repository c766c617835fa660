"""`latentray train crg`: an encoder for a StyleGAN, by the two cyclic updates of Saboo et al. 2020."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine import metrics
from engine.encode.codec import Codec
from engine.encode.gauge import into_range
from engine.encode.weights import sha256
from engine.errors import CodecError, ConfigError, SettingsChanged
from engine.networks.crg import CrgEncoder
from engine.networks.stylegan import StyleGenerator
from trainers import randomness
from trainers.export import VECTOR, Part, export_codec
from trainers.losses.crg import code_distance, content_distance, film_distances
from trainers.nets.evaluating import evaluating
from trainers.nets.mapping_network import MappingNetwork
from trainers.nets.stylegan_file import MAPPING, load_mapping, save_mapping
from trainers.presets.crg import CrgConfig
from trainers.task import Batch, HeldOut, Phase, Stateful
from trainers.tasks.joined_codec import HeldOut as Judged
from trainers.tasks.joined_codec import count_parameters, gflop, mean_of, side_by_side

_LEAST_SIDE = 11  # pixels: the window of SSIM
_SAMPLES, _JUDGED, _AT_ONCE = 8, 64, 16  # films
_PURPOSE = "crg/judged"


def build_crg(cfg: CrgConfig, *, device: torch.device, seed: int, codec: Codec, codec_folder: Path) -> CrgTask:
    """The task for a StyleGAN's generator, with a fresh encoder that depends on `seed` alone. `codec_folder`: where the codec lies.

    Raises CodecError for another generator than a StyleGAN, ConfigError where the mapping network does not lie beside the codec, does not
    fit it, or films are too small for SSIM; TrainError for a file that holds no mapping network.
    """
    generator = stylegan_of(codec)
    if codec.recipe.resolution < _LEAST_SIDE:
        raise ConfigError(f"crg compares films by SSIM, which needs {_LEAST_SIDE} pixels or more a side: {codec.recipe.resolution}")
    file = codec_folder / MAPPING
    if not file.is_file():
        raise ConfigError(
            f"crg draws codes by the mapping network that `latentray train stylegan` leaves beside its codec; missing: {file}"
        )
    mapping = load_mapping(file, device=device)
    if mapping.settings.code_size != generator.settings.code_size:
        sizes = f"{mapping.settings.code_size} and {generator.settings.code_size}"
        raise ConfigError(f"mapping network and generator must have w of one size, these are of another codec: {sizes}")
    space = cfg.space or generator.settings.space
    layers = generator.settings.layers if space == "w+" else 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(randomness.step_seed(seed, "crg/weights", 0))
        encoder = CrgEncoder(cfg.encoder(code_size=generator.settings.code_size, layers=layers))
    return CrgTask(cfg, encoder, codec, mapping, digest=sha256(file.read_bytes()), device=device, seed=seed)


def stylegan_of(codec: Codec) -> StyleGenerator:
    """The codec's generator. Raises CodecError unless it is a StyleGAN."""
    network = codec.generator.network
    if not isinstance(network, StyleGenerator):
        raise CodecError(f"codec's generator must be a stylegan to train crg for it: {codec.spec.generator.network}")
    return network


class CrgTask:
    """Each step the encoder is moved twice: by films that the generator makes of known codes, then by films as they come.

    Each update has an optimiser of its own: with one for both, most of a step by Adam's moments would be along the other update's loss.
    The generator, with its constant noise, and the mapping network stay as they are. The encoder has batch norm, so a step is never
    divided; its running statistics, by which it is judged and stored, are over films that are made, films as they come, and the
    reconstructions of those, all of which it sees. A fresh encoder's codes start around the codec's mean code, which the paper leaves open.
    """

    name = "crg"
    labels: tuple[str, ...] = ()
    alternate = ""

    def __init__(
        self, cfg: CrgConfig, encoder: CrgEncoder, codec: Codec, mapping: MappingNetwork, *, digest: str, device: torch.device, seed: int
    ) -> None:
        self.cfg, self.codec, self.mapping, self._device, self._seed = cfg, codec.to(device), mapping, device, seed
        self.generator = stylegan_of(codec)
        self.mean = _mean_code(codec, mapping, encoder.code_shape)  # [layers, code_size]
        encoder.start_at(self.mean)
        self.encoder: CrgEncoder = encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recipe = codec.recipe
        self.resolution = codec.recipe.resolution
        self._optimisers = {
            name: torch.optim.Adam(self.encoder.parameters(), lr=cfg.lr, betas=(cfg.betas[0], cfg.betas[1]), fused=True)
            for name in ("synthetic", "real")
        }
        self._pinned = _Pinned(digest)
        self._held_out = Judged()
        self.batch_size = self.part_size = self.group = cfg.batch
        self.on_images(0)

    def phases(self) -> list[Phase]:
        """The update by synthetic films, then the one by real ones."""
        losses = {"synthetic": self._synthetic, "real": self._real}
        return [
            Phase(name=name, modules=[self.encoder], optimiser=self._optimisers[name], loss=loss, clip=self.cfg.clip)
            for name, loss in losses.items()
        ]

    def on_images(self, seen: int) -> None:
        """Sets the learning rate."""
        for optimiser in self._optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = self.cfg.lr_at(seen)

    def state(self) -> Mapping[str, Stateful]:
        """The encoder with its running statistics, both optimisers, and which mapping network codes are drawn by."""
        optimisers = {f"{name}_optimiser": optimiser for name, optimiser in self._optimisers.items()}
        return {"encoder": self.encoder, **optimisers, "mapping": self._pinned}

    def samples(self) -> Tensor:
        """Films of fixed codes beside their reconstructions, then, after an evaluation, held-out films beside theirs."""
        with torch.no_grad(), evaluating(self.encoder):
            shown = [self._drawn(range(_SAMPLES))[1]]
            if self._held_out.films is not None:
                shown.append(self._held_out.films.to(self._device))
            return torch.cat([side_by_side(films, self._reconstruct, side=self.resolution) for films in shown])

    @torch.no_grad()
    def evaluate(self, films: HeldOut | None) -> dict[str, float | str]:
        """PSNR, SSIM and sliced Wasserstein distance of reconstructions of held-out films, and how well codes of 64 films that the
        generator makes are found again: `code_distance`, the mean |w - w^|, and `psnr_generated`.
        """
        found: dict[str, float | str] = {}
        with evaluating(self.encoder):
            if films is not None:
                found |= self._held_out.figures(films(self.resolution).to(self._device), self._reconstruct, side=self.resolution)
            distances, qualities = [], []
            for first in range(0, _JUDGED, _AT_ONCE):
                w, made = self._drawn(range(first, first + _AT_ONCE))
                codes = self.encoder(made)
                distances.append((codes - w).abs().mean(dim=(1, 2)))
                qualities.append(metrics.psnr(metrics.to_unit(self._make(codes)), metrics.to_unit(made)))
        return {**found, "code_distance": float(torch.cat(distances).mean()), "psnr_generated": float(torch.cat(qualities).mean())}

    def summary(self) -> dict[str, Any]:
        """Weights, and GFLOP of an image's part of each update: the encoder's way back costs two ways forward, the generator's one."""
        side, shape = self.resolution, self.encoder.code_shape
        with evaluating(self.encoder):
            coded = gflop(self.encoder, 1, 1, side, side, device=self._device)
        made = gflop(self.generator, 1, *shape, device=self._device)
        ways = {"synthetic": 3 * coded + 3 * made, "real": 6 * coded + 2 * made}
        return {
            "parameters": count_parameters({"encoder": self.encoder, "generator": self.generator, "mapping": self.mapping}),
            "gflop_per_image": {name: round(count, 3) for name, count in ways.items()},
        }

    def export(self, out: Path, provenance: dict[str, Any]) -> None:
        """Writes the codec of this encoder and the generator as it was, with the mapping network beside it, as where it came from."""
        codec, settings = self.codec, self.generator.settings
        shape = self.encoder.code_shape
        export_codec(
            out,
            name=f"crg-stylegan-{settings.code_size}-at-{self.resolution}",
            encoder=Part(network="crg", settings=self.encoder.settings, module=self.encoder),
            generator=Part(network="stylegan", settings=replace(settings, space="w+" if shape[0] > 1 else "w"), module=self.generator),
            dims=VECTOR,
            shape=shape,
            gauge="none",
            mean=self.mean,
            recipe=codec.recipe,
            provenance={
                **provenance,
                "task": self.name,
                "settings": {name: value for name, value in asdict(self.cfg).items() if name != "images"},
                "start": codec.name,
                "start_digest": codec.digest,
                "generator": codec.spec.provenance,
            },
            loss=codec.spec.loss,
            licence=codec.spec.licence,
        )
        save_mapping(out / MAPPING, self.mapping)

    def _synthetic(self, batch: Batch) -> dict[str, Tensor]:
        """L_total^syn: L1(w, w^) + L2(x, x^) + SSIM(x, x^) + content on the generator's features; z -> w -> x = G(w) -> w^ -> x^."""
        with torch.no_grad():
            w = self.mapping(batch.normal("z", self.generator.settings.code_size))[:, None]
            maps, films = self._features(w)
        codes = self.encoder(films)
        others, made = self._features(codes)
        return self._total(made, films, content_distance(maps, others), code=code_distance(w, codes))

    def _real(self, batch: Batch) -> dict[str, Tensor]:
        """L_total^real: L2(I, I^) + SSIM(I, I^) + content on the encoder's features; I -> w^ -> I^ = G(w^), then E's features of I^.

        As the paper writes it, the content loss moves the encoder by all ways: as what codes I, and as what sees I and I^.
        """
        codes, maps = self.encoder.coded(batch.pixels)
        made = self._make(codes)
        return self._total(made, batch.pixels, content_distance(maps, self.encoder.features(made)))

    def _total(self, made: Tensor, films: Tensor, content: Tensor, code: Tensor | None = None) -> dict[str, Tensor]:
        cfg = self.cfg
        error, dissimilarity = film_distances(made, films)
        loss = cfg.films * error + cfg.ssim * dissimilarity + cfg.content * content
        found = {"mse": error, "ssim": dissimilarity, "content": content}
        return {"loss": loss, **found} if code is None else {"loss": loss + cfg.code * code, **found, "code": code}

    def _features(self, codes: Tensor) -> tuple[list[Tensor], Tensor]:
        """The generator's hidden features G_i of codes [N, 1 or L, C], and their films."""
        maps = self.generator.features(codes)
        return maps, into_range(self.generator.to_gray(maps[-1]).float())

    def _make(self, codes: Tensor) -> Tensor:
        """Films [N, 1, R, R] in [-1, 1] of codes [N, 1 or L, C], whichever space the codec itself has."""
        return into_range(self.generator(codes).float())

    def _reconstruct(self, films: Tensor) -> Tensor:
        return self._make(self.encoder(films))

    @torch.no_grad()
    def _drawn(self, numbers: range) -> tuple[Tensor, Tensor]:
        """Codes w [n, 1, C] that training does not draw, and their films: the same each time."""
        return draw_films(self.mapping, self._make, seed=self._seed, numbers=numbers, purpose=_PURPOSE)


def draw_films(
    mapping: MappingNetwork, make: Callable[[Tensor], Tensor], *, seed: int, numbers: range, purpose: str
) -> tuple[Tensor, Tensor]:
    """Random codes w [n, 1, C] by their numbers, and what `make` makes of them: the same for equal seed and purpose."""
    z = randomness.normal(seed, purpose, numbers, mapping.settings.code_size)
    w: Tensor = mapping(z.to(mapping.mean.device))[:, None]
    return w, make(w)


def _mean_code(codec: Codec, mapping: MappingNetwork, shape: tuple[int, ...]) -> Tensor:
    """The codec's mean code as [layers, code_size] of the encoder's space; that of the mapping network where the codec has none."""
    mean = mean_of(codec)
    known = mapping.mean[None] if mean is None else mean
    if len(known) != shape[0]:
        known = known.mean(dim=0, keepdim=True).expand(shape)
    return known.detach().float().cpu().clone()


class _Pinned:
    """Which mapping network a run was begun with, by its digest: the file lies beside the codec, whose own digest does not cover it."""

    def __init__(self, digest: str) -> None:
        self._digest = digest

    def state_dict(self) -> dict[str, Any]:
        return {"digest": self._digest}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        if state.get("digest") != self._digest:
            raise SettingsChanged(f"run was begun with other settings: mapping network was {state.get('digest')}, is {self._digest}")
