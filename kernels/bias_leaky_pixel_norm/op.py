"""Bias, leaky ReLU, pixel norm and x2 upsampling in one pass over channels-last activations, with gradient: one op to the compilers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kernels.bias_leaky_pixel_norm import reference
from kernels.bias_leaky_pixel_norm.cases import DTYPES, MAX_CHANNELS, bucket, launch_for
from kernels.dispatch import Impl, use_kernel


def bias_leaky_pixel_norm(
    x: Tensor, bias: Tensor, *, upsample: bool = False, leak: float = 0.2, epsilon: float = 1e-8, impl: Impl = "auto"
) -> Tensor:
    """leaky(x + bias) over its root mean square over channels: x [N, C, H, W], bias [C] -> [N, C, H, W], channels-last, in the type of `x`.

    upsample: by nearest neighbour, [N, C, 2H, 2W]: each value is written four times, and the four gradients of a value are summed, in
    the same pass, so that nothing of the larger size is read or written once more.
    x: float32, bfloat16 or float16 (float64 by the reference only), any strides (copied unless channels-last). bias: any of these types.
    Computed in float32 and rounded once. Differentiable in `x`: by the kernel once, and a second gradient raises RuntimeError.
    The kernel takes 1 to 512 channels. Raises ValueError for inputs that make no sense and for a bias that wants a gradient,
    `KernelUnavailable` as `use_kernel` does.
    Source: Karras et al. 2018, section 4.2 and table 2.
    """
    _check(x, bias, upsample, leak, epsilon)
    x = x.contiguous(memory_format=torch.channels_last)  # before the two ways part, so that both give the same strides
    if use_kernel(x, impl, obstacle=_obstacle(x, bias)):
        y: Tensor = _forward(x, bias.contiguous(), float(leak), float(epsilon), upsample)
        return y
    y = reference.bias_leaky_pixel_norm(x, bias, leak=leak, epsilon=epsilon, upsample=upsample)
    return y.contiguous(memory_format=torch.channels_last)


def _check(x: Tensor, bias: Tensor, upsample: bool, leak: float, epsilon: float) -> None:
    if x.dim() != 4:
        raise ValueError(f"activations must be [N, C, H, W], not of shape: {tuple(x.shape)}")
    if x.shape[1] == 0:
        raise ValueError(f"activations need one channel or more, not shape: {tuple(x.shape)}")
    if upsample and 0 in x.shape[2:]:
        raise ValueError(f"activations to be upsampled need one pixel or more, not shape: {tuple(x.shape)}")
    if bias.shape != x.shape[1:2]:
        raise ValueError(f"bias needs one value for each of {x.shape[1]} channels, not shape: {tuple(bias.shape)}")
    for name, tensor in (("activations", x), ("bias", bias)):
        if tensor.dtype not in (*DTYPES, torch.float64):
            raise ValueError(f"{name} must be float32, bfloat16, float16 or float64, not: {tensor.dtype}")
    if bias.device != x.device:
        raise ValueError(f"activations and bias are on different devices: {x.device} and {bias.device}")
    if bias.requires_grad and torch.is_grad_enabled():
        raise ValueError("`bias_leaky_pixel_norm` has no gradient for its bias; pass `bias.detach()`")
    if not 0 <= leak <= 1:
        raise ValueError(f"leak must be 0 to 1: {leak}")
    if not epsilon > 0:
        raise ValueError(f"epsilon must be above 0: {epsilon}")


def _obstacle(x: Tensor, bias: Tensor) -> str | None:
    """Why the kernel cannot take these inputs, which the reference can, or None."""
    if torch.float64 in (x.dtype, bias.dtype):
        return "the kernel of bias_leaky_pixel_norm computes in float32; take impl='reference' for float64"
    if x.shape[1] > MAX_CHANNELS:
        return f"the kernel of bias_leaky_pixel_norm takes 1 to {MAX_CHANNELS} channels; take impl='reference' for: {x.shape[1]}"
    return None


# Opaque ops rather than `triton_op`, whose body the compilers trace: those cannot trace a kernel under the interpreter, so without a GPU
# nothing about compiling would be tested.
@torch.library.custom_op("latentray::bias_leaky_pixel_norm", mutates_args=())
def _forward(x: Tensor, bias: Tensor, leak: float, epsilon: float, upsample: bool) -> Tensor:
    from kernels.bias_leaky_pixel_norm.kernel import forward_kernel  # here, since Triton is not everywhere

    y = _empty_output(x, upsample)
    _launch(forward_kernel, x, (x, bias, y), leak=leak, epsilon=epsilon, upsample=upsample)
    return y


@torch.library.custom_op("latentray::bias_leaky_pixel_norm_backward", mutates_args=())
def _backward(grad_y: Tensor, x: Tensor, bias: Tensor, leak: float, epsilon: float, upsample: bool) -> Tensor:
    from kernels.bias_leaky_pixel_norm.kernel import backward_kernel

    grad_x = _empty_output(x, upsample=False)
    _launch(backward_kernel, x, (grad_y, x, bias, grad_x), leak=leak, epsilon=epsilon, upsample=upsample)
    return grad_x


def _empty_output(x: Tensor, upsample: bool) -> Tensor:
    batch, channels, height, width = x.shape
    scale = 2 if upsample else 1
    shape = (batch, channels, scale * height, scale * width)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _launch(kernel: Any, x: Tensor, pointers: Sequence[Tensor], *, leak: float, epsilon: float, upsample: bool) -> None:
    """Runs `kernel` over the pixels of `x` [N, C, H, W], channels-last as all of `pointers` but the bias are."""
    batch, channels, height, width = x.shape
    num_pixels = batch * height * width
    if num_pixels == 0:
        return
    launch = launch_for(torch.cuda.get_device_name(x.device) if x.is_cuda else "interpreter", channels)
    # Triton launches on the current device, which need not be this one; -1, the CPU, changes none.
    with torch.cuda.device(x.get_device()):
        kernel[(-(-num_pixels // launch.pixels),)](
            *(*pointers, num_pixels, width, leak, epsilon),
            COPIES=4 if upsample else 1,
            CHANNELS=channels,
            BLOCK_CHANNELS=bucket(channels),
            BLOCK_PIXELS=launch.pixels,
            num_warps=launch.warps,
        )


@_forward.register_fake
def _(x: Tensor, bias: Tensor, leak: float, epsilon: float, upsample: bool) -> Tensor:
    return _empty_output(x, upsample)


@_backward.register_fake
def _(grad_y: Tensor, x: Tensor, bias: Tensor, leak: float, epsilon: float, upsample: bool) -> Tensor:
    return _empty_output(x, upsample=False)


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, Tensor, float, float, bool], output: Tensor) -> None:
    x, bias, *ctx.settings = inputs
    ctx.save_for_backward(x, bias)


def _gradients(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    x, bias = ctx.saved_tensors
    grad_x = _backward(grad_y.contiguous(memory_format=torch.channels_last), x, bias, *ctx.settings)
    return grad_x, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_keep_inputs)
