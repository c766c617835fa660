"""What `mse_ssim` must hold wherever its kernel runs; functions of a device, since they may run in another process."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from kernels.mse_ssim.cases import Case
from kernels.mse_ssim.op import mse_ssim, mse_ssim_with_gradient
from kernels.testing import Run, assert_as_accurate, fresh_memory_is_nan, run

SMALL = Case(batch=2, height=14, width=13, dtype=torch.float32)
WEIGHTS = {"mse_weight": 1.5, "ssim_weight": -0.25}


def both(x: Tensor, y: Tensor, *, impl: str) -> Tensor:
    """[2, N]: what `mse_ssim` gives, as one tensor."""
    return torch.stack(mse_ssim(x, y, impl=impl))


def draw(device: str, case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Films that want a gradient, somewhat off their targets and outside of [0, 1]; the targets; the gradients of the values, [2, N]."""
    generator = torch.Generator().manual_seed(0)
    shape = (case.batch, 1, case.height, case.width)
    y = torch.rand(shape, generator=generator)
    x = 1.4 * y - 0.2 + 0.1 * torch.randn(shape, generator=generator)
    grad = torch.randn(2, case.batch, generator=generator).to(device)
    return x.to(device, case.dtype).requires_grad_(), y.to(device, case.dtype), grad


def compare(inputs: tuple[Tensor, Tensor], grad: Tensor) -> None:
    """Each of mse, ssim and the gradients in x of both together, of mse and of ssim, against its own error in PyTorch."""
    only_mse, only_ssim = torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]], device=grad.device)

    def results(how: Run) -> tuple[Tensor, ...]:
        x, y = (film.detach().double() if how == "float64" else film.detach() for film in inputs)
        x.requires_grad_()
        with fresh_memory_is_nan():  # as `run`, but for three gradients of one launch: the interpreter is slow
            values = both(x, y, impl="kernel" if how == "kernel" else "reference")
            shares = [(grad * share).to(values.dtype) for share in (1, only_mse, only_ssim)]
            return *values.detach(), *(torch.autograd.grad(values, x, share, retain_graph=True)[0] for share in shares)

    for got, same, exact in zip(results("kernel"), results("reference"), results("float64"), strict=True):
        assert_as_accurate(got, same, exact)


def matches_reference(device: str, case: Case) -> None:
    x, y, grad = draw(device, case)
    compare((x, y), grad)


