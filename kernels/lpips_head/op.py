"""The head of LPIPS in one pass over channels-last features, with gradient: one op to torch.compile and torch.export."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.dispatch import Impl, use_kernel
from kernels.lpips_head import reference
from kernels.lpips_head.cases import DTYPES, MAX_CHANNELS, MEAN_BLOCK, bucket, launch_for


def lpips_head(features: Tensor, target: Tensor, weights: Tensor, *, epsilon: float = 1e-10, impl: Impl = "auto") -> Tensor:
    """Distance of each image's features to its target's: [N, C, H, W] twice, weights [C] -> [N] float32.

    Features over (their Euclidean norm over channels + epsilon), minus target, squared, weighted, summed over channels, mean over pixels.
    features: float32, bfloat16 or float16 (float64 by the reference only, and then so is the result), any strides (copied unless
    channels-last). target: what `unit_features` made, weights: nonnegative, either of any of these types. Computed in float32.
    Differentiable in `features`: by the kernel once, and a second gradient raises RuntimeError. A pixel of zeros has no direction: it
    counts as it is, with gradient 0 (in the package `lpips`, NaN).
    The kernel takes 1 to 512 channels; the result of an image is the same, bit for bit, whatever shares its batch.
    Raises ValueError for inputs that make no sense and for a target or weights that want a gradient, `KernelUnavailable` as `use_kernel`
    does.
    Source: Zhang et al. 2018, equation 1, with the epsilon of the package `lpips` 0.1.x.
    """
    _check_features(features, epsilon)
    _check_target(features, target, weights)
    features, target = (x.contiguous(memory_format=torch.channels_last) for x in (features, target))
    if not use_kernel(features, impl, obstacle=_obstacle(features, target, weights)):
        return reference.lpips_head(features, target, weights, epsilon=epsilon)
    value: Tensor = _forward(features, target, weights.contiguous(), float(epsilon))
    return value


def unit_features(features: Tensor, *, epsilon: float = 1e-10) -> Tensor:
    """The target for `lpips_head`: features [N, C, H, W] over (their norm over channels + epsilon), in their type, channels-last, detached.

    Made once a target, so in plain PyTorch on every device: computed in float32 and rounded once. Raises ValueError as `lpips_head` does.
    """
    _check_features(features, epsilon)
    unit = reference.unit_features(features.detach(), epsilon=epsilon)
    return unit.to(features.dtype).contiguous(memory_format=torch.channels_last)


def _check_features(features: Tensor, epsilon: float) -> None:
    if features.dim() != 4:
        raise ValueError(f"features must be [N, C, H, W], not of shape: {tuple(features.shape)}")
    if 0 in features.shape[1:]:
        raise ValueError(f"features need one channel and one pixel or more, not shape: {tuple(features.shape)}")
    _check_dtype("features", features)
    if not epsilon > 0:
        raise ValueError(f"epsilon must be above 0: {epsilon}")


def _check_target(features: Tensor, target: Tensor, weights: Tensor) -> None:
    if target.shape != features.shape:
        raise ValueError(f"features and target differ in shape: {tuple(features.shape)} and {tuple(target.shape)}")
    if weights.shape != features.shape[1:2]:
        raise ValueError(f"weights need one value for each of {features.shape[1]} channels, not shape: {tuple(weights.shape)}")
    for name, tensor in (("target", target), ("weights", weights)):
        _check_dtype(name, tensor)
        if tensor.device != features.device:
            raise ValueError(f"features and {name} are on different devices: {features.device} and {tensor.device}")
        if tensor.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"`lpips_head` has no gradient for its {name}; pass `{name}.detach()`")


def _check_dtype(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in (*DTYPES, torch.float64):
        raise ValueError(f"{name} must be float32, bfloat16, float16 or float64, not: {tensor.dtype}")


def _obstacle(features: Tensor, target: Tensor, weights: Tensor) -> str | None:
    """Why the kernel cannot take these inputs, which the reference can, or None."""
    if torch.float64 in (features.dtype, target.dtype, weights.dtype):
        return "the kernel of lpips_head computes in float32; take impl='reference' for float64"
    if features.shape[1] > MAX_CHANNELS:
        return f"the kernel of lpips_head takes 1 to {MAX_CHANNELS} channels; take impl='reference' for: {features.shape[1]}"
    return None


# Opaque ops rather than `triton_op`, as everywhere in this package: see its README.
@torch.library.custom_op("latentray::lpips_head", mutates_args=())
def _forward(features: Tensor, target: Tensor, weights: Tensor, epsilon: float) -> Tensor:
    from kernels.lpips_head.kernel import forward_kernel, mean_kernel  # here, since Triton is not everywhere

    num_images, num_pixels, num_tiles = _tiles(features)
    partial = features.new_empty((num_images, num_tiles), dtype=torch.float32)
    value = features.new_empty(num_images, dtype=torch.float32)
    _launch(forward_kernel, features, features, target, weights, partial, epsilon=epsilon)
    if num_images:
        with torch.cuda.device(features.get_device()):
            mean_kernel[(num_images,)](partial, value, num_pixels, num_tiles, BLOCK=MEAN_BLOCK, num_warps=4)
    return value


@torch.library.custom_op("latentray::lpips_head_backward", mutates_args=())
def _backward(grad_value: Tensor, features: Tensor, target: Tensor, weights: Tensor, epsilon: float) -> Tensor:
    from kernels.lpips_head.kernel import backward_kernel

    grad_features = torch.empty_like(features, memory_format=torch.channels_last)
    _launch(backward_kernel, features, grad_value, features, target, weights, grad_features, epsilon=epsilon)
    return grad_features


def _tiles(features: Tensor) -> tuple[int, int, int]:
    """Images, pixels an image, and programs an image."""
    batch, channels, height, width = features.shape
    launch = launch_for(_device_name(features), channels)
    return batch, height * width, -(-height * width // launch.pixels)


def _launch(kernel: Any, features: Tensor, *pointers: Tensor, epsilon: float) -> None:
    """Runs `kernel` over the pixels of `features` [N, C, H, W], channels-last as the target and the gradient are."""
    num_images, num_pixels, num_tiles = _tiles(features)
    if num_images == 0:
        return
    channels = features.shape[1]
    launch = launch_for(_device_name(features), channels)
    # Triton launches on the current device, which need not be this one; -1, the CPU, changes none
    with torch.cuda.device(features.get_device()):
        kernel[(num_images * num_tiles,)](
            *(*pointers, num_pixels, num_tiles, epsilon),
            CHANNELS=channels,
            BLOCK_CHANNELS=bucket(channels),
            BLOCK_PIXELS=launch.pixels,
            num_warps=launch.warps,
        )


def _device_name(features: Tensor) -> str:
    return torch.cuda.get_device_name(features.device) if features.is_cuda else "interpreter"


@_forward.register_fake
def _(features: Tensor, target: Tensor, weights: Tensor, epsilon: float) -> Tensor:
    return features.new_empty(features.shape[0], dtype=torch.float32)


@_backward.register_fake
def _(grad_value: Tensor, features: Tensor, target: Tensor, weights: Tensor, epsilon: float) -> Tensor:
    return torch.empty_like(features, memory_format=torch.channels_last)


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: Tensor) -> None:
    features, target, weights, ctx.epsilon = inputs
    ctx.save_for_backward(features, target, weights)


def _gradients(ctx: Any, grad_value: Tensor) -> tuple[Tensor, None, None, None]:
    features, target, weights = ctx.saved_tensors
    # the gradient of a sum is one number seen N times, which only a copy lays out side by side
    grad_features: Tensor = _backward(grad_value.contiguous(), features, target, weights, ctx.epsilon)
    return grad_features, None, None, None


_forward.register_autograd(_gradients, setup_context=_keep_inputs)
