"""The least time of a step: what is counted, and how it adds up."""

from __future__ import annotations

import pytest
import torch

from benchmarks.refinement.floor import image_steps_a_second, layers, measure
from benchmarks.refinement.random_codec import random_codec
from engine.encode.cost import codec_cost

CHANNELS = [32, 16, 8]


def test_operations_are_those_that_torch_counts() -> None:
    counted = sum(layer.flops for layer in layers(CHANNELS)) / 1e9
    assert counted == pytest.approx(codec_cost(random_codec(tuple(CHANNELS))).gradient[16], rel=0.05)  # it counts borders otherwise


def test_no_layer_is_faster_than_the_slower_of_its_two() -> None:
    total_flops, total_bytes = (sum(getattr(layer, name) for layer in layers(CHANNELS)) for name in ("flops", "bytes"))
    assert image_steps_a_second(CHANNELS, flops=1e9, bandwidth=1e30) == pytest.approx(1e9 / total_flops)
    assert image_steps_a_second(CHANNELS, flops=1e30, bandwidth=1e9) == pytest.approx(1e9 / total_bytes)


def test_rates_are_measured() -> None:
    rates = measure(repeats=2, matrix=64, copied=2**16, device="cpu")
    assert min(rates.values()) > 1e6
    assert torch.get_default_dtype() == torch.float32
