"""What `bias_leaky_pixel_norm` must hold wherever its kernel runs; functions of a device, since they may run in another process."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from kernels.bias_leaky_pixel_norm.cases import Case
from kernels.bias_leaky_pixel_norm.op import bias_leaky_pixel_norm
from kernels.testing import Run, assert_as_accurate, run

SMALL = Case(batch=3, channels=5, height=6, width=7, dtype=torch.float32)
FEW = Case(batch=2, channels=24, height=5, width=5, dtype=torch.bfloat16)


def draw(device: str, case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Activations that want a gradient, the bias, and the gradient of the output."""
    generator = torch.Generator().manual_seed(0)
    shape = (case.batch, case.channels, case.height, case.width)
    sizes = (shape, (*shape[:2], 2 * case.height, 2 * case.width) if case.upsample else shape)
    x, grad = (torch.randn(size, generator=generator).to(device, case.dtype, memory_format=torch.channels_last) for size in sizes)
    return x.requires_grad_(), torch.randn(case.channels, generator=generator).to(device, case.dtype), grad


def compute(how: Run, inputs: tuple[Tensor, Tensor], grad: Tensor, *, upsample: bool) -> tuple[Tensor, ...]:
    return run(how, partial(bias_leaky_pixel_norm, upsample=upsample), inputs, grad=grad)


def compare(inputs: tuple[Tensor, Tensor], grad: Tensor, *, upsample: bool) -> None:
    got, same, exact = (compute(how, inputs, grad, upsample=upsample) for how in ("kernel", "reference", "float64"))
    for g, s, e in zip(got, same, exact, strict=True):
        assert_as_accurate(g, s, e)


def matches_reference(device: str, case: Case) -> None:
    x, bias, grad = draw(device, case)
    compare((x, bias), grad, upsample=case.upsample)


def matches_reference_at_extremes(device: str, dtype: torch.dtype, upsample: bool) -> None:
    """Pixels of zeros (where the slope at 0 and epsilon decide), and of values whose squares half precision cannot hold."""
    x, bias, grad = draw(device, replace(FEW, dtype=dtype, upsample=upsample))
    with torch.no_grad():
        bias.zero_()
        x[0, :, 0, 0] = 0
        x[1, :, 2, 3] *= 2e4
        x[1, :, 4, 4] *= 1e-4
    compare((x, bias), grad, upsample=upsample)


def matches_reference_with_a_wider_bias(device: str, upsample: bool) -> None:
    x, bias, grad = draw(device, replace(FEW, upsample=upsample))
    compare((x, bias.float() + 0.001), grad, upsample=upsample)


def upsampling_is_four_copies(device: str) -> None:
    """To the bit: four of each plain value, and the plain gradient of the sum of the four, two of which are zero: no order of adding."""
    x, bias, grad = draw(device, SMALL)
    spread = torch.zeros(3, 5, 6, 2, 7, 2, device=device)
    spread[:, :, :, 0, :, 1] = 0.25 * grad
    spread[:, :, :, 1, :, 0] = 0.75 * grad
    plain = compute("kernel", (x, bias), 0.25 * grad + 0.75 * grad, upsample=False)
    value, gradient = compute("kernel", (x, bias), spread.flatten(4).flatten(2, 3), upsample=True)
    assert torch.equal(value, plain[0].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
    assert torch.equal(gradient, plain[1])


def strides_do_not_matter(device: str, upsample: bool) -> None:
    x, bias, grad = draw(device, replace(SMALL, upsample=upsample))
    wanted = compute("kernel", (x, bias), grad, upsample=upsample)
    plain = x.detach().contiguous().requires_grad_()
    spaced = torch.stack((bias, bias), dim=1)[:, 0]
    kernel, reference = (compute(how, (plain, spaced), grad.contiguous(), upsample=upsample) for how in ("kernel", "reference"))
    assert all(map(torch.equal, kernel, wanted))
    assert kernel[0].stride() == reference[0].stride() == grad.stride()


def samples_do_not_mix(device: str, upsample: bool) -> None:
    """One image alone equals that image in the batch, and another's NaN stays its own."""
    x, bias, grad = draw(device, replace(SMALL, upsample=upsample))
    together = compute("kernel", (x, bias), grad, upsample=upsample)
    alone = compute("kernel", (x[1:2].detach().requires_grad_(), bias), grad[1:2], upsample=upsample)
    assert all(torch.equal(batch[1:2], one) for batch, one in zip(together, alone, strict=True))
    with torch.no_grad():
        x[0] = torch.nan
    poisoned = compute("kernel", (x, bias), grad, upsample=upsample)
    for before, after in zip(together, poisoned, strict=True):
        assert after[0].isnan().all()
        assert torch.equal(before[1:], after[1:])


def takes_no_images(device: str, upsample: bool) -> None:
    x, bias, grad = draw(device, replace(SMALL, upsample=upsample))
    for how in ("kernel", "reference"):
        value, gradient = compute(how, (x[:0].detach().requires_grad_(), bias), grad[:0], upsample=upsample)
        assert value.shape == grad[:0].shape
        assert gradient.shape == (0, 5, 6, 7)


def passes_opcheck(device: str, upsample: bool) -> None:
    x, bias, grad = draw(device, replace(SMALL, upsample=upsample))
    ops = torch.ops.latentray
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")  # opcheck's own copies of its inputs
        torch.library.opcheck(ops.bias_leaky_pixel_norm.default, (x, bias, 0.2, 1e-8, upsample))
        torch.library.opcheck(ops.bias_leaky_pixel_norm_backward.default, (grad, x.detach(), bias, 0.2, 1e-8, upsample))


class _Twice(nn.Module):
    def __init__(self, upsample: bool) -> None:
        super().__init__()
        self.upsample = upsample

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return 2 * bias_leaky_pixel_norm(x, bias, upsample=self.upsample, impl="kernel")


def is_one_op_when_compiled(device: str, upsample: bool) -> None:
    x, bias, grad = draw(device, replace(SMALL, upsample=upsample))
    twice = _Twice(upsample)
    got, wanted = torch.compile(twice, backend="aot_eager", fullgraph=True)(x, bias), twice(x, bias)
    assert torch.equal(got, wanted)
    assert torch.equal(*(torch.autograd.grad(y, x, grad)[0] for y in (got, wanted)))


def is_one_op_when_exported(device: str, upsample: bool) -> None:
    x, bias, _ = draw(device, replace(SMALL, upsample=upsample))
    twice = _Twice(upsample)
    program = torch.export.export(twice, (x.detach(), bias), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)}, None))
    assert torch.ops.latentray.bias_leaky_pixel_norm.default in {node.target for node in program.graph.nodes}
    for images in (x.detach(), x.detach()[:2]):
        assert torch.equal(program.module()(images, bias), twice(images, bias))


def gradient_can_be_traced(device: str, upsample: bool) -> None:
    """To one graph of forward and backward, as refinement needs it."""
    x, bias, grad = draw(device, replace(SMALL, upsample=upsample))

    def gradient(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(_Twice(upsample)(x, bias), x, grad)[0]

    graph = make_fx(gradient)(x.detach())
    assert torch.ops.latentray.bias_leaky_pixel_norm_backward.default in {node.target for node in graph.graph.nodes}
    other = x.detach().flip(0)
    assert torch.equal(graph(other), gradient(other))


def second_gradient_is_refused(device: str, upsample: bool) -> None:
    x, bias, _ = draw(device, SMALL)
    (first,) = torch.autograd.grad(_Twice(upsample)(x, bias).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        torch.autograd.grad(first.sum(), x)