def matches_reference_where_nothing_varies(device: str, dtype: torch.dtype) -> None:
    """Black, white and gray films, of which one equals its target: variances are what cancellation leaves, and the constants decide."""
    x, y, grad = draw(device, Case(batch=3, height=24, width=23, dtype=dtype))
    with torch.no_grad():
        for film, (made, wanted) in enumerate(((0.0, 0.0), (1.0, 0.0), (0.7, 0.9))):
            x[film], y[film] = made, wanted
        x[2, :, :12] += 0.01 * torch.rand(12, 23, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    compare((x, y), grad)


def matches_reference_with_another_type_of_target(device: str) -> None:
    x, y, grad = draw(device, SMALL)
    compare((x.detach().bfloat16().requires_grad_(), y), grad)


def gradient_in_one_pass_matches_reference(device: str, dtype: torch.dtype) -> None:
    x, y, _ = draw(device, Case(batch=2, height=21, width=25, dtype=dtype))

    def results(how: Run) -> tuple[Tensor, ...]:
        films = (x.double(), y.double()) if how == "float64" else (x, y)
        with fresh_memory_is_nan():
            return mse_ssim_with_gradient(*films, **WEIGHTS, impl="kernel" if how == "kernel" else "reference")

    for got, same, exact in zip(results("kernel"), results("reference"), results("float64"), strict=True):
        assert_as_accurate(got, same, exact)
        assert not got.requires_grad


def values_do_not_depend_on_the_gradient(device: str) -> None:
    x, y, _ = draw(device, SMALL)
    for with_gradient in (mse_ssim(x, y, impl="kernel"), mse_ssim_with_gradient(x, y, **WEIGHTS, impl="kernel")[:2]):
        assert all(map(torch.equal, mse_ssim(x.detach(), y, impl="kernel"), with_gradient))


def strides_do_not_matter(device: str) -> None:
    x, y, grad = draw(device, SMALL)
    wanted = run("kernel", both, (x, y), grad=grad)
    turned = x.detach().mT.contiguous().mT.requires_grad_()
    spaced = torch.stack((y, y), dim=-1)[..., 0]
    got = run("kernel", both, (turned, spaced), grad=grad.T.contiguous().T)
    assert all(map(torch.equal, got, wanted))
    films = [(x, y), (turned, spaced)]
    one, other = (mse_ssim_with_gradient(*pair, **WEIGHTS, impl="kernel") for pair in films)
    assert all(map(torch.equal, one, other))
    assert {mse_ssim_with_gradient(*pair, **WEIGHTS, impl=impl)[2].stride() for pair in films for impl in ("kernel", "reference")} == {
        y.stride()
    }


def samples_do_not_mix(device: str) -> None:
    """One image alone equals that image in the batch, bit for bit, and another's NaN stays its own."""
    x, y, grad = draw(device, Case(batch=3, height=19, width=34, dtype=torch.float32))
    together = run("kernel", both, (x, y), grad=grad)
    alone = run("kernel", both, (x[1:2].detach().requires_grad_(), y[1:2]), grad=grad[:, 1:2])
    assert torch.equal(together[0][:, 1:2], alone[0])
    assert torch.equal(together[1][1:2], alone[1])
    with torch.no_grad():
        x[0, 0, 5, 7] = torch.nan
        x[2] = torch.nan
    values, gradient = run("kernel", both, (x, y), grad=grad)
    assert values[:, [0, 2]].isnan().all()
    assert gradient[2].isnan().all()
    assert gradient[0].isnan().any()
    assert torch.equal(values[:, 1], together[0][:, 1])
    assert torch.equal(gradient[1], together[1][1])


def takes_no_images(device: str) -> None:
    x, y, grad = draw(device, SMALL)
    values, gradient = run("kernel", both, (x[:0].detach().requires_grad_(), y[:0]), grad=grad[:, :0])
    assert values.shape == (2, 0)
    assert gradient.shape == mse_ssim_with_gradient(x[:0], y[:0], **WEIGHTS, impl="kernel")[2].shape == (0, 1, 14, 13)


def takes_the_gradient_of_one_value(device: str) -> None:
    x, y, _ = draw(device, SMALL)
    mse, ssim = mse_ssim(x, y, impl="kernel")
    of_mse, of_ssim = (torch.autograd.grad(value.sum(), x, retain_graph=True)[0] for value in (mse, ssim))
    of_both = torch.autograd.grad(mse.sum() + ssim.sum(), x)[0]
    torch.testing.assert_close(of_mse + of_ssim, of_both)


def passes_opcheck(device: str) -> None:
    x, y, grad = draw(device, SMALL)
    ops = torch.ops.latentray
    slope = torch.rand_like(y)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")  # opcheck's own copies of its inputs
        torch.library.opcheck(ops.mse_ssim.default, (x, y, True))
        torch.library.opcheck(ops.mse_ssim.default, (x.detach(), y, False))
        torch.library.opcheck(ops.mse_ssim_backward.default, (grad[0], grad[1], x.detach(), y, slope))
        torch.library.opcheck(ops.mse_ssim_with_gradient.default, (x.detach(), y, 1.0, -0.5))


class _Loss(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        mse, ssim = mse_ssim(x, y, impl="kernel")
        return mse - 0.5 * ssim


def is_one_op_when_compiled(device: str) -> None:
    x, y, grad = draw(device, SMALL)
    wanted = _Loss()(x, y)
    got = torch.compile(_Loss(), backend="aot_eager", fullgraph=True)(x, y)
    assert torch.equal(got, wanted)
    assert torch.equal(*(torch.autograd.grad(loss, x, grad[0])[0] for loss in (got, wanted)))


class _Gradient(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return mse_ssim_with_gradient(x, y, **WEIGHTS, impl="kernel")[2]


def is_one_op_when_exported(device: str) -> None:
    x, y, _ = draw(device, SMALL)
    x, batch = x.detach(), torch.export.Dim("batch", min=1, max=64)
    for module, op in ((_Loss(), torch.ops.latentray.mse_ssim), (_Gradient(), torch.ops.latentray.mse_ssim_with_gradient)):
        program = torch.export.export(module, (x, y), dynamic_shapes=({0: batch}, {0: batch}))
        assert op.default in {node.target for node in program.graph.nodes}
        for number in (1, 2):
            assert torch.equal(program.module()(x[:number], y[:number]), module(x[:number], y[:number]))


def gradient_can_be_traced(device: str) -> None:
    """To one graph of forward and backward, as refinement needs it."""
    x, y, grad = draw(device, SMALL)

    def gradient(x: Tensor, y: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(both(x, y, impl="kernel"), x, grad)[0]

    graph = make_fx(gradient)(x.detach(), y)
    assert torch.ops.latentray.mse_ssim_backward.default in {node.target for node in graph.graph.nodes}
    other = x.detach().flip(0)
    assert torch.equal(graph(other, y), gradient(other, y))


def second_gradient_is_refused(device: str) -> None:
    x, y, _ = draw(device, SMALL)
    (first,) = torch.autograd.grad(both(x, y, impl="kernel").square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        torch.autograd.grad(first.sum(), x)
