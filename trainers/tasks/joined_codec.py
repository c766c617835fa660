"""What trainings of encoders share: the generator of a codec, what is minimised, figures on held-out films, and the codec in the end."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from engine import metrics
from engine.calibrate import COARSE, fit_codec_heads, fit_codec_metric
from engine.encode.codec import METRIC, Codec, save_codec
from engine.encode.codec_spec import CodecSpec, CodeSpec, NetworkSpec, WeightsFile
from engine.encode.gauge import into_range
from engine.encode.mean_code import find_mean_code
from engine.errors import CodecError
from engine.networks.coarse import heads_to_tensors, shrink
from engine.networks.pggan import PgganGenerator
from engine.recipe import PixelRecipe
from engine.refine.build_objective import Mode, WeightSource, build_objective, describe_weights
from engine.refine.objective import Loss, Objective
from engine.sliced_wasserstein import swd
from trainers.nets.discriminator_encoder import DiscriminatorEncoder
from trainers.nets.sided_encoder import SidedEncoder

Films = Callable[[Tensor], Tensor]
"""Films [n, 1, r, r] -> what a codec makes of them, of any side."""
RandomFilms = Callable[[range], Tensor]
"""Films of random codes, by their numbers."""

_ENCODER, _GENERATOR, _MEAN = "encoder.safetensors", "generator.safetensors", "mean.safetensors"
_MEAN_CODE_SAMPLES = 256
_LEAST_SSIM = 11  # pixels: its window
_LEAST_DISTANCE = 16  # pixels: a level of its pyramid
_SHOWN = 8
_AT_ONCE = 2**20  # pixels of films that are looked at together


@dataclass(frozen=True, kw_only=True)
class ExportedCodec:
    """A codec to be written.

    `encoder` None: codes are found by refinement alone. `mean`: [1, d], in the direction of the mean code, or None where it is not known.
    `storage`: type of the weights. `frozen`: the codec whose generator this is and stays; its weights are not rounded, and its coarse
    heads and metric are kept.
    """

    encoder: SidedEncoder | DiscriminatorEncoder | None
    generator: PgganGenerator
    mean: Tensor | None
    recipe: PixelRecipe
    storage: str
    frozen: Codec | None
    loss: str
    licence: str
    provenance: dict[str, Any]

    def write(self, out: Path) -> None:
        """Writes the codec directory, with coarse heads and metric fitted to the generator where the encoder lies.

        The mean code is found if it is not known.
        """
        generator = copy.deepcopy(self.generator).cpu().eval()
        stored = self._generator_weights(generator)
        generator.load_state_dict(stored)  # as it will be read
        resolution, shape = generator.resolution, generator.code_shape
        mean = self.mean
        if mean is None or not mean.abs().max() > 0:
            with torch.no_grad():
                mean = find_mean_code(generator, shape, gauge="sphere", samples=_MEAN_CODE_SAMPLES, batch_size=4)
        weights = {_GENERATOR: stored, _MEAN: {"mean": mean.float()}}
        encoder = None
        if self.encoder is not None:
            network, settings, state = self.encoder.stored(resolution)
            encoder = NetworkSpec(network=network, settings=settings, weights=_ENCODER)
            weights[_ENCODER] = self._stored(state)
        spec = CodecSpec(
            name=f"{'' if encoder is None else encoder.network + '-'}pggan-{shape[1]}-at-{resolution}",
            encoder=encoder,
            generator=NetworkSpec(network="pggan", settings=asdict(generator.settings), weights=_GENERATOR),
            code=CodeSpec(dims=("layer", "channel"), shape=shape, gauge="sphere", mean=WeightsFile(weights=_MEAN)),
            recipe=self.recipe,
            loss=self.loss,
            licence=self.licence,
            provenance=self.provenance,
        )
        device = torch.device("cpu") if self.encoder is None else next(self.encoder.parameters()).device
        codec = self.frozen or Codec(spec, encoder=None, generator=generator, mean=None, digest="").to(device)
        heads = codec.coarse or fit_codec_heads(codec)
        metric = fit_codec_metric(codec, heads) if codec.metric is None else codec.metric
        weights[COARSE] = heads_to_tensors(heads) | {METRIC: metric}
        save_codec(out, replace(spec, coarse=WeightsFile(weights=COARSE)), weights=weights)

    def _generator_weights(self, generator: PgganGenerator) -> dict[str, Tensor]:
        """As stored: a frozen generator's weights are not rounded, but take half the room where rounding changes nothing."""
        whole, rounded = generator.state_dict(), self._stored(generator.state_dict())
        if self.frozen is not None and not all(torch.equal(value, rounded[name].float()) for name, value in whole.items()):
            return whole
        return rounded

    def _stored(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        kind = torch.float16 if self.storage == "float16" else torch.float32
        return {name: value.detach().cpu().to(kind) for name, value in state.items()}


def pggan_of(codec: Codec) -> PgganGenerator:
    """The codec's generator. Raises CodecError unless it is a PGGAN with its codes on the sphere, which is what these trainings take."""
    network = codec.generator.network
    if not isinstance(network, PgganGenerator):
        raise CodecError(f"codec's generator must be a pggan to train an encoder for it: {codec.spec.generator.network}")
    if codec.gauge != "sphere":
        raise CodecError(f"codec's gauge must be sphere, since a pggan ignores the length of codes: {codec.gauge}")
    return network


def mean_of(codec: Codec) -> Tensor | None:
    """The codec's mean code [1, d], or None where it has none."""
    return None if codec.spec.code.mean is None else codec.mean_latents(1)[0].cpu()


def objective_for(loss: Loss, *, resolution: int, lpips_net: str, lpips_size: int, weights: str) -> Objective:
    """Equation 4 of Weber et al. 2022 with the terms of `loss`. `weights`: as `RefineConfig.perceptual_weights`."""
    source = _weight_source(weights)
    return build_objective(loss, resolution=resolution, lpips_net=lpips_net, lpips_size=lpips_size, source=source)  # type: ignore[arg-type]  # checked


def weights_of(loss: Loss, *, lpips_net: str, weights: str) -> dict[str, dict[str, Any]]:
    """Which weights the terms of `loss` look through, by term; empty where none does. Raises ConfigError for files that are missing."""
    return describe_weights(loss, lpips_net=lpips_net, source=_weight_source(weights))  # type: ignore[arg-type]  # checked


def _weight_source(weights: str) -> WeightSource:
    modes: dict[str, Mode] = {"download": "download", "random": "random"}
    mode = modes.get(weights, "files")
    return WeightSource(mode=mode, folder=weights or None if mode == "files" else None, flag="--set perceptual_weights=DIR")


def film_loss(objective: Objective, films: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss and mean squared error (in [0, 1] units) of films against targets [N, 1, r, r], in float32 whatever autocast says.

    Films beyond [-1, 1] count as clamped, with the gradient of no clamp (`gauge.into_range`), as when codes are refined.
    """
    with torch.autocast(films.device.type, enabled=False):
        loss, error = objective(into_range(films.float()), objective.features(targets))
    return loss.mean(), error.mean()


class HeldOut:
    """What an encoder and a generator make of the held-out films: figures, and the first of them to look at."""

    def __init__(self) -> None:
        self.films: Tensor | None = None

    @torch.no_grad()
    def figures(self, films: Tensor, reconstruct: Films, *, side: int, random: RandomFilms | None = None) -> dict[str, float]:
        """Mean PSNR and SSIM, at `side` pixels, of what `reconstruct` makes of films [n, 1, r, r]; sliced Wasserstein distances of that and
        of `random` films. Empty without films. SSIM from 11 pixels on, distances from 16 on and for two films or more.
        """
        if not len(films):
            return {}
        self.films = films[:_SHOWN].clone()
        parts = torch.split(films, max(1, _AT_ONCE // side**2))
        made = torch.cat([reconstruct(part).clamp(-1, 1).cpu() for part in parts])
        real = torch.cat([shrink(part, side).cpu() for part in parts])
        found = {"psnr": float(metrics.psnr(metrics.to_unit(made), metrics.to_unit(real)).mean())}
        if side >= _LEAST_SSIM:
            found["ssim"] = float(metrics.ssim(metrics.to_unit(made), metrics.to_unit(real)).mean())
        if side >= _LEAST_DISTANCE and len(films) > 1:
            found["swd"] = swd(real, made)["swd_mean"]
            if random is not None:
                starts = range(0, len(films), len(parts[0]))
                drawn = [random(range(start, min(start + len(parts[0]), len(films)))).clamp(-1, 1).cpu() for start in starts]
                found["swd_random"] = swd(real, torch.cat(drawn))["swd_mean"]
        return found


def side_by_side(films: Tensor, reconstruct: Films, *, side: int) -> Tensor:
    """Films, shrunk to `side` pixels, and what becomes of them, in turns: [2n, 1, side, side]."""
    with torch.no_grad():
        made = reconstruct(films).clamp(-1, 1)
    return torch.stack([shrink(films, side), made], dim=1).flatten(0, 1)


def gflop(run: Callable[[Tensor], Tensor], *shape: int, device: torch.device) -> float:
    """GFLOP of a call on one input of this shape, a multiply and an add being two: shapes are followed, nothing is computed."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), FlopCounterMode(display=False) as counter:
        run(torch.empty(shape, device=device))
    return float(counter.get_total_flops()) / 1e9


def count_parameters(parts: Mapping[str, nn.Module]) -> dict[str, int]:
    """How many numbers each part has."""
    return {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in parts.items()}
