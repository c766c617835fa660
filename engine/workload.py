"""How much work a film is: operations counted from the networks and the schedule, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import RefineConfig
from engine.decompose import films_are_sums
from engine.encode.codec import Codec
from engine.encode.cost import codec_cost
from engine.errors import ConfigError
from engine.refine.build_objective import check_objective, loss_gflop
from engine.refiner import levels_of


@dataclass(frozen=True, kw_only=True)
class LevelWork:
    """A level of refinement: GFLOP of one step of a film, of the generator and of each term of the loss, each with its gradient.

    `gflop` is the whole level at the end of its budget: a step more than `steps`, since the last code is weighed too, and the target once.
    """

    resolution: int
    steps: int
    generator: float
    loss: dict[str, float]
    gflop: float


@dataclass(frozen=True, kw_only=True)
class FilmWork:
    """GFLOP of one film by part; `metrics` is that of its reconstructions, `maps` that of the parts it is taken into."""

    encode: float
    refine: tuple[LevelWork, ...]
    metrics: float
    maps: float = 0.0

    @property
    def gflop(self) -> float:
        """All of it."""
        return self.encode + sum(level.gflop for level in self.refine) + self.metrics + self.maps


def film_work(codec: Codec, cfg: RefineConfig, *, metrics: bool = False, maps: bool = False) -> FilmWork:
    """What coding one film costs, refined to the end of its budget; with `metrics` also the films that quality is measured on, with
    `maps` the parts of a film, whose sum is then measured where it is the film."""
    cost = codec_cost(codec)
    full = codec.recipe.resolution
    planned = levels_of(codec, cfg) if cfg.steps else []
    levels = []
    for level in planned:
        loss = _loss_work(cfg, level.resolution)
        once = sum(loss.values()) / 2  # of the target, which has no gradient
        generator = cost.gradient[level.resolution]
        if level.resolution == full and len(planned) > 1:
            once += generator + sum(loss.values())  # the encoder's code is weighed again at full size
        whole = (level.steps + 1) * (generator + sum(loss.values())) + once
        levels.append(LevelWork(resolution=level.resolution, steps=level.steps, generator=generator, loss=loss, gflop=whole))
    # a refined film is compared twice: as its encoder's code makes it, and as it is stored
    times = 0 if maps and films_are_sums(codec) else 1 + bool(levels)
    return FilmWork(
        encode=cost.encode,
        refine=tuple(levels),
        metrics=cost.generate * times if metrics else 0.0,
        maps=cost.decompose if maps else 0.0,
    )


def film_gigaflops(codec: Codec, cfg: RefineConfig) -> float:
    """GFLOP of coding one film and refining it to the end of its budget."""
    return film_work(codec, cfg).gflop


def _loss_work(cfg: RefineConfig, side: int) -> dict[str, float]:
    """GFLOP of each term in a step on films of `side` pixels, without those that `Objective.at` leaves out there."""
    size = cfg.lpips_size if cfg.lpips_size < side else 0
    terms = []
    for term in cfg.loss:
        try:
            check_objective((term,), resolution=side, lpips_net=cfg.lpips_net, lpips_size=size)
        except ConfigError:
            continue  # too small a film for it; at full size the request was refused
        terms.append(term)
    return loss_gflop(tuple(terms), side, lpips_net=cfg.lpips_net, lpips_size=size)
