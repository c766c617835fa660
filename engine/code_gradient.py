"""The gradient in codes of what their films are judged by, built on a backend behind the parity gate: for refinement and for climbing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from engine.encode.backends import build_backend
from engine.encode.codec import Codec
from engine.encode.compile import judge
from engine.encode.fixed_batch import in_pieces
from engine.encode.graph_cache import cached_program
from engine.encode.parity import GRADIENT_LIMITS, LIMITS, Difference, probe_latents
from engine.encode.precision import DTYPES, computing_in, in_precision, without_gradients
from engine.errors import BackendError
from engine.networks.coarse import Head
from engine.refine.gradient_step import Features, GradientStep, by_autograd
from kernels.dispatch import references_only

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Criterion:
    """What films are judged by: `objective`, frozen and on the codec's device, makes of films [n, 1, r, r] and features two figures [n].

    The gradient is that of the first one's sum. `features`: codes [n, *shape] and a precision by its name -> what the objective keeps of
    targets, as such codes might meet them; tracing and the gate ask for it. `head` makes coarse films. `key`: what a graph depends on
    beside codec, head and precision, as plain JSON values. `word`: what the first figure is called. `unit`: the least size that its
    differences are measured against, for one that may well be 0. `limits`: of the gate by precision, for the gradient and that figure.
    """

    objective: nn.Module
    features: Callable[[Tensor, str], Features]
    key: Mapping[str, Any]
    head: Head | None = None
    word: str = "loss"
    unit: float = 0.0
    limits: tuple[Mapping[str, float], Mapping[str, float]] = (GRADIENT_LIMITS, LIMITS)


def build_gradient(
    codec: Codec, criterion: Criterion, options: Sequence[tuple[str, str]], *, batch_size: int
) -> tuple[GradientStep, dict[str, Any]]:
    """The gradient on the first of `options`, (backend, precision), that builds and passes the gate; the gate's figures, with that choice.

    It takes tensors from any device, any number of rows, no more than `batch_size` at once. What is refused is logged in one line with its
    figures. Raises BackendError where nothing is left.
    """
    for at, (backend, precision) in enumerate(options):
        try:
            step = _built(codec, criterion, backend=backend, precision=precision, batch_size=batch_size)
            figures = judge_gradient(codec, step, criterion, backend=backend, precision=precision, batch_size=batch_size)
        except BackendError as error:
            if at + 1 == len(options):
                raise
            log.warning("%s; taking %s %s for it instead", error, *options[at + 1])
            continue
        return step, {"backend": backend, "precision": precision} | figures
    raise AssertionError("there is always a choice")


def _built(codec: Codec, criterion: Criterion, *, backend: str, precision: str, batch_size: int) -> GradientStep:
    device, dtype, head = codec.device, DTYPES[precision], criterion.head
    generator = codec.frozen_generator(dtype or torch.float32, head=head, norm_kernel=backend in ("eager", "cudagraphs")).to(device)
    step = by_autograd(generator, criterion.objective)
    if backend == "eager":
        return without_gradients(in_precision(in_pieces(step, batch_size), device, dtype), device)
    codes = probe_latents(codec, 2)
    examples = (codes, criterion.features(codes, precision))
    name = "gradient" if head is None else f"gradient-{head.resolution}"
    run: Any = step  # CUDA graphs record autograd as it runs
    if backend != "cudagraphs":
        key = {"codec": codec.digest, "graph": name, "precision": precision, **criterion.key}
        run = _graph(generator, criterion.objective, examples, backend=backend, precision=precision, batch_size=batch_size, key=key)
    built = build_backend(backend, run, examples, batch_size=batch_size, digest=codec.digest, name=name, precision=precision)
    return without_gradients(in_precision(built, device, dtype), device)


def _graph(
    generator: nn.Module,
    objective: nn.Module,
    examples: tuple[Tensor, Features],
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


def judge_gradient(
    codec: Codec, step: GradientStep, criterion: Criterion, *, backend: str, precision: str, batch_size: int
) -> dict[str, Any]:
    """The gate's figures for a gradient against autograd in eager float32. Raises BackendError with them where they are too large."""
    if (backend, precision) == ("eager", "fp32") and not codec.has_frozen_generator:
        return {"skipped": "eager fp32 is what the others are compared with"}
    (gradient_limits, value_limits), head, device = criterion.limits, criterion.head, codec.device
    plain = codec.generator if head is None else codec.frozen_generator(torch.float32, head=head).to(device)
    autograd = without_gradients(in_precision(by_autograd(plain, criterion.objective), device, None), device)
    values: dict[str, list[Tensor]] = {"found": [], "expected": []}

    def watched(name: str, run: GradientStep, precision: str) -> Any:
        def gradient(codes: Tensor) -> Tensor:
            value, _, found = run(codes, criterion.features(codes, precision))
            values[name].append(value)
            return found

        return gradient

    rows = min(batch_size, 3) if backend == "eager" else batch_size
    name = "gradient" if head is None else f"gradient at {head.resolution}x{head.resolution}"
    found = judge(
        *(watched("found", step, precision), watched("expected", autograd, "fp32"), probe_latents(codec, rows)),
        name=name,
        backend=backend,
        precision=precision,
        limit=gradient_limits[precision],
    )
    sizes = (_sized(values["found"][0], criterion.unit), _sized(torch.cat(values["expected"]), criterion.unit))
    difference = Difference.between(*sizes).relative
    if not difference <= value_limits[precision]:
        raise BackendError(
            f"backend {backend} {precision} fails the parity gate, relative difference of the {criterion.word} of its {name} stage: "
            f"{difference:.2g} (limit {value_limits[precision]:g})"
        )
    return {"gradient": found, f"{criterion.word}_relative": difference}


def _sized(values: Tensor, unit: float) -> Tensor:
    """[n] -> rows [n, 2] whose length is the value's, or `unit` where that is next to nothing."""
    return torch.stack([values, torch.full_like(values, unit)], dim=1)
