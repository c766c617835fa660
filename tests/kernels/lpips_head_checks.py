"""What `lpips_head` must hold wherever its kernels run; functions of a device, since they may run in another process."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from kernels.lpips_head.cases import MEAN_BLOCK, Case
from kernels.lpips_head.op import lpips_head, unit_features
from kernels.testing import assert_as_accurate, run

SMALL = Case(batch=3, channels=5, height=6, width=7, dtype=torch.float32)
Inputs = tuple[Tensor, Tensor, Tensor]


def draw(device: str, case: Case) -> tuple[Inputs, Tensor]:
    """Features that want a gradient, as a ReLU leaves them; target and weights; the gradient of the values."""
    generator = torch.Generator().manual_seed(0)
    shape = (case.batch, case.channels, case.height, case.width)
    features, others = (torch.randn(shape, generator=generator).relu().to(device, case.dtype) for _ in range(2))
    features = features.contiguous(memory_format=torch.channels_last).requires_grad_()
    weights = torch.rand(case.channels, generator=generator).to(device, case.dtype)
    return (features, unit_features(others), weights), torch.randn(case.batch, generator=generator).to(device)


def compare(inputs: Inputs, grad: Tensor) -> None:
    got, same, exact = (run(how, lpips_head, inputs, grad=grad) for how in ("kernel", "reference", "float64"))
    for g, s, e in zip(got, same, exact, strict=True):
        assert_as_accurate(g, s, e)


def matches_reference(device: str, case: Case) -> None:
    compare(*draw(device, case))


def matches_reference_at_extremes(device: str, dtype: torch.dtype) -> None:
    """A pixel of zeros, one where epsilon weighs as much as the norm, and one whose squares half precision cannot hold."""
    (features, target, weights), grad = draw(device, Case(batch=2, channels=24, height=5, width=5, dtype=dtype))
    with torch.no_grad():
        features[0, :, 0, 0] = 0
        if dtype != torch.float16:  # which has no such numbers
            features[1, :, 2, 3] *= 1e-10
            grad = grad * 1e-10
        features[1, :, 4, 4] *= 1e4
    compare((features, target, weights), grad)


def zero_pixels_have_gradient_zero(device: str) -> None:
    (features, target, weights), grad = draw(device, SMALL)
    with torch.no_grad():
        features[1, :, 2, 3] = 0
    for how in ("kernel", "reference"):
        _, gradient = run(how, lpips_head, (features, target, weights), grad=grad)
        assert gradient.isfinite().all()
        assert not gradient[1, :, 2, 3].any()
        assert gradient[1, :, 2, 4].any()


def matches_reference_with_wider_target_and_weights(device: str) -> None:
    (features, target, weights), grad = draw(device, Case(batch=2, channels=24, height=5, width=5, dtype=torch.bfloat16))
    compare((features, target.float() + 0.001, weights.float() + 0.001), grad)


def strides_do_not_matter(device: str) -> None:
    (features, target, weights), grad = draw(device, SMALL)
    wanted = run("kernel", lpips_head, (features, target, weights), grad=grad)
    plain = features.detach().contiguous().requires_grad_()
    spaced = torch.stack((weights, weights), dim=1)[:, 0]
    assert all(map(torch.equal, run("kernel", lpips_head, (plain, target.contiguous(), spaced), grad=grad), wanted))
    one = torch.ones((), device=device)  # the gradient of a sum: three times the same number
    repeated, spread = (
        run("kernel", lpips_head, (features, target, weights), grad=g) for g in (one.expand(3), torch.ones(3, device=device))
    )
    assert all(map(torch.equal, repeated, spread))


def samples_do_not_mix(device: str) -> None:
    """One image alone equals that image in the batch, also where a program takes a part of an image, and another's NaN stays its own."""
    for case in (SMALL, Case(batch=3, channels=64, height=17, width=19, dtype=torch.bfloat16)):
        (features, target, weights), grad = draw(device, case)
        together = run("kernel", lpips_head, (features, target, weights), grad=grad)
        alone = run("kernel", lpips_head, (features[1:2].detach().requires_grad_(), target[1:2], weights), grad=grad[1:2])
        assert all(torch.equal(batch[1:2], one) for batch, one in zip(together, alone, strict=True))
        with torch.no_grad():
            features[0] = torch.nan
        poisoned = run("kernel", lpips_head, (features, target, weights), grad=grad)
        for before, after in zip(together, poisoned, strict=True):
            assert after[0].isnan().all()
            assert torch.equal(before[1:], after[1:])


