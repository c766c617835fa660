"""Makes a codec ready for work: chooses device, precision and backend, and lets the parity gate judge the choice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.config import Backend, Precision
from engine.encode.codec import Codec
from engine.encode.inductor import CompiledStage
from engine.encode.parity import Stage, measure_parity, probe_latents, probe_pixels
from engine.errors import BackendError

log = logging.getLogger(__name__)

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Prepared:
    """A codec on its device. `encode` and `generate` take tensors from any device and work without gradients.

    `encode`: pixels [n, 1, R, R] in [-1, 1] -> codes [n, *shape] float32 on the gauge; the mean code for each film where the codec has no
    encoder. `generate`: codes -> pixels [n, 1, R, R] float32 in [-1, 1]. `generate_with_grad`: the same, differentiable in the codes, which
    must lie on the device, for refinement; always eager, since the gate looks at values and not at gradients. Precision "fp32" is whole
    float32, not the TF32 of GPUs; only the gradients, which are made outside, have the precision that torch is set to.
    `parity`: the gate's figures by stage, as plain JSON values.
    """

    codec: Codec
    device: torch.device
    backend: str
    precision: str
    encode: Stage
    generate: Stage
    generate_with_grad: Stage
    parity: dict[str, Any]

    @property
    def project(self) -> Stage:
        """Puts codes on the codec's gauge."""
        return self.codec.project


def prepare(codec: Codec, *, backend: Backend, precision: Precision, batch_size: int, device: str | None = None) -> Prepared:
    """Moves the codec to `device` (the GPU where there is one), compiles it and checks it; takes seconds to minutes.

    "auto" precision is float32 on a CPU, and on a GPU bfloat16 autocast, which leaves norms and sums in float32. "auto" backend is Inductor
    on a GPU, then eager, and eager on a CPU; what the gate refuses is logged with its figures, and the next choice is taken.
    Raises BackendError where a backend or precision that was asked for is not available, does not build, or fails the gate.
    """
    place = _device(device)
    codec.to(place)
    return _first_accepted(codec, _choices(backend, precision, place), batch_size=batch_size)


def check_backend(backend: Backend) -> None:
    """Raises BackendError for a backend that no machine has in this version, so that a job can refuse it before it writes anything."""
    if backend == "tensorrt":
        raise BackendError("backend is not available in this version, use --backend auto, inductor or eager: tensorrt")


def _first_accepted(codec: Codec, choices: list[tuple[str, str]], *, batch_size: int) -> Prepared:
    for at, (backend, precision) in enumerate(choices):
        try:
            return _build(codec, backend, precision, batch_size=batch_size)
        except BackendError as error:
            if at + 1 == len(choices):
                raise
            log.warning("%s; taking %s %s instead", error, *choices[at + 1])
    raise AssertionError("there is always a choice")


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise BackendError(f"device must be cpu, cuda or cuda:N: {name}") from None
    if device.type not in ("cpu", "cuda"):
        raise BackendError(f"device must be cpu, cuda or cuda:N: {name}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BackendError(f"no such GPU here (found {torch.cuda.device_count()}): {name}")
    return device


def _choices(backend: Backend, precision: Precision, device: torch.device) -> list[tuple[str, str]]:
    """What to try, in order: (backend, precision)."""
    check_backend(backend)
    on_gpu = device.type == "cuda"
    backends = [backend] if backend != "auto" else ["inductor", "eager"] if on_gpu else ["eager"]
    precisions = [precision] if precision != "auto" else ["bf16", "fp32"] if on_gpu else ["fp32"]
    return [(chosen, digits) for digits in precisions for chosen in backends]


def _build(codec: Codec, backend: str, precision: str, *, batch_size: int) -> Prepared:
    encoder: Stage
    generator: Stage
    if backend == "inductor":
        generator = CompiledStage(codec.generator, batch_size=batch_size)
        encoder = CompiledStage(codec.encoder, batch_size=batch_size) if codec.encoder is not None else _mean_of(codec)
    else:
        generator = _in_pieces(codec.generate, batch_size)
        encoder = _in_pieces(codec.encode, batch_size) if codec.has_encoder else _mean_of(codec)
    encode, generate = (_without_gradients(_autocast(stage, codec, precision), codec) for stage in (encoder, generator))
    if (backend, precision, codec.device.type) == ("eager", "fp32", "cpu"):
        parity = {"skipped": "eager fp32 is what the others are compared with"}
    else:
        parity = _judge(codec, encode, generate, backend=backend, precision=precision, batch_size=batch_size)
    return Prepared(
        codec=codec,
        device=codec.device,
        backend=backend,
        precision=precision,
        encode=encode,
        generate=generate,
        generate_with_grad=_autocast(codec.generate, codec, precision),
        parity=parity,
    )


def _judge(codec: Codec, encode: Stage, generate: Stage, *, backend: str, precision: str, batch_size: int) -> dict[str, Any]:
    """The figures of both stages; raises BackendError with them where one fails."""
    name, is_reference = f"backend {backend} {precision}", (backend, precision) == ("eager", "fp32")
    stages: list[tuple[str, Stage, Stage, Callable[[Codec, int], Tensor]]] = [("generate", generate, codec.generate, probe_latents)]
    if codec.has_encoder:
        stages.insert(0, ("encode", encode, codec.encode, probe_pixels))
    figures = {}
    for stage_name, stage, eager, probe in stages:
        reference = None if is_reference else _without_gradients(_autocast(eager, codec, "fp32"), codec)
        try:
            found = measure_parity(stage, reference, probe(codec, batch_size), precision=precision)
        except Exception as error:  # a compiler raises whatever it likes, from its own classes to bare ones
            log.debug("%s does not build", name, exc_info=True)
            reason = next(iter(str(error).strip().splitlines()), "")
            raise BackendError(f"{name} does not build or run its {stage_name} stage: {type(error).__name__} {reason}") from error
        if found.faults():
            raise BackendError(f"{name} fails the parity gate, relative difference of its {stage_name} stage: {', '.join(found.faults())}")
        figures[stage_name] = found.to_json()
    return figures


def _mean_of(codec: Codec) -> Stage:
    return lambda pixels: codec.mean_latents(len(pixels))


def _in_pieces(stage: Stage, batch_size: int) -> Stage:
    """No more than `batch_size` rows at once, whatever the caller has."""
    return lambda rows: torch.cat([stage(piece) for piece in torch.split(rows, batch_size)])


def _autocast(stage: Stage, codec: Codec, precision: str) -> Stage:
    """`stage` in this precision, its results in float32."""
    dtype = _DTYPES[precision]

    def run(rows: Tensor) -> Tensor:
        with _whole_float32() if dtype is None else torch.autocast(codec.device.type, dtype=dtype):
            return stage(rows).float()

    return run


@contextmanager
def _whole_float32() -> Iterator[None]:
    """No TF32, which has 11 bits instead of 24, and which torch takes for convolutions on a GPU unless told not to."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def _without_gradients(stage: Stage, codec: Codec) -> Stage:
    """`stage` on the codec's device, outside inference mode: its tensors could not take part in a gradient when codes are refined."""

    def run(rows: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            return stage(rows.to(codec.device, non_blocking=True))

    return run
