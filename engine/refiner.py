"""Refinement made ready: objective, levels and the gradient of each on a backend, behind the parity gate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.code_gradient import Criterion, build_gradient
from engine.config import RefineConfig
from engine.encode.codec import Codec
from engine.encode.compile import Prepared
from engine.encode.precision import DTYPES, computing_in
from engine.networks.coarse import Head
from engine.refine.build_objective import Mode, WeightSource, build_objective, describe_weights, least_side
from engine.refine.descent import Film, Stage, refine
from engine.refine.objective import Objective
from engine.refine.schedule import Level, plan_levels


@dataclass(frozen=True, kw_only=True)
class Refiner:
    """The levels of refinement on their backends. `parity`: the gate's figures by level, with the backend and precision of each."""

    stages: tuple[Stage, ...]
    cfg: RefineConfig
    prepared: Prepared
    parity: dict[str, Any]

    def run(self, films: Iterable[Film], *, at_most: int | None = None) -> Iterator[Film]:
        """Refines films on their way through slots, as many as a batch has rows; see `refine.descent.refine`.

        `at_most`: how many films there can be, where that is known, so that a few films get no more slots than they fill.
        """
        slots = self.prepared.batch_size if at_most is None else max(1, min(self.prepared.batch_size, at_most))
        return refine(films, self.stages, self.prepared.project, self.cfg, slots=slots)


def build_refiner(prepared: Prepared, cfg: RefineConfig) -> Refiner:
    """Loads what the loss needs and builds the gradient of each level that `cfg.steps` steps are shared out to.

    Takes seconds, or minutes where it compiles. The gradient runs on the backend and in the precision of the codec; where it does not
    build there or fails the gate, one line says so with the figures, and the next of `prepared.fallbacks` is taken. Raises BackendError
    where there is none, ConfigError as `refine.build_objective.build_objective`.
    """
    codec = prepared.codec
    objective = build_objective(
        cfg.loss, resolution=codec.recipe.resolution, lpips_net=cfg.lpips_net, lpips_size=cfg.lpips_size, source=weight_source(cfg)
    ).to(prepared.device)
    levels = levels_of(codec, cfg)
    weights = weights_of(cfg)
    stages, parity = [], {}
    for level in levels:
        built, figures = _build_level(prepared, objective, level, weights=weights)
        stages.append(built)
        parity[str(level.resolution)] = figures
    return Refiner(stages=tuple(stages), cfg=cfg, prepared=prepared, parity=parity)


def levels_of(codec: Codec, cfg: RefineConfig) -> list[Level]:
    """The levels of a refinement of this codec, at least one step long: coarse ones where it has heads and a term of the loss works."""
    least = least_side(cfg.loss, lpips_net=cfg.lpips_net)
    coarse = [resolution for resolution in sorted(codec.coarse) if resolution >= least] if cfg.coarse else []
    return plan_levels(cfg.steps, full=codec.recipe.resolution, coarse=coarse)


def weights_of(cfg: RefineConfig) -> dict[str, dict[str, Any]]:
    """Which weights the terms of the loss get on this machine, for the fingerprint. Raises ConfigError as `describe_weights`."""
    return describe_weights(cfg.loss, lpips_net=cfg.lpips_net, source=weight_source(cfg))


def weight_source(cfg: RefineConfig) -> WeightSource:
    """Where the weights of perceptual terms come from, as `--weights` has it."""
    modes: dict[str, Mode] = {"download": "download", "random": "random"}
    mode = modes.get(cfg.perceptual_weights, "files")
    return WeightSource(mode=mode, folder=cfg.perceptual_weights or None if mode == "files" else None)


def _build_level(prepared: Prepared, objective: Objective, level: Level, *, weights: dict[str, Any]) -> tuple[Stage, dict[str, Any]]:
    codec, is_last = prepared.codec, level.resolution == prepared.codec.recipe.resolution
    head = None if is_last else codec.coarse[level.resolution]
    own = objective if is_last else objective.at(level.resolution)
    options = ((prepared.backend, prepared.precision), *prepared.fallbacks)
    gradient, figures = build_gradient(codec, criterion_of(codec, own, head, weights=weights), options, batch_size=prepared.batch_size)
    metric = None if codec.metric is None else codec.metric.to(prepared.device)
    features = _features(codec, own, figures["precision"])
    return Stage(level=level, features=features, gradient=gradient, metric=metric), figures


def criterion_of(codec: Codec, objective: Objective, head: Head | None, *, weights: dict[str, Any]) -> Criterion:
    """A level's objective as what its gradient is built for; where an example is wanted, targets are the films of opposite codes."""

    def features(codes: Tensor, precision: str) -> tuple[Tensor, ...]:
        return _features(codec, objective, precision)(_probe_films(codec, head, codes))

    return Criterion(objective=objective, features=features, head=head, key={"loss": objective.weights, "weights": weights})


def _features(codec: Codec, objective: Objective, precision: str) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """`objective.features` in this precision, in whatever types its networks give."""

    def features(targets: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad(), computing_in(codec.device, DTYPES[precision]):
            return objective.features(targets.to(codec.device))

    return features


def _probe_films(codec: Codec, head: Head | None, codes: Tensor) -> Tensor:
    """Films at a level's resolution for the opposite codes: targets that a descent might have."""
    with torch.no_grad(), torch.inference_mode(False):
        plain = codec.generator if head is None else codec.frozen_generator(torch.float32, head=head).to(codes.device)
        films: Tensor = plain(-codes)
    return films
