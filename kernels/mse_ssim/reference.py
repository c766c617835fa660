"""What is computed: mean squared error and SSIM (Wang et al. 2004) of each image, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.mse_ssim.cases import C1, C2, WINDOW


def mse_ssim(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """[N, 1, H, W] twice -> mse [N], ssim [N], float32 (float64 where an image is)."""
    wide = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    x, y = x.to(wide), y.to(wide)
    # centred on mid-gray, which changes no variance and keeps more of its digits
    centred_x, centred_y = x - 0.5, y - 0.5
    mean_x, mean_y = _blur(centred_x), _blur(centred_y)
    variance_x = _blur(centred_x.square()) - mean_x.square()
    variance_y = _blur(centred_y.square()) - mean_y.square()
    covariance = _blur(centred_x * centred_y) - mean_x * mean_y
    mean_x, mean_y = mean_x + 0.5, mean_y + 0.5
    luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
    contrast = (2 * covariance + C2) / (variance_x + variance_y + C2)
    return (x - y).square().mean(dim=(1, 2, 3)), (luminance * contrast).mean(dim=(1, 2, 3))


def mse_ssim_with_gradient(x: Tensor, y: Tensor, *, mse_weight: float, ssim_weight: float) -> tuple[Tensor, Tensor, Tensor]:
    """The two of `mse_ssim`, and the gradient of mse_weight * mse + ssim_weight * ssim in x, in the type of `x`."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        mse, ssim = mse_ssim(x, y.detach())
        (gradient,) = torch.autograd.grad((mse_weight * mse + ssim_weight * ssim).sum(), x)
    return mse.detach(), ssim.detach(), gradient


def _blur(image: Tensor) -> Tensor:
    """[N, 1, H, W] -> [N, 1, H - 10, W - 10]; shifted sums rather than a convolution, which TF32 or autocast could coarsen."""
    for axis in (-2, -1):
        length = image.shape[axis] - len(WINDOW) + 1
        image = torch.stack([weight * image.narrow(axis, tap, length) for tap, weight in enumerate(WINDOW)]).sum(dim=0)
    return image
