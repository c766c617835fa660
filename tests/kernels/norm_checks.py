"""What `bias_leaky_pixel_norm` must hold wherever its kernel runs; functions of a device, since they may run in another process."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from kernels.bias_leaky_pixel_norm.cases import Case
from kernels.bias_leaky_pixel_norm.op import bias_leaky_pixel_norm
from kernels.testing import assert_as_accurate, run

SMALL = Case(batch=3, channels=5, height=6, width=7, dtype=torch.float32)


def draw(device: str, case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Activations that want a gradient, the bias, and the gradient of the output."""
    generator = torch.Generator().manual_seed(0)
    shape = (case.batch, case.channels, case.height, case.width)
    x, grad = (torch.randn(shape, generator=generator).to(device, case.dtype, memory_format=torch.channels_last) for _ in range(2))
    return x.requires_grad_(), torch.randn(case.channels, generator=generator).to(device, case.dtype), grad


def compare(inputs: tuple[Tensor, Tensor], grad: Tensor) -> None:
    got, same, exact = (run(how, bias_leaky_pixel_norm, inputs, grad=grad) for how in ("kernel", "reference", "float64"))
    for g, s, e in zip(got, same, exact, strict=True):
        assert_as_accurate(g, s, e)


def matches_reference(device: str, case: Case) -> None:
    x, bias, grad = draw(device, case)
    compare((x, bias), grad)


def matches_reference_at_extremes(device: str, dtype: torch.dtype) -> None:
    """Pixels of zeros (where the slope at 0 and epsilon decide), and of values whose squares half precision cannot hold."""
    x, bias, grad = draw(device, Case(batch=2, channels=24, height=5, width=5, dtype=dtype))
    with torch.no_grad():
        bias.zero_()
        x[0, :, 0, 0] = 0
        x[1, :, 2, 3] *= 2e4
        x[1, :, 4, 4] *= 1e-4
    compare((x, bias), grad)


def matches_reference_with_a_wider_bias(device: str) -> None:
    x, bias, grad = draw(device, Case(batch=2, channels=24, height=5, width=5, dtype=torch.bfloat16))
    compare((x, bias.float() + 0.001), grad)


def strides_do_not_matter(device: str) -> None:
    x, bias, grad = draw(device, SMALL)
    wanted = run("kernel", bias_leaky_pixel_norm, (x, bias), grad=grad)
    plain = x.detach().contiguous().requires_grad_()
    spaced = torch.stack((bias, bias), dim=1)[:, 0]
    kernel, reference = (run(how, bias_leaky_pixel_norm, (plain, spaced), grad=grad.contiguous()) for how in ("kernel", "reference"))
    assert all(map(torch.equal, kernel, wanted))
    assert kernel[0].stride() == reference[0].stride() == x.stride()


def samples_do_not_mix(device: str) -> None:
    """One image alone equals that image in the batch, and another's NaN stays its own."""
    x, bias, grad = draw(device, SMALL)
    together = run("kernel", bias_leaky_pixel_norm, (x, bias), grad=grad)
    alone = run("kernel", bias_leaky_pixel_norm, (x[1:2].detach().requires_grad_(), bias), grad=grad[1:2])
    assert all(torch.equal(batch[1:2], one) for batch, one in zip(together, alone, strict=True))
    with torch.no_grad():
        x[0] = torch.nan
    poisoned = run("kernel", bias_leaky_pixel_norm, (x, bias), grad=grad)
    for before, after in zip(together, poisoned, strict=True):
        assert after[0].isnan().all()
        assert torch.equal(before[1:], after[1:])


def takes_no_images(device: str) -> None:
    x, bias, grad = draw(device, SMALL)
    value, gradient = run("kernel", bias_leaky_pixel_norm, (x[:0].detach().requires_grad_(), bias), grad=grad[:0])
    assert value.shape == gradient.shape == (0, 5, 6, 7)


def passes_opcheck(device: str) -> None:
    x, bias, grad = draw(device, SMALL)
    ops = torch.ops.latentray
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")  # opcheck's own copies of its inputs
        torch.library.opcheck(ops.bias_leaky_pixel_norm.default, (x, bias, 0.2, 1e-8))
        torch.library.opcheck(ops.bias_leaky_pixel_norm_backward.default, (grad, x.detach(), bias, 0.2, 1e-8))


class _Twice(nn.Module):
    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return 2 * bias_leaky_pixel_norm(x, bias, impl="kernel")


def is_one_op_when_compiled(device: str) -> None:
    x, bias, grad = draw(device, SMALL)
    wanted = 2 * bias_leaky_pixel_norm(x, bias, impl="kernel")
    got = torch.compile(_Twice(), backend="aot_eager", fullgraph=True)(x, bias)
    assert torch.equal(got, wanted)
    assert torch.equal(*(torch.autograd.grad(y, x, grad)[0] for y in (got, wanted)))


def is_one_op_when_exported(device: str) -> None:
    x, bias, _ = draw(device, SMALL)
    program = torch.export.export(_Twice(), (x.detach(), bias), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)}, None))
    assert torch.ops.latentray.bias_leaky_pixel_norm.default in {node.target for node in program.graph.nodes}
    for images in (x.detach(), x.detach()[:2]):
        assert torch.equal(program.module()(images, bias), 2 * bias_leaky_pixel_norm(images, bias, impl="kernel"))


def gradient_can_be_traced(device: str) -> None:
    """To one graph of forward and backward, as refinement needs it."""
    x, bias, grad = draw(device, SMALL)

    def gradient(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(bias_leaky_pixel_norm(x, bias, impl="kernel"), x, grad)[0]

    graph = make_fx(gradient)(x.detach())
    assert torch.ops.latentray.bias_leaky_pixel_norm_backward.default in {node.target for node in graph.graph.nodes}
    other = x.detach().flip(0)
    assert torch.equal(graph(other), gradient(other))


def second_gradient_is_refused(device: str) -> None:
    x, bias, _ = draw(device, SMALL)
    (first,) = torch.autograd.grad(bias_leaky_pixel_norm(x, bias, impl="kernel").square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        torch.autograd.grad(first.sum(), x)
