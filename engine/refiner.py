"""Refinement made ready: objective, levels and the gradient of each on a backend, behind the parity gate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from engine.config import RefineConfig
from engine.encode.backends import build_backend
from engine.encode.codec import Codec
from engine.encode.compile import Prepared, judge
from engine.encode.fixed_batch import in_pieces
from engine.encode.graph_cache import cached_program
from engine.encode.parity import GRADIENT_LIMITS, LIMITS, Difference, probe_latents
from engine.encode.precision import DTYPES, computing_in, in_precision, without_gradients
from engine.errors import BackendError
from engine.networks.coarse import Head
from engine.refine.build_objective import Mode, WeightSource, build_objective, describe_weights, least_side
from engine.refine.descent import Film, Stage, refine
from engine.refine.gradient_step import GradientStep, by_autograd
from engine.refine.objective import Objective
from engine.refine.schedule import Level, plan_levels
from kernels.dispatch import references_only

log = logging.getLogger(__name__)


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
    for at, (backend, precision) in enumerate(options):
        try:
            step = _gradient(prepared, own, head, backend=backend, precision=precision, weights=weights)
            figures = _judge(prepared, step, own, head, backend=backend, precision=precision)
        except BackendError as error:
            if at + 1 == len(options):
                raise
            log.warning("%s; taking %s %s for it instead", error, *options[at + 1])
            continue
        metric = None if codec.metric is None else codec.metric.to(prepared.device)
        stage = Stage(level=level, features=_features(prepared, own, precision), gradient=step, metric=metric)
        return stage, {"backend": backend, "precision": precision} | figures
    raise AssertionError("there is always a choice")


def _gradient(
    prepared: Prepared, objective: Objective, head: Head | None, *, backend: str, precision: str, weights: dict[str, Any]
) -> GradientStep:
    """The gradient of one level, from tensors on any device. Raises BackendError where it does not build."""
    codec, device, dtype = prepared.codec, prepared.device, DTYPES[precision]
    generator = codec.frozen_generator(dtype or torch.float32, head=head, norm_kernel=backend in ("eager", "cudagraphs")).to(device)
    step = by_autograd(generator, objective)
    if backend == "eager":
        return without_gradients(in_precision(in_pieces(step, prepared.batch_size), device, dtype), device)
    films = _probe_films(codec, head, probe_latents(codec, 2))
    examples = (probe_latents(codec, 2), _features(prepared, objective, precision)(films))
    name = "gradient" if head is None else f"gradient-{head.resolution}"
    run: Any = step  # CUDA graphs record autograd as it runs
    if backend != "cudagraphs":
        key = {"codec": codec.digest, "graph": name, "loss": objective.weights, "weights": weights, "precision": precision}
        run = _graph(generator, objective, examples, backend=backend, precision=precision, batch_size=prepared.batch_size, key=key)
    built = build_backend(backend, run, examples, batch_size=prepared.batch_size, digest=codec.digest, name=name, precision=precision)
    return without_gradients(in_precision(built, device, dtype), device)


def _graph(
    generator: nn.Module,
    objective: Objective,
    examples: tuple[Tensor, tuple[Tensor, ...]],
    *,
    backend: str,
    precision: str,
    batch_size: int,
    key: dict[str, Any],
) -> nn.Module:
    """The one graph of the gradient; for TensorRT exported, without operators of ours, and kept in the cache for the next start."""
    from engine.refine.gradient import export_gradient, trace_gradient  # here: it loads much of torch, which eager does without

    device = examples[0].device

    def traced() -> fx.GraphModule:
        with computing_in(device, DTYPES[precision]):
            return trace_gradient(generator, objective, *examples)

    def exported() -> ExportedProgram:
        with references_only():
            return export_gradient(traced(), *examples, batch_size=batch_size)

    try:
        if backend != "tensorrt":
            return traced()
        whole = key | {"batch": batch_size, "device": str(device), "shapes": str([tuple(part.shape[1:]) for part in examples[1]])}
        return cached_program(exported, key=whole).module()
    except Exception as error:  # tracing a network meets whatever is in it
        log.debug("the gradient cannot be traced", exc_info=True)
        reason = next(iter(str(error).strip().splitlines()), "")
        raise BackendError(f"backend {backend} cannot trace the gradient: {type(error).__name__} {reason}") from error


def _judge(
    prepared: Prepared, step: GradientStep, objective: Objective, head: Head | None, *, backend: str, precision: str
) -> dict[str, Any]:
    """The gate's figures for a gradient against autograd in eager float32, on codes whose targets are the films of their opposites."""
    codec = prepared.codec
    if (backend, precision) == ("eager", "fp32") and not codec.has_frozen_generator:
        return {"skipped": "eager fp32 is what the others are compared with"}
    plain = codec.generator if head is None else codec.frozen_generator(torch.float32, head=head).to(prepared.device)
    features = {"found": _features(prepared, objective, precision), "expected": _features(prepared, objective, "fp32")}
    autograd = without_gradients(in_precision(by_autograd(plain, objective), prepared.device, None), prepared.device)
    losses: dict[str, list[Tensor]] = {"found": [], "expected": []}

    def watched(name: str, run: GradientStep) -> Any:
        def gradient(codes: Tensor) -> Tensor:
            loss, _, found = run(codes, features[name](_probe_films(codec, head, codes)))
            losses[name].append(loss)
            return found

        return gradient

    rows = min(prepared.batch_size, 3) if backend == "eager" else prepared.batch_size
    name = "gradient" if head is None else f"gradient at {head.resolution}x{head.resolution}"
    found = judge(
        *(watched("found", step), watched("expected", autograd), probe_latents(codec, rows)),
        name=name,
        backend=backend,
        precision=precision,
        limit=GRADIENT_LIMITS[precision],
    )
    difference = Difference.between(losses["found"][0][:, None], torch.cat(losses["expected"])[:, None]).relative
    if not difference <= LIMITS[precision]:
        raise BackendError(
            f"backend {backend} {precision} fails the parity gate, relative difference of the loss of its {name} stage: {difference:.2g} "
            f"(limit {LIMITS[precision]:g})"
        )
    return {"gradient": found, "loss_relative": difference}


def _features(prepared: Prepared, objective: Objective, precision: str) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """`objective.features` in this precision, in whatever types its networks give."""

    def features(targets: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad(), computing_in(prepared.device, DTYPES[precision]):
            return objective.features(targets.to(prepared.device))

    return features


def _probe_films(codec: Codec, head: Head | None, codes: Tensor) -> Tensor:
    """Films at a level's resolution for the opposite codes: targets that a descent might have."""
    with torch.no_grad(), torch.inference_mode(False):
        plain = codec.generator if head is None else codec.frozen_generator(torch.float32, head=head).to(codes.device)
        films: Tensor = plain(-codes)
    return films
