"""Every op at every case of its benchmark in one form, so that what times or lists them need not know the ops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from kernels.adam_step import cases as adam_cases
from kernels.adam_step.op import AdamState, Gauge, adam_step
from kernels.bias_leaky_pixel_norm import cases as norm_cases
from kernels.bias_leaky_pixel_norm.op import bias_leaky_pixel_norm
from kernels.dispatch import Impl
from kernels.lpips_head import cases as lpips_cases
from kernels.lpips_head.op import lpips_head, unit_features
from kernels.mse_ssim import cases as ssim_cases
from kernels.mse_ssim.op import mse_ssim, mse_ssim_with_gradient

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one call must move through memory, at the least, and compute."""

    bytes: int
    flops: int


@dataclass(frozen=True, kw_only=True)
class Work:
    """One op at one case.

    draw: inputs for a device, from its default generator; those that want a gradient require it.
    call: what the op computes by `impl`: positional tensors to a tensor or several. `torch.compile` makes one graph of it; where a
        reference itself asks for a gradient, with `torch._dynamo.config.trace_autograd_ops = True`.
    costs: of the passes that `passes` gives, by their names.
    """

    op: str
    case: str
    dtype: torch.dtype
    draw: Callable[[torch.device | str], Inputs]
    call: Callable[[Impl], Callable[..., Tensor | Inputs]]
    costs: dict[str, Cost]

    def passes(self, call: Callable[..., Tensor | Inputs], inputs: Inputs) -> dict[str, Callable[[], object]]:
        """What is to be timed of `call` (from `self.call`, or compiled from it), each to be called as often as one likes.

        "value": no gradient is wanted. Where the op has a gradient also "forward", which keeps what the gradient needs, and "backward",
        which finds it alone, of outputs that all have gradient 1. A compiled call keeps its buffers for a second backward pass only with
        `torch._functorch.config.donated_buffer = False`.
        """

        def value() -> object:
            with torch.no_grad():
                return call(*inputs)

        if "backward" not in self.costs:
            return {"value": value}
        outputs = _as_tuple(call(*inputs))
        wanted = [tensor for tensor in inputs if tensor.requires_grad]
        grads = [torch.ones_like(output) for output in outputs]
        return {
            "value": value,
            "forward": lambda: call(*inputs),
            "backward": lambda: torch.autograd.grad(outputs, wanted, grads, retain_graph=True),
        }


def works() -> Iterator[Work]:
    """All of them: op by op, and within an op as its BENCHMARK_CASES stand."""
    yield from map(_norm, norm_cases.BENCHMARK_CASES)
    yield from map(_ssim, ssim_cases.BENCHMARK_CASES)
    yield from map(_ssim_with_gradient, ssim_cases.BENCHMARK_CASES)
    yield from map(_lpips, lpips_cases.BENCHMARK_CASES)
    yield from map(_adam, adam_cases.BENCHMARK_CASES)


def _norm(case: norm_cases.Case) -> Work:
    def draw(device: torch.device | str) -> Inputs:
        x = _normal((case.batch, case.channels, case.height, case.width), case.dtype, device)
        return x.requires_grad_(), torch.randn(case.channels, dtype=case.dtype, device=device)

    def call(impl: Impl) -> Callable[..., Tensor]:
        return lambda x, bias: bias_leaky_pixel_norm(x, bias, upsample=case.upsample, impl=impl)

    return Work(op="bias_leaky_pixel_norm", case=str(case), dtype=case.dtype, draw=draw, call=call, costs=_costs(case))


def _ssim(case: ssim_cases.Case) -> Work:
    def call(impl: Impl) -> Callable[..., Inputs]:
        return lambda x, y: mse_ssim(x, y, impl=impl)

    costs = _costs(case) | {"value": Cost(bytes=case.value_bytes, flops=case.value_flops)}
    draw = partial(_films, case, requires_grad=True)
    return Work(op="mse_ssim", case=str(case), dtype=case.dtype, draw=draw, call=call, costs=costs)


def _ssim_with_gradient(case: ssim_cases.Case) -> Work:
    def call(impl: Impl) -> Callable[..., Inputs]:
        return lambda x, y: mse_ssim_with_gradient(x, y, mse_weight=1.0, ssim_weight=-0.1, impl=impl)

    costs = {"value": Cost(bytes=case.with_gradient_bytes, flops=case.forward_flops + case.backward_flops)}
    draw = partial(_films, case, requires_grad=False)
    return Work(op="mse_ssim_with_gradient", case=str(case), dtype=case.dtype, draw=draw, call=call, costs=costs)


def _films(case: ssim_cases.Case, device: torch.device | str, *, requires_grad: bool) -> Inputs:
    x, y = (torch.rand(case.batch, 1, case.height, case.width, device=device).to(case.dtype) for _ in range(2))
    return x.requires_grad_(requires_grad), y


def _lpips(case: lpips_cases.Case) -> Work:
    def draw(device: torch.device | str) -> Inputs:
        shape = (case.batch, case.channels, case.height, case.width)
        features, other = (_normal(shape, case.dtype, device) for _ in range(2))
        return features.requires_grad_(), unit_features(other), torch.rand(case.channels, device=device).to(case.dtype)

    def call(impl: Impl) -> Callable[..., Tensor]:
        return lambda features, target, weights: lpips_head(features, target, weights, impl=impl)

    return Work(op="lpips_head", case=str(case), dtype=case.dtype, draw=draw, call=call, costs=_costs(case))


def _adam(case: adam_cases.Case) -> Work:
    """The step writes its inputs: codes wander from call to call, and stay finite."""

    def draw(device: torch.device | str) -> Inputs:
        shape = (case.slots, case.layers, case.channels)
        latents, gradient = torch.randn(shape, device=device), torch.randn(shape, device=device).to(case.dtype)
        loss, active = torch.rand(case.slots, device=device), torch.ones(case.slots, dtype=torch.bool, device=device)
        state = AdamState.of(latents)
        kept = (state.first, state.second, state.counts, state.best, state.best_loss, state.best_step)
        return latents, gradient, loss, active, *kept

    gauge = cast(Gauge, case.gauge)

    def call(impl: Impl) -> Callable[..., Tensor]:
        def step(latents: Tensor, gradient: Tensor, loss: Tensor, active: Tensor, *kept: Tensor) -> Tensor:
            adam_step(latents, gradient, loss, AdamState(*kept), active=active, lr=0.05, gauge=gauge, impl=impl)
            return latents

        return step

    costs = {"value": Cost(bytes=case.step_bytes, flops=case.step_flops)}
    return Work(op="adam_step", case=str(case), dtype=case.dtype, draw=draw, call=call, costs=costs)


def _costs(case: Any) -> dict[str, Cost]:
    """Of a case that has forward and backward, where the forward pass costs the same whether or not a gradient is wanted."""
    forward = Cost(bytes=case.forward_bytes, flops=case.forward_flops)
    return {"value": forward, "forward": forward, "backward": Cost(bytes=case.backward_bytes, flops=case.backward_flops)}


def _normal(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    return torch.randn(shape, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)


def _as_tuple(outputs: Tensor | Inputs) -> Inputs:
    return (outputs,) if isinstance(outputs, Tensor) else outputs
