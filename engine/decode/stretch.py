"""One batch in the making: a stretch of the plan whose films are read, decoded and prepared one by one, by any thread in any order."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Protocol

import numpy as np
import torch

from engine.config import DecodeConfig
from engine.decode.film import Film, SealedFilm, Unit
from engine.decode.formats import open_film, read_film
from engine.decode.guard import Guard
from engine.decode.prepare import prepare
from engine.errors import DecodeError, RowError
from engine.recipe import PixelRecipe
from engine.records import Failure, ImageRef, PixelBatch, SourceInfo, Status


class Stretch:
    """Slots for the pixels of `refs`, filled in place; rows that fail leave theirs unused."""

    def __init__(self, refs: Sequence[ImageRef], resolution: int, *, film_size: int | None, device: torch.device | None = None) -> None:
        self.refs = list(refs)
        self.pixels = torch.empty((len(refs), 1, resolution, resolution), device=device)
        self.films: torch.Tensor | None = None
        if film_size is not None:
            shape = (len(refs), 1, film_size, film_size)
            self.films = self.pixels if film_size == resolution else torch.empty(shape, device=device)
        self.infos: list[SourceInfo | None] = [None] * len(refs)
        self.failures: list[Failure | None] = [None] * len(refs)
        self.seconds = {name: [0.0] * len(refs) for name in ("read", "decode")}  # of threads; a film is with one thread at a time

    @contextmanager
    def busy(self, index: int, name: str) -> Iterator[None]:
        """Adds the time of a `with` block, which works on row `index`."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name][index] += perf_counter() - start

    def slots(self, index: int) -> list[torch.Tensor]:
        """The one or two [S, S] tensors that row `index` is to be written into."""
        wanted = [self.pixels] if self.films is None or self.films is self.pixels else [self.pixels, self.films]
        return [tensor[index, 0] for tensor in wanted]

    def to_batch(self) -> PixelBatch:
        """The finished batch, with the failed rows taken out."""
        kept = [index for index, failure in enumerate(self.failures) if failure is None]
        pixels, films = self.pixels, self.films
        if len(kept) < len(self.refs):
            pixels = self.pixels[kept]
            films = pixels if self.films is self.pixels else None if self.films is None else self.films[kept]
        return PixelBatch(
            refs=[self.refs[index] for index in kept],
            pixels=pixels,
            films=films,
            infos=[info for index in kept if (info := self.infos[index]) is not None],
            failures=[failure for failure in self.failures if failure is not None],
            failed_infos={
                failure.row: info
                for failure, info in zip(self.failures, self.infos, strict=True)
                if failure is not None and info is not None
            },
            seconds={name: sum(spent) for name, spent in self.seconds.items()},
        )


class SingleFilm:
    """The way of one film, the judge of every bad one: read, digest, header, pixels, recipe. Failures are written into the stretch."""

    def __init__(self, recipe: PixelRecipe, cfg: DecodeConfig, *, read: Callable[[str], bytes]) -> None:
        self.recipe, self.cfg, self.read = recipe, cfg, read
        self._guard = Guard(recipe, cfg)

    def load(self, stretch: Stretch, index: int) -> SealedFilm | None:
        """The bytes and header of row `index`, noted in the stretch; None where they cannot be had."""
        try:
            with stretch.busy(index, "read"):
                data = self.read(stretch.refs[index].uri)
            with stretch.busy(index, "decode"):
                digest = hashlib.sha256(data).digest()
                stretch.infos[index] = SourceInfo(digest, height=0, width=0, bits=0)
                sealed = open_film(data, self.cfg)
        except RowError as error:
            self._fail(stretch, index, error)
            return None
        header = sealed.header
        stretch.infos[index] = SourceInfo(digest, height=header.height, width=header.width, bits=header.bits, note=header.note)
        return sealed

    def develop(self, stretch: Stretch, index: int, sealed: SealedFilm) -> None:
        """The pixels of row `index`, in its slots; made here where that is safe, else by the guard."""
        with stretch.busy(index, "decode"):
            try:
                film = self._guard.read(sealed) if sealed.header.is_risky else read_film(sealed, self.recipe)
            except DecodeError as error:
                self._fail(stretch, index, error)
                return
            self.write(stretch, index, film)

    def write(self, stretch: Stretch, index: int, film: Film) -> None:
        """Applies the recipe on the CPU and leaves the pixels in the slots of row `index`, wherever these lie."""
        slots = stretch.slots(index)
        outs: list[Unit] = [slot.numpy() if slot.device.type == "cpu" else np.empty(slot.shape, dtype=np.float32) for slot in slots]
        prepare(film, self.recipe, *outs)
        for slot, out in zip(slots, outs, strict=True):
            if slot.device.type != "cpu":
                slot.copy_(torch.from_numpy(out))

    def close(self) -> None:
        """Ends the guard's processes; called once no thread has a film."""
        self._guard.close()

    def _fail(self, stretch: Stretch, index: int, error: RowError) -> None:
        ref = stretch.refs[index]
        stretch.failures[index] = Failure(ref.row, ref.sample_id, Status.DECODE_ERROR, stage=error.stage, reason=error.reason)


class Job(Protocol):
    """A stretch under way."""

    def finish(self) -> PixelBatch:
        """Waits for the last film and returns the batch."""
        ...

    def cancel(self) -> None:
        """Gives up what has not begun."""
        ...


def read_ahead(jobs: Iterable[Job], depth: int) -> Iterator[PixelBatch]:
    """The batches of `jobs` in order; up to `depth` jobs beyond the one handed out are begun, so memory is bounded by `depth` alone."""
    waiting: deque[Job] = deque()
    try:
        for job in jobs:
            waiting.append(job)
            if len(waiting) > depth:
                yield waiting.popleft().finish()
        while waiting:
            yield waiting.popleft().finish()
    finally:
        for job in waiting:
            job.cancel()


def stretches(refs: Sequence[ImageRef], batch_size: int) -> Iterator[Sequence[ImageRef]]:
    """Consecutive stretches of `batch_size`; the last may be shorter."""
    for start in range(0, len(refs), batch_size):
        yield refs[start : start + batch_size]


def depth_for(threads: int, batch_size: int) -> int:
    """How many stretches to begin ahead: two, or as many small ones as keep every thread busy twice over."""
    return max(2, -(-2 * threads // batch_size))
