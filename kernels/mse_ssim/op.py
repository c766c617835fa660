"""MSE and SSIM of each image in one pass over both, with gradient: one op to torch.compile and torch.export."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.dispatch import Impl, use_kernel
from kernels.mse_ssim import reference
from kernels.mse_ssim.cases import BACKWARD_BLOCK, DTYPES, MEAN_BLOCK, WINDOW, launch_for

_REACH = len(WINDOW) - 1


def mse_ssim(x: Tensor, y: Tensor, *, impl: Impl = "auto") -> tuple[Tensor, Tensor]:
    """Mean squared error and structural similarity of each image: [N, 1, H, W] twice -> mse [N], ssim [N], float32.

    x: what was made, not clamped. y: the target. Nominally in [0, 1], float32, bfloat16 or float16, not necessarily the same (float64 by
    the reference only, which then gives float64); any strides (copied unless contiguous); sides of 11 pixels or more.
    SSIM has a Gaussian window of 11 taps, sigma 1.5, K1 0.01, K2 0.03, population covariance, and is the mean over the positions where
    the window lies inside the image. Computed in float32. Differentiable in `x`: by the kernel once, and a second gradient raises
    RuntimeError; the gradient is rounded to the type of `x`, and float16 does not hold what is under 6e-8: a pixel's share of a mean over
    a large film is of that size, so scale the loss. Raises ValueError for inputs that make no sense and for a target that wants a
    gradient, `KernelUnavailable` as `use_kernel` does.
    Source: Wang et al. 2004, equation 13 and section III.C.
    """
    _check(x, y)
    if not use_kernel(x, impl, obstacle=_obstacle(x, y)):
        return reference.mse_ssim(x, y)
    mse, ssim, _ = _forward(x.contiguous(), y.contiguous(), x.requires_grad and torch.is_grad_enabled())
    return mse, ssim


def mse_ssim_with_gradient(
    x: Tensor, y: Tensor, *, mse_weight: float, ssim_weight: float, impl: Impl = "auto"
) -> tuple[Tensor, Tensor, Tensor]:
    """`mse_ssim`, and in the same pass the gradient of mse_weight * mse + ssim_weight * ssim in x: -> mse [N], ssim [N], [N, 1, H, W].

    For those who know the weights before they see the values: `cases.py` has the bytes that this saves over forward and backward.
    Inputs and errors as `mse_ssim`; the gradient has the type of `x`, and is contiguous. Not differentiable: all three are detached.
    """
    _check(x, y)
    x, y = x.detach(), y.detach()
    if not use_kernel(x, impl, obstacle=_obstacle(x, y)):
        return reference.mse_ssim_with_gradient(x.contiguous(), y, mse_weight=mse_weight, ssim_weight=ssim_weight)
    mse, ssim, gradient = _with_gradient(x.contiguous(), y.contiguous(), float(mse_weight), float(ssim_weight))
    return mse, ssim, gradient


def _check(x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape or x.dim() != 4 or x.shape[1] != 1:
        raise ValueError(f"images must be [N, 1, H, W], two batches of one shape, not: {tuple(x.shape)} and {tuple(y.shape)}")
    if min(x.shape[2:]) <= _REACH:
        raise ValueError(f"images must be at least {_REACH + 1} pixels high and wide: {tuple(x.shape[2:])}")
    for name, tensor in (("images", x), ("targets", y)):
        if tensor.dtype not in (*DTYPES, torch.float64):
            raise ValueError(f"{name} must be float32, bfloat16, float16 or float64, not: {tensor.dtype}")
    if x.device != y.device:
        raise ValueError(f"images and targets are on different devices: {x.device} and {y.device}")
    if y.requires_grad and torch.is_grad_enabled():
        raise ValueError("`mse_ssim` has no gradient for its targets; pass `y.detach()`")


def _obstacle(x: Tensor, y: Tensor) -> str | None:
    """Why the kernel cannot take these inputs, which the reference can, or None."""
    if torch.float64 in (x.dtype, y.dtype):
        return "the kernel of mse_ssim computes in float32; take impl='reference' for float64"
    return None


# Opaque ops rather than `triton_op`, as kernels/README.md says.
@torch.library.custom_op("latentray::mse_ssim", mutates_args=())
def _forward(x: Tensor, y: Tensor, with_slope: bool) -> tuple[Tensor, Tensor, Tensor]:
    """mse [N], ssim [N] and, where wanted, d ssim / dx, float32, as x (otherwise of no values)."""
    slope = _slope_like(x, with_slope)
    mse, ssim = _launch(x, y, slope, mse_scale=0.0, ssim_scale=1 / _num_windows(x), with_gradient=with_slope)
    return mse, ssim, slope


@torch.library.custom_op("latentray::mse_ssim_with_gradient", mutates_args=())
def _with_gradient(x: Tensor, y: Tensor, mse_weight: float, ssim_weight: float) -> tuple[Tensor, Tensor, Tensor]:
    gradient = torch.empty_like(x)
    scales = {"mse_scale": 2 * mse_weight / _num_pixels(x), "ssim_scale": ssim_weight / _num_windows(x)}
    mse, ssim = _launch(x, y, gradient, **scales, with_gradient=True)
    return mse, ssim, gradient


@torch.library.custom_op("latentray::mse_ssim_backward", mutates_args=())
def _backward(grad_mse: Tensor, grad_ssim: Tensor, x: Tensor, y: Tensor, slope: Tensor) -> Tensor:
    from kernels.mse_ssim.kernel import backward_kernel  # here, since Triton is not everywhere

    grad_x = torch.empty_like(x)
    num_pixels = _num_pixels(x)
    if len(x):
        with torch.cuda.device(x.get_device()):  # Triton launches on the current device, which need not be this one; -1 changes none
            backward_kernel[(len(x) * -(-num_pixels // BACKWARD_BLOCK),)](
                *(grad_mse, grad_ssim, x, y, slope, grad_x, num_pixels, 2 / num_pixels), BLOCK=BACKWARD_BLOCK, num_warps=4
            )
    return grad_x


def _launch(x: Tensor, y: Tensor, gradient: Tensor, *, mse_scale: float, ssim_scale: float, with_gradient: bool) -> tuple[Tensor, Tensor]:
    """mse [N] and ssim [N] of contiguous films; fills `gradient` if told to."""
    from kernels.mse_ssim.kernel import forward_kernel, mean_kernel

    batch, _, height, width = x.shape
    mse, ssim = _values_of(x), _values_of(x)
    if batch == 0:
        return mse, ssim
    launch = launch_for(torch.cuda.get_device_name(x.device) if x.is_cuda else "interpreter", height)
    num_tiles = launch.num_tiles(height, width)
    parts = torch.empty((batch, num_tiles, 2), dtype=torch.float32, device=x.device)
    with torch.cuda.device(x.get_device()):
        forward_kernel[(batch * num_tiles,)](
            *(x, y, parts, gradient, height, width, mse_scale, ssim_scale),
            TILE_ROWS=launch.tile_rows,
            BLOCK_ROWS=launch.block_rows,
            BLOCK_COLUMNS=launch.block_columns,
            GRADIENT=with_gradient,
            num_warps=launch.warps,
        )
        # the type says that these are numbers of things; the kernel divides by them in float32
        mean_kernel[(batch,)](parts, mse, ssim, num_tiles, float(_num_pixels(x)), float(_num_windows(x)), BLOCK=MEAN_BLOCK, num_warps=4)
    return mse, ssim


def _num_pixels(x: Tensor) -> int:
    """Of one film, as the next."""
    return x.shape[2] * x.shape[3]


def _num_windows(x: Tensor) -> int:
    return (x.shape[2] - _REACH) * (x.shape[3] - _REACH)


def _values_of(x: Tensor) -> Tensor:
    """Room for one value an image."""
    return x.new_empty(x.shape[0], dtype=torch.float32)


def _slope_like(x: Tensor, with_slope: bool) -> Tensor:
    return torch.empty_like(x, dtype=torch.float32) if with_slope else x.new_empty(0, dtype=torch.float32)


@_forward.register_fake
def _(x: Tensor, y: Tensor, with_slope: bool) -> tuple[Tensor, Tensor, Tensor]:
    return _values_of(x), _values_of(x), _slope_like(x, with_slope)


@_with_gradient.register_fake
def _(x: Tensor, y: Tensor, mse_weight: float, ssim_weight: float) -> tuple[Tensor, Tensor, Tensor]:
    return _values_of(x), _values_of(x), torch.empty_like(x)


@_backward.register_fake
def _(grad_mse: Tensor, grad_ssim: Tensor, x: Tensor, y: Tensor, slope: Tensor) -> Tensor:
    return torch.empty_like(x)


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, y, _ = inputs
    ctx.mark_non_differentiable(output[2])
    ctx.save_for_backward(x, y, output[2])


def _gradients(ctx: Any, grad_mse: Tensor, grad_ssim: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
    x, y, slope = ctx.saved_tensors
    grad_x: Tensor = _backward(grad_mse.contiguous(), grad_ssim.contiguous(), x, y, slope)
    return grad_x, None, None


_forward.register_autograd(_gradients, setup_context=_keep_inputs)
