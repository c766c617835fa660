"""What refinement is compared with: the published loop's rate and its steps."""

from __future__ import annotations

import pytest
import torch

from benchmarks.refinement.published_loop import LEARNING_RATE, PublishedLoop, learning_rate
from benchmarks.refinement.random_codec import random_codec, random_codes

CODEC = random_codec((16, 8, 8))


def test_the_rate_rises_in_a_line_stays_and_falls_along_half_a_cosine() -> None:
    rates = [learning_rate(progress) / LEARNING_RATE for progress in (0, 0.025, 0.05, 0.6, 0.8, 0.9, 1)]
    assert rates == pytest.approx([0, 0.5, 1, 1, 0.5, (1 - 0.5**0.5) / 2, 0], abs=1e-12)


def test_it_keeps_the_last_codes_and_its_first_step_is_none() -> None:
    start = random_codes(CODEC, 3, seed=0)
    with torch.no_grad():
        targets = CODEC.generate(random_codes(CODEC, 3, seed=1))
    loop = PublishedLoop(CODEC.generator.network, targets, start, steps=20)
    loop.step()
    assert torch.equal(loop.codes, start)

    def loss() -> float:
        with torch.no_grad():
            return float((CODEC.generate(loop.codes) - targets).square().mean())

    before = loss()
    for _ in range(19):
        loop.step()
    assert loss() < 0.8 * before


def test_its_gradient_is_of_each_films_own_loss() -> None:
    start, films = random_codes(CODEC, 3, seed=0), torch.zeros(3, 1, 16, 16)
    together = PublishedLoop(CODEC.generator.network, films, start, steps=2).gradient(start)
    alone = PublishedLoop(CODEC.generator.network, films[:1], start[:1], steps=2).gradient(start[:1])
    assert torch.allclose(together[:1], alone, rtol=1e-4, atol=1e-7)
