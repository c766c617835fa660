"""How far an encoder is behind direct optimisation, on films that a StyleGAN makes of random codes (Saboo et al. 2020, figure 2B)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine import metrics
from engine.config import RefineConfig, check_at_least
from engine.encode.codec import Codec
from engine.encode.compile import Prepared, prepare
from engine.refine.descent import Film
from engine.refiner import build_refiner
from trainers.nets.mapping_network import MappingNetwork
from trainers.tasks.crg import draw_films, stylegan_of

_AT_ONCE = 8
_PURPOSE = "crg/inversion"


@dataclass(frozen=True, kw_only=True)
class InversionFigures:
    """What `judge_inversion` finds, PSNR in dB as means over `films` generated films.

    `encoder`: of G(E(x)). `direct`: of the codes that `steps` steps of refinement find from the mean code. `mean_code`: of that code's own
    film, where the refinement starts.
    """

    films: int
    steps: int
    encoder: float
    direct: float
    mean_code: float

    @property
    def behind(self) -> float:
        """By how many dB the encoder is behind direct optimisation; negative where it is ahead."""
        return self.direct - self.encoder


def judge_inversion(codec: Codec, mapping: MappingNetwork, *, seed: int, count: int, steps: int, lr: float = 0.2) -> InversionFigures:
    """Makes films 0 to `count` - 1 of series `seed` by the codec's StyleGAN and finds their codes again, by its encoder and directly.

    Each film has one random w for all layers. Direct optimisation is the engine's refinement of the mean squared error by L-BFGS in the
    codec's own space, started from its mean code; `lr` as `RefineConfig`. On the codec's device, in float32.
    Raises CodecError for a codec without encoder, without mean code or of another generator, ConfigError for a count or steps under 1.
    """
    stylegan_of(codec)
    check_at_least("count", count, 1)
    check_at_least("steps", steps, 1)
    start = codec.mean_latents(1)[0]
    mapping = mapping.to(codec.device)
    layers = codec.code_shape[0]
    numbers = [range(first, min(first + _AT_ONCE, count)) for first in range(0, count, _AT_ONCE)]
    with torch.no_grad():
        films = torch.cat(
            [
                draw_films(mapping, lambda w: codec.generate(w.expand(-1, layers, -1)), seed=seed, numbers=part, purpose=_PURPOSE)[1]
                for part in numbers
            ]
        )
        found = torch.cat([codec.encode(part) for part in torch.split(films, _AT_ONCE)])
    prepared = prepare(codec, backend="eager", precision="fp32", batch_size=min(_AT_ONCE, count), device=str(codec.device))
    refined = _refined(prepared, films, start, RefineConfig(steps=steps, lr=lr))
    return InversionFigures(
        films=count,
        steps=steps,
        encoder=_quality(prepared, found, films),
        direct=_quality(prepared, refined, films),
        mean_code=_quality(prepared, start.expand(count, *start.shape), films),
    )


def _refined(prepared: Prepared, films: Tensor, start: Tensor, cfg: RefineConfig) -> Tensor:
    """The best code of each film [count, *shape] among the start and those after it."""
    codes: dict[int, Tensor] = {}
    stream = (Film(key=key, pixels=film, start=start.clone(), code=start.clone()) for key, film in enumerate(films))
    for film in build_refiner(prepared, cfg).run(stream, at_most=len(films)):
        assert isinstance(film.key, int)
        codes[film.key] = film.code
    return torch.stack([codes[key] for key in range(len(films))])


def _quality(prepared: Prepared, codes: Tensor, films: Tensor) -> float:
    made = torch.cat([prepared.generate(part) for part in torch.split(codes, _AT_ONCE)])
    return float(metrics.psnr(metrics.to_unit(made), metrics.to_unit(films.to(made.device))).mean())
