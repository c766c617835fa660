"""Decoding the shard that follows: the same films as without, whatever shard comes next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from engine.config import DecodeConfig
from engine.decode.ahead import DecodeAhead
from engine.decode.choose import Decoder, build_decoder
from engine.recipe import PixelRecipe
from engine.records import ImageRef, Shard
from engine.source.phantom import phantom_png


@pytest.fixture(scope="module")
def films() -> dict[str, bytes]:
    return {str(row): phantom_png(9, row, size=64) for row in range(12)} | {"5": b"no film"}


@pytest.fixture
def decoder(films: dict[str, bytes]) -> Iterator[Decoder]:
    made = build_decoder(PixelRecipe(resolution=32), DecodeConfig(threads=2), read=films.__getitem__, batch_size=2, film_size=None)
    yield made
    made.close()


def shard(index: int) -> Shard:
    rows = range(4 * index, 4 * index + 4)
    return Shard(index=index, refs=tuple(ImageRef(row, f"film-{row}", str(row)) for row in rows), digest="")


def pixels_of(ahead: DecodeAhead, work: Shard) -> tuple[list[int], list[int], torch.Tensor]:
    batches = list(ahead.take(work))
    rows = [ref.row for batch in batches for ref in batch.refs]
    return rows, [failure.row for batch in batches for failure in batch.failures], torch.cat([batch.pixels for batch in batches])


def test_announced_shards_are_the_same_films(decoder: Decoder) -> None:
    plain, ahead = DecodeAhead(decoder, batch_size=2), DecodeAhead(decoder, batch_size=2)
    for index in range(3):
        batches = ahead.take(shard(index))
        if index < 2:
            ahead.begin(shard(index + 1))
        rows = [ref.row for batch in batches for ref in batch.refs]
        assert rows == [row for row in range(4 * index, 4 * index + 4) if row != 5]
    expected = pixels_of(plain, shard(1))
    ahead.begin(shard(1))
    ahead.begin(shard(1))
    got = pixels_of(ahead, shard(1))
    assert got[:2] == expected[:2] == ([4, 6, 7], [5])
    assert torch.equal(got[2], expected[2])
    plain.close()
    ahead.close()


def test_another_shard_than_the_announced_one_gets_its_own_films(decoder: Decoder) -> None:
    ahead = DecodeAhead(decoder, batch_size=2)
    ahead.begin(shard(1))
    assert pixels_of(ahead, shard(2))[0] == [8, 9, 10, 11]
    again = replace(shard(1), attempt=2, poison=frozenset({6}))  # the same shard after a death is not what was begun
    assert pixels_of(ahead, again)[:2] == ([4, 7], [5])
    ahead.begin(shard(0))
    ahead.close()


def test_a_shard_of_one_batch_has_another_begun_behind_it(decoder: Decoder) -> None:
    for batch_size, begun in ((2, [1]), (4, [1, 2])):
        ahead = DecodeAhead(decoder, batch_size=batch_size)
        ahead.begin(shard(1), shard(2))
        ahead.begin(shard(1), shard(2))
        assert [each.shard.index for each in ahead._begun] == begun
        assert pixels_of(ahead, shard(1))[0] == [4, 6, 7]
        assert pixels_of(ahead, shard(2))[0] == [8, 9, 10, 11]
        ahead.begin(shard(1))
        ahead.begin(shard(0))  # not what was announced
        assert [each.shard.index for each in ahead._begun] == [0]
        ahead.close()
