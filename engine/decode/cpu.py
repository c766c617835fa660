"""The thread-pool decoder: every film in a thread of its own, no process boundary, no GPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from engine.config import DecodeConfig
from engine.decode.formats import settle_libraries
from engine.decode.stretch import SingleFilm, Stretch, depth_for, read_ahead, stretches
from engine.recipe import PixelRecipe
from engine.records import ImageRef, PixelBatch


def num_threads(cfg: DecodeConfig) -> int:
    """The threads asked for, or one for each core that this process may use."""
    return cfg.threads or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


class PoolDecoder:
    """Decodes films in `cfg.threads` threads. `pixels` and `films` are float32 [N, 1, S, S] on the CPU."""

    name = "cpu"

    def __init__(
        self, recipe: PixelRecipe, cfg: DecodeConfig, *, read: Callable[[str], bytes], batch_size: int, film_size: int | None
    ) -> None:
        settle_libraries()
        self._single = SingleFilm(recipe, cfg, read=read)
        self._batch_size, self._film_size = batch_size, film_size
        self._depth = depth_for(num_threads(cfg), batch_size)
        self._pool = ThreadPoolExecutor(num_threads(cfg), thread_name_prefix="decode")

    def batches(self, refs: Sequence[ImageRef]) -> Iterator[PixelBatch]:
        """One batch for each stretch of `batch_size` refs, in order; the next ones are decoded while the caller works."""
        return read_ahead((self._begin(part) for part in stretches(refs, self._batch_size)), self._depth)

    def close(self) -> None:
        """Ends the threads, once the films they hold are done."""
        self._pool.shutdown(cancel_futures=True)
        self._single.close()

    def _begin(self, refs: Sequence[ImageRef]) -> _PoolJob:
        stretch = Stretch(refs, self._single.recipe.resolution, film_size=self._film_size)
        return _PoolJob(stretch, [self._pool.submit(self._film, stretch, index) for index in range(len(refs))])

    def _film(self, stretch: Stretch, index: int) -> None:
        sealed = self._single.load(stretch, index)
        if sealed is not None:
            self._single.develop(stretch, index, sealed)


@dataclass(frozen=True, slots=True)
class _PoolJob:
    stretch: Stretch
    films: list[Future[None]]

    def finish(self) -> PixelBatch:
        for film in self.films:
            film.result()
        return self.stretch.to_batch()

    def cancel(self) -> None:
        for film in self.films:
            film.cancel()
