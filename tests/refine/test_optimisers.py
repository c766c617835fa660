"""Per-image Adam is Adam on each image, also when images leave."""

from __future__ import annotations

import torch

from engine.refine.optimisers import PerImageAdam


def test_equals_torch_adam_when_images_leave() -> None:
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(3, 2, 4, generator=draw)
    gradients = [torch.randn(3, 2, 4, generator=draw) * 10.0 ** (-3 * step) for step in range(6)]
    expected = [row.clone().requires_grad_(True) for row in start]
    for row, code in enumerate(expected):
        optimiser = torch.optim.Adam([code], lr=0.03)
        for gradient in gradients[: 3 if row == 1 else 6]:
            code.grad = gradient[row].clone()
            optimiser.step()

    adam, latents, rows = PerImageAdam(start, lr=0.03), start, [0, 1, 2]
    for step, gradient in enumerate(gradients):
        if step == 3:
            adam.keep(torch.tensor([True, False, True]))
            torch.testing.assert_close(latents[1], expected[1].detach(), rtol=1e-6, atol=1e-6)
            latents, rows = latents[[0, 2]], [0, 2]
        latents = adam.step(latents, gradient[rows])
    torch.testing.assert_close(latents, torch.stack([expected[0], expected[2]]).detach(), rtol=1e-6, atol=1e-6)


def test_arguments_stay_as_they_are() -> None:
    start, gradient = torch.ones(2, 3), torch.ones(2, 3)
    moved = PerImageAdam(start, lr=0.1).step(start, gradient)
    assert torch.equal(start, torch.ones(2, 3))
    assert torch.equal(gradient, torch.ones(2, 3))
    assert (moved < 1).all()
