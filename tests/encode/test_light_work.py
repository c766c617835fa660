"""Light encoders run in one thread, and leave torch as they found it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.encode.codec import Codec, load_codec
from engine.encode.compile import prepare
from engine.encode.cost import count_gflop
from engine.encode.light_work import LIGHT_GFLOP, in_one_thread
from engine.networks.convnext import ConvNextEncoder, ConvNextSettings


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def seen_threads(codec: Codec) -> list[int]:
    """How many threads torch has while a prepared encoder runs."""
    found: list[int] = []
    assert codec.encoder is not None
    codec.encoder.register_forward_hook(lambda module, rows, codes: found.append(torch.get_num_threads()))
    ready = prepare(codec, backend="eager", precision="fp32", batch_size=2, device="cpu")
    found.clear()
    ready.encode(torch.zeros(2, 1, codec.recipe.resolution, codec.recipe.resolution))
    return found


def test_a_linear_codec_is_run_in_one_thread_and_the_others_come_back(small_codec: Path) -> None:
    assert seen_threads(load_codec(small_codec)) == [1]
    assert torch.get_num_threads() == 3


def test_threads_come_back_after_an_error() -> None:
    def fails(rows: Tensor) -> Tensor:
        raise ValueError("no codes")

    with pytest.raises(ValueError, match="no codes"):
        in_one_thread(fails)(torch.zeros(1))
    assert torch.get_num_threads() == 3


def test_a_deep_encoder_is_no_light_work() -> None:
    network = ConvNextEncoder(ConvNextSettings(depths=(1, 1), widths=(96, 192)))
    assert count_gflop(network, (1, 1, 512, 512))[0] > LIGHT_GFLOP
