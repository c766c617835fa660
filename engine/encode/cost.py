"""What a codec's work costs, counted and not measured: floating-point operations of a film coded, made, parted, or refined by a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from engine.encode.codec import Codec


@dataclass(frozen=True, kw_only=True)
class CodecCost:
    """GFLOP a film, a multiply and an add being two: `encode` (0 without an encoder), `generate`, and `gradient`, a step of refinement by
    resolution: the film, and the gradient of its loss in the code; `decompose`, both parts of a film (0 where the codec parts none)."""

    encode: float
    generate: float
    gradient: dict[int, float]
    decompose: float = 0.0


_COUNTED: WeakKeyDictionary[Codec, CodecCost] = WeakKeyDictionary()


def codec_cost(codec: Codec) -> CodecCost:
    """The matrix products and convolutions of one film through the networks, as they run (`Codec.frozen_generator`); seconds, and once.

    What is not counted, norms and activations, is bound by memory and not by arithmetic. Perceptual terms of a loss come on top.
    """
    found = _COUNTED.get(codec)
    if found is None:
        found = _COUNTED[codec] = _counted(codec)
    return found


def _counted(codec: Codec) -> CodecCost:
    heads = [codec.coarse[resolution] for resolution in sorted(codec.coarse)]
    generators = {head.resolution: codec.frozen_generator(torch.float32, head=head) for head in heads}
    generators[codec.recipe.resolution] = codec.frozen_generator(torch.float32)
    steps = {resolution: count_gflop(generator, (1, *codec.code_shape)) for resolution, generator in generators.items()}
    parted: Any = getattr(codec.generator.network, "decompose", None)
    return CodecCost(
        encode=encode_gflop(codec),
        generate=steps[codec.recipe.resolution][0],
        gradient={resolution: sum(both) for resolution, both in steps.items()},
        decompose=0.0 if parted is None else forward_gflop(lambda codes: torch.cat(parted(codes), dim=1), (1, *codec.code_shape)),
    )


def encode_gflop(codec: Codec) -> float:
    """GFLOP of one film through the encoder, 0 without one."""
    pixels = (1, 1, codec.recipe.resolution, codec.recipe.resolution)
    return 0.0 if codec.encoder is None else forward_gflop(codec.encoder, pixels)


def forward_gflop(run: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> float:
    """GFLOP of a call with rows of `shape`: shapes are followed, nothing is computed."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), FlopCounterMode(display=False) as counted:
        run(torch.empty(shape))
    return float(counted.get_total_flops()) / 1e9


def count_gflop(run: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> tuple[float, float]:
    """GFLOP of a call with rows of `shape`, and of the gradient in them: shapes are followed, nothing is computed."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        rows = torch.empty(shape).requires_grad_()
        with FlopCounterMode(display=False) as forward:
            result = run(rows)
        with FlopCounterMode(display=False) as backward:
            torch.autograd.grad(result.float().sum(), rows)
    return forward.get_total_flops() / 1e9, backward.get_total_flops() / 1e9