def mean_takes_any_number_of_parts(device: str) -> None:
    """Also more than it takes at once, as films of 1024 pixels have."""
    from kernels.lpips_head.kernel import mean_kernel

    partial = torch.rand(3, 2 * MEAN_BLOCK + 7, generator=torch.Generator().manual_seed(0)).to(device)
    value, num_pixels = torch.full((3,), torch.nan, device=device), 10_001
    mean_kernel[(3,)](partial, value, num_pixels, partial.shape[1], BLOCK=MEAN_BLOCK)
    assert_as_accurate(value, partial.sum(1) / num_pixels, partial.double().sum(1) / num_pixels)


def takes_no_images(device: str) -> None:
    (features, target, weights), grad = draw(device, SMALL)
    value, gradient = run("kernel", lpips_head, (features[:0].detach().requires_grad_(), target[:0], weights), grad=grad[:0])
    assert value.shape == (0,)
    assert gradient.shape == (0, 5, 6, 7)


def passes_opcheck(device: str) -> None:
    inputs, grad = draw(device, SMALL)
    ops = torch.ops.latentray
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")  # opcheck's own copies of its inputs
        torch.library.opcheck(ops.lpips_head.default, (*inputs, 1e-10))
        torch.library.opcheck(ops.lpips_head_backward.default, (grad, *(x.detach() for x in inputs), 1e-10))


class _Twice(nn.Module):
    def forward(self, features: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        return 2 * lpips_head(features, target, weights, impl="kernel")


def is_one_op_when_compiled(device: str) -> None:
    inputs, grad = draw(device, SMALL)
    wanted = 2 * lpips_head(*inputs, impl="kernel")
    got = torch.compile(_Twice(), backend="aot_eager", fullgraph=True)(*inputs)
    assert torch.equal(got, wanted)
    assert torch.equal(*(torch.autograd.grad(value, inputs[0], grad)[0] for value in (got, wanted)))


def is_one_op_when_exported(device: str) -> None:
    (features, target, weights), _ = draw(device, SMALL)
    features, batch = features.detach(), torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(_Twice(), (features, target, weights), dynamic_shapes=({0: batch}, {0: batch}, None))
    assert torch.ops.latentray.lpips_head.default in {node.target for node in program.graph.nodes}
    for n in (3, 2):
        assert torch.equal(program.module()(features[:n], target[:n], weights), _Twice()(features[:n], target[:n], weights))


def gradient_can_be_traced(device: str) -> None:
    """To one graph of forward and backward, as refinement needs it."""
    (features, target, weights), grad = draw(device, SMALL)

    def gradient(features: Tensor, target: Tensor) -> Tensor:
        features = features.detach().requires_grad_()
        return torch.autograd.grad(lpips_head(features, target, weights, impl="kernel"), features, grad)[0]

    features = features.detach()
    graph = make_fx(gradient)(features, target)
    assert torch.ops.latentray.lpips_head_backward.default in {node.target for node in graph.graph.nodes}
    assert torch.equal(graph(features.flip(0), target), gradient(features.flip(0), target))


def second_gradient_is_refused(device: str) -> None:
    (features, target, weights), _ = draw(device, SMALL)
    (first,) = torch.autograd.grad(lpips_head(features, target, weights, impl="kernel").sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        torch.autograd.grad(first.sum(), features)
