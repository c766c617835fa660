"""Makes a codec ready for work: chooses device, precision and backend, and lets the parity gate judge the choice."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.config import Backend, Precision
from engine.encode.backends import build_backend, check_backend, choices, find_device
from engine.encode.codec import Codec
from engine.encode.cost import encode_gflop
from engine.encode.light_work import LIGHT_GFLOP, in_one_thread
from engine.encode.parity import Stage, measure_parity, probe_latents, probe_pixels
from engine.encode.precision import DTYPES, in_precision, without_gradients
from engine.errors import BackendError

__all__ = ["Prepared", "Stage", "check_backend", "prepare"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A codec on its device. `encode` and `generate` take tensors from any device and work without gradients.

    `encode`: pixels [n, 1, R, R] in [-1, 1] -> codes [n, *shape] float32 on the gauge; the mean code for each film where the codec has no
    encoder. `generate`: codes -> pixels [n, 1, R, R] float32 in [-1, 1]; raises RuntimeError where no films were asked for.
    Precision "fp32" is whole float32, not the TF32 of GPUs.
    `parity`: the gate's figures by stage, as plain JSON values. `fallbacks`: the choices that were left when this one was taken, as
    (backend, precision), for the gradient of refinement; none where a backend and a precision were asked for by name.
    """

    codec: Codec
    device: torch.device
    backend: str
    precision: str
    batch_size: int
    encode: Stage
    generate: Stage
    parity: dict[str, Any]
    fallbacks: tuple[tuple[str, str], ...] = ()

    @property
    def project(self) -> Stage:
        """Puts codes on the codec's gauge."""
        return self.codec.project


def prepare(
    codec: Codec,
    *,
    backend: Backend,
    precision: Precision,
    batch_size: int,
    device: str | None = None,
    gigaflops: float = 0.0,
    makes_films: bool = True,
) -> Prepared:
    """Moves the codec to `device` (the GPU where there is one), compiles it and checks it; takes seconds to minutes.

    "auto" is what `backends.choices` says for this codec, its device and `gigaflops`, the work that lies ahead; what the gate refuses is
    logged with its figures, and the next choice is taken. With `makes_films` False the generator is neither built nor judged, which for a
    heavy codec is most of the time.
    Raises BackendError where a backend or precision that was asked for is not available, does not build, or fails the gate.
    """
    codec.to(find_device(device))
    return _first_accepted(codec, choices(codec, backend, precision, gigaflops=gigaflops), batch_size=batch_size, makes_films=makes_films)


def _first_accepted(codec: Codec, options: list[tuple[str, str]], *, batch_size: int, makes_films: bool = True) -> Prepared:
    for at, (backend, precision) in enumerate(options):
        left = tuple(options[at + 1 :])
        try:
            return _build(codec, backend, precision, batch_size=batch_size, left=left, makes_films=makes_films)
        except BackendError as error:
            if not left:
                raise
            log.warning("%s; taking %s %s instead", error, *left[0])
    raise AssertionError("there is always a choice")


def _build(
    codec: Codec, backend: str, precision: str, *, batch_size: int, left: tuple[tuple[str, str], ...], makes_films: bool
) -> Prepared:
    def stage(name: str, network: nn.Module, probe: Callable[[Codec, int], Tensor], dtype: torch.dtype | None) -> Stage:
        run = build_backend(
            backend, network, (probe(codec, 2),), batch_size=batch_size, digest=codec.digest, name=name, precision=precision
        )
        return without_gradients(in_precision(run, codec.device, dtype), codec.device)

    dtype = DTYPES[precision]
    generate = None
    if makes_films:
        generator = codec.frozen_generator(dtype or torch.float32, norm_kernel=backend in ("eager", "cudagraphs")).to(codec.device)
        generate = stage("generate", generator, probe_latents, None if codec.has_frozen_generator else dtype)
    encode = _mean_of(codec) if codec.encoder is None else stage("encode", codec.encoder, probe_pixels, dtype)
    if codec.device.type == "cpu" and encode_gflop(codec) < LIGHT_GFLOP:
        encode = in_one_thread(encode)
    return Prepared(
        codec=codec,
        device=codec.device,
        backend=backend,
        precision=precision,
        batch_size=batch_size,
        encode=encode,
        generate=generate or _no_films,
        parity=_judge(codec, encode, generate, backend=backend, precision=precision, batch_size=batch_size),
        fallbacks=left,
    )


def _judge(codec: Codec, encode: Stage, generate: Stage | None, *, backend: str, precision: str, batch_size: int) -> dict[str, Any]:
    """The figures of the stages that there are; raises BackendError with them where one fails."""
    is_reference = (backend, precision) == ("eager", "fp32")
    if is_reference and codec.device.type == "cpu" and not codec.has_frozen_generator:
        return {"skipped": "eager fp32 is what the others are compared with"}
    rows = min(batch_size, 3) if backend == "eager" else batch_size  # eager has no batch shape of its own to get wrong
    stages: list[tuple[str, Stage, Stage, Callable[[Codec, int], Tensor]]] = []
    if codec.has_encoder:
        stages.append(("encode", encode, codec.encode, probe_pixels))
    if generate is not None:
        stages.append(("generate", generate, codec.generate, probe_latents))
    figures = {}
    for name, stage, eager, probe in stages:
        compares = not is_reference or (name == "generate" and codec.has_frozen_generator)
        reference = without_gradients(in_precision(eager, codec.device, None), codec.device) if compares else None
        figures[name] = judge(stage, reference, probe(codec, rows), name=name, backend=backend, precision=precision)
    return figures


def judge(
    stage: Stage, reference: Stage | None, probe: Tensor, *, name: str, backend: str, precision: str, limit: float | None = None
) -> Any:
    """The gate's figures of one stage, as plain JSON values; raises BackendError with them where it does not build, run or pass."""
    try:
        found = measure_parity(stage, reference, probe, precision=precision, limit=limit)
    except Exception as error:  # a compiler raises whatever it likes, from its own classes to bare ones
        log.debug("%s %s does not build", backend, precision, exc_info=True)
        reason = next(iter(str(error).strip().splitlines()), "")
        raise BackendError(
            f"backend {backend} {precision} does not build or run its {name} stage: {type(error).__name__} {reason}"
        ) from error
    if found.faults():
        raise BackendError(
            f"backend {backend} {precision} fails the parity gate, relative difference of its {name} stage: {', '.join(found.faults())}"
        )
    return found.to_json()


def _no_films(latents: Tensor) -> Tensor:
    raise RuntimeError("this codec was prepared to make no films")


def _mean_of(codec: Codec) -> Stage:
    return lambda pixels: codec.mean_latents(len(pixels))
