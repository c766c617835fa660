"""Films with their codes, between the stages that make codes and the rows of an archive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from engine.records import ImageRef, LatentBatch
from engine.refine.descent import Film

Item = TypeVar("Item")


def _no_codes() -> LatentBatch:
    return LatentBatch(latents=torch.empty(0), steps=torch.empty(0, dtype=torch.int32))


@dataclass(frozen=True, kw_only=True)
class CodedBatch:
    """Films `refs`, their pixels [n, 1, R, R] and those for metrics (`films`, or None), the encoder's codes, and the codes to store."""

    refs: list[ImageRef]
    pixels: Tensor
    films: Tensor | None
    start: Tensor = field(default_factory=lambda: torch.empty(0))
    kept: LatentBatch = field(default_factory=_no_codes)

    def start_from(self, codes: Tensor) -> CodedBatch:
        """With the encoder's codes [n, *shape], which are those to store until they are refined."""
        return replace(self, start=codes, kept=LatentBatch(latents=codes, steps=torch.zeros(len(codes), dtype=torch.int32)))

    def apart(self) -> Iterator[CodedBatch]:
        """Its films one by one, without what refinement said of them."""
        for at, ref in enumerate(self.refs):
            one = slice(at, at + 1)
            single = CodedBatch(refs=[ref], pixels=self.pixels[one], films=None if self.films is None else self.films[one])
            kept = LatentBatch(
                latents=self.kept.latents[one], steps=self.kept.steps[one], stop=self.kept.stop[one] if self.kept.stop else []
            )
            yield replace(single, start=self.start[one], kept=kept)

    def on_its_own(self) -> CodedBatch:
        """The same in memory of its own: a film that takes long must not hold those that it was decoded with."""
        return replace(self, pixels=self.pixels.clone(), films=None if self.films is None else self.films.clone())

    def to_film(self) -> Film:
        """A batch of one as refinement takes it; its key is the row."""
        (ref,) = self.refs
        return Film(key=ref.row, pixels=self.pixels[0], start=self.start[0], code=self.start[0])

    def refined_to(self, film: Film) -> CodedBatch:
        """A batch of one with what refinement made of it."""
        kept = LatentBatch(
            latents=film.code[None],
            steps=torch.tensor([film.steps], dtype=torch.int32),
            loss_initial=torch.tensor([film.loss_initial]),
            loss=torch.tensor([film.loss]),
            stop=[film.stop],
        )
        return replace(self, kept=kept)

    @classmethod
    def together(cls, batches: Sequence[CodedBatch]) -> CodedBatch:
        """One batch of several that were refined."""
        films = [batch.films for batch in batches if batch.films is not None]
        return cls(
            refs=[ref for batch in batches for ref in batch.refs],
            pixels=torch.cat([batch.pixels for batch in batches]),
            films=torch.cat(films) if films else None,
            start=torch.cat([batch.start for batch in batches]),
            kept=LatentBatch(
                latents=torch.cat([batch.kept.latents for batch in batches]),
                steps=torch.cat([batch.kept.steps for batch in batches]),
                stop=[stop for batch in batches for stop in batch.kept.stop],
            ),
        )


class Guarded(Generic[Item]):
    """An iterator that remembers whether it is over, and what it raised: that error is not of the one who takes its items."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self.is_over = False
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        try:
            return next(self._items)
        except StopIteration:
            self.is_over = True
            raise
        except Exception as error:
            self.is_over, self.error = True, error
            raise
