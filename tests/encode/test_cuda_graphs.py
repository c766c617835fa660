"""Recorded work gives what it gave when it was run, with results of its own and gradients inside."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.encode.cuda_graphs import capture

pytestmark = pytest.mark.gpu


def test_a_replay_equals_the_run_for_any_number_of_rows() -> None:
    weight = torch.randn(6, 6, device="cuda")

    def run(codes: Tensor, features: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        return torch.tanh(codes @ weight) + features[0], codes.sum(1)

    recorded = capture(run, batch_size=4)
    kept = []
    for count in (4, 1, 7):
        codes, features = torch.randn(count, 6, device="cuda"), (torch.randn(count, 6, device="cuda"),)
        kept.append((recorded(codes, features), run(codes, features)))
    for found, expected in kept:  # compared at last: a later replay must not have written over earlier results
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)


def test_gradients_are_recorded_with_it() -> None:
    weight = torch.randn(6, 6, device="cuda")

    def run(codes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            codes = codes.detach().requires_grad_(True)
            loss = (torch.tanh(codes @ weight) - targets).square().sum(1)
            (gradient,) = torch.autograd.grad(loss.sum(), codes)
        return loss.detach(), gradient

    recorded = capture(run, batch_size=4)
    with torch.no_grad():
        for _ in range(3):
            codes, targets = torch.randn(3, 6, device="cuda"), torch.randn(3, 6, device="cuda")
            for found, expected in zip(recorded(codes, targets), run(codes, targets), strict=True):
                torch.testing.assert_close(found, expected)
