"""What is built for one batch size takes any number of rows, and each row comes back in its place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.encode.fixed_batch import FixedBatch, in_pieces


class Fixed:
    """Works on batches of four only, with a nested argument and nested results; notes the strides it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, rows: Tensor, features: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        assert all(len(part) == 4 for part in (rows, *features))
        assert not any(part.isnan().any() for part in (rows, *features))  # padding is copies, not rubbish
        self.calls.append(features[0].stride())
        return rows + features[1], (features[0].sum((1, 2, 3)), features[1])


def arguments(count: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    values = torch.arange(float(count))
    return values.reshape(-1, 1), (values.reshape(-1, 1, 1, 1).expand(-1, 2, 3, 3).contiguous(), 10 * values.reshape(-1, 1))


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 11])
def test_any_number_of_rows(count: int) -> None:
    fixed = Fixed()
    total, (sums, last) = FixedBatch(fixed, batch_size=4)(*arguments(count))
    values = torch.arange(float(count))
    assert torch.equal(total, 11 * values.reshape(-1, 1))
    assert torch.equal(sums, 18 * values)
    assert torch.equal(last, 10 * values.reshape(-1, 1))
    assert len(fixed.calls) == max(1, -(-count // 4))


def test_one_layout_whatever_the_callers_strides() -> None:
    fixed = Fixed()
    run = FixedBatch(fixed, batch_size=4)
    for count in (1, 4, 6):
        rows, (films, shifts) = arguments(count)
        run(rows, (films, shifts))
        run(rows, (films.repeat(1, 1, 1, 2)[..., ::2].contiguous(), shifts))
    assert set(fixed.calls) == {(18, 9, 3, 1)}
    fixed.calls.clear()
    for count in (1, 4, 6):  # features in channels-last order: a graph was traced for that
        rows, (films, shifts) = arguments(count)
        run(rows, (films.to(memory_format=torch.channels_last), shifts))
    assert set(fixed.calls) == {(18, 1, 6, 2)}


def test_arguments_are_not_written_to_and_types_stay() -> None:
    rows = torch.arange(3, dtype=torch.bfloat16).reshape(-1, 1)
    before = rows.clone()
    found = FixedBatch(lambda batch: batch.add_(1), batch_size=4)(rows)
    assert torch.equal(rows, before)
    assert torch.equal(found, before + 1)
    assert found.dtype == torch.bfloat16


@pytest.mark.parametrize("count", [0, 1, 4, 9])
def test_in_pieces_never_more_than_a_batch(count: int) -> None:
    seen = []

    def run(rows: Tensor, features: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        seen.append(len(rows))
        return rows + features[1], features[1]

    total, last = in_pieces(run, 4)(*arguments(count))
    assert torch.equal(total, 11 * torch.arange(float(count)).reshape(-1, 1))
    assert len(last) == count
    assert max(seen) <= 4
