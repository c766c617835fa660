"""Work in blocks against the same written plainly, in values and gradients."""

import pytest
import torch

from engine.networks import frozen_ops
from trainers.nets.blockwise import gray, leaky_pixel_norm

SHAPES = pytest.mark.parametrize("shape", [(1, 3, 5, 7), (3, 40, 33, 31), (2, 8, 96, 96)])  # within a block, and over several


def rows_of(shape, dtype, *, channels_last=True):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    x[0, :, 0, 0] = 0  # a pixel without a norm
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


@SHAPES
@pytest.mark.parametrize("channels_last", [True, False])
def test_norm_equals_the_engines(shape, channels_last):
    x = rows_of(shape, torch.float32, channels_last=channels_last).requires_grad_()
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found, expected = leaky_pixel_norm(x, leak=0.2, epsilon=1e-8), frozen_ops.leaky_pixel_norm(x, leak=0.2, epsilon=1e-8)
    torch.testing.assert_close(found, expected)
    (ours,), (theirs,) = torch.autograd.grad(found, x, grad), torch.autograd.grad(expected, x, grad)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_norm_keeps_half_precision_and_its_input():
    x = rows_of((2, 8, 96, 96), torch.bfloat16)
    before = x.clone()
    y = leaky_pixel_norm(x, leak=0.2, epsilon=1e-8)
    assert y.dtype == torch.bfloat16
    assert torch.equal(x, before)
    assert torch.equal(y, frozen_ops.leaky_pixel_norm(x, leak=0.2, epsilon=1e-8))
    whole = rows_of((2, 8, 4, 4), torch.float32)
    leaky_pixel_norm(whole, leak=0.2, epsilon=1e-8)
    assert torch.equal(whole, rows_of((2, 8, 4, 4), torch.float32))


@SHAPES
def test_gray_equals_a_convolution(shape):
    x = rows_of(shape, torch.float32).requires_grad_()
    weight, bias = torch.randn(shape[1], requires_grad=True), torch.randn(1, requires_grad=True)
    found = gray(x, weight, bias)
    expected = torch.nn.functional.conv2d(x, weight.view(1, -1, 1, 1), bias)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    for ours, theirs in zip(
        torch.autograd.grad(found, (x, weight, bias), grad), torch.autograd.grad(expected, (x, weight, bias), grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_gray_does_not_round_the_film():
    x = rows_of((1, 8, 16, 16), torch.bfloat16)
    film = gray(x, torch.full((8,), 0.1), torch.zeros(1))
    assert film.dtype == torch.float32
    torch.testing.assert_close(film, x.float().sum(1, keepdim=True) * 0.1)
