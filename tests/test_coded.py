"""Films keep their codes, pixels and rows together when batches are taken apart and put together again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from engine.coded import CodedBatch, Guarded
from engine.records import ImageRef


def make(count: int = 3, *, with_films: bool = True) -> CodedBatch:
    """Rows 10, 11, ...; every number of a film is its row."""
    rows = torch.arange(10.0, 10 + count)
    refs = [ImageRef(int(row), f"film-{int(row)}", "nowhere") for row in rows]
    pixels = rows.reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()
    films = rows.reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone() if with_films else None
    return CodedBatch(refs=refs, pixels=pixels, films=films).start_from(rows.reshape(-1, 1, 1).expand(-1, 1, 5).clone())


def test_the_encoders_codes_are_stored_until_they_are_refined() -> None:
    batch = make()
    assert batch.kept.latents is batch.start
    assert (batch.kept.steps.tolist(), batch.kept.stop) == ([0, 0, 0], [])


@pytest.mark.parametrize("with_films", [True, False])
def test_apart_refined_and_together_again(with_films: bool) -> None:
    refined = []
    for one in make(with_films=with_films).apart():
        film = one.to_film()
        assert (film.key, film.pixels[0, 0, 0].item(), film.code[0, 0].item(), film.steps) == (one.refs[0].row, *[one.refs[0].row] * 2, 0)
        assert torch.equal(film.code, film.start)
        row = float(one.refs[0].row)
        stop = "target" if row > 10 else "diverged"
        refined.append(one.refined_to(replace(film, code=film.start + 0.5, steps=int(row), loss_initial=row, loss=row / 2, stop=stop)))
    order = [2, 0, 1]
    batch = CodedBatch.together([refined[at] for at in order])
    assert [ref.row for ref in batch.refs] == [12, 10, 11]
    for values in (batch.pixels, batch.start, *([batch.films] if batch.films is not None else [])):
        assert values.flatten(1)[:, 0].tolist() == [12, 10, 11]
    assert (batch.films is not None) == with_films
    assert batch.kept.latents.flatten(1)[:, 0].tolist() == [12.5, 10.5, 11.5]
    assert (batch.kept.steps.tolist(), batch.kept.stop) == ([12, 10, 11], ["target", "diverged", "target"])
    again = list(batch.apart())  # as when their metrics fail and each is tried alone
    assert [(one.refs[0].row, one.kept.steps.tolist(), one.kept.stop) for one in again] == [
        (12, [12], ["target"]),
        (10, [10], ["diverged"]),
        (11, [11], ["target"]),
    ]
    assert [one.kept.latents.flatten().tolist()[0] for one in again] == [12.5, 10.5, 11.5]


def test_films_without_codes_come_apart_too() -> None:
    batch = CodedBatch(refs=make().refs, pixels=make().pixels, films=None)
    assert [one.refs[0].row for one in batch.apart()] == [10, 11, 12]


def test_a_guarded_source_that_ends_has_no_error() -> None:
    source = Guarded(iter([1, 2]))
    assert list(source) == [1, 2]
    assert (source.is_over, source.error) == (True, None)


def test_a_guarded_source_keeps_its_own_error_and_no_other() -> None:
    def films() -> Iterator[int]:
        yield 1
        raise OSError("the disk")

    source = Guarded(films())
    assert next(source) == 1
    assert (source.is_over, source.error) == (False, None)
    with pytest.raises(OSError, match="the disk"):
        next(source)
    assert source.is_over
    assert isinstance(source.error, OSError)
