"""What the trainer's step is held against: it learns, it counts the same gradients, and a wrong one is found before anything is timed."""

from __future__ import annotations

import pytest
import torch

from benchmarks.commands import StepFailed
from benchmarks.models import train

LEVEL, CHANNELS, BATCH = 1, (8, 8), 4


def films() -> torch.Tensor:
    return torch.rand(BATCH, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_first_gradients_are_the_trainers() -> None:
    task = train._task(LEVEL, CHANNELS, BATCH, torch.device("cpu"), compiled=False)
    expected = train._plain_gradients(train._plain(task, LEVEL), films())
    found = train._gradients(task, films(), bf16=False)
    assert train._difference(found, expected) < 1e-4
    assert not any(torch.equal(each, torch.zeros_like(each)) for name, each in found[1].items() if "weight" in name)


def test_a_step_moves_both_networks_and_the_average() -> None:
    task = train._task(LEVEL, CHANNELS, BATCH, torch.device("cpu"), compiled=False)
    plain = train._plain(task, LEVEL)
    before = {name: value.clone() for name, value in plain.average.state_dict().items()}
    train._plain_turn(plain, films(), 0)
    train._turn(task, films(), False, 0)
    for name, value in plain.average.state_dict().items():
        torch.testing.assert_close(value, task.average.module.state_dict()[name], rtol=1e-4, atol=1e-5)
    assert not torch.equal(plain.average.state_dict()["linear.weight"], before["linear.weight"])


def test_wrong_gradients_are_found() -> None:
    task = train._task(LEVEL, CHANNELS, BATCH, torch.device("cpu"), compiled=False)
    expected = train._plain_gradients(train._plain(task, LEVEL), films())
    task.discriminator.first.weight.data *= 1.1
    found = train._gradients(task, films(), bf16=False)
    assert train._difference(found, expected) > train.MOST_OFF
    found[0].pop("first.weight")
    with pytest.raises(StepFailed, match=r"other weights than the plain step's: first\.weight"):
        train._difference(found, expected)
