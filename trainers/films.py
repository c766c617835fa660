"""The films of a SOURCE as a trainer takes them: pixels in the plan's order, unreadable films named, counted and left out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

from torch import Tensor

from engine.config import DecodeConfig
from engine.decode.choose import build_decoder
from engine.errors import SourceError
from engine.recipe import PixelRecipe
from engine.records import PixelBatch
from engine.source.opening import read_bytes
from engine.source.plan import make_plan

log = logging.getLogger(__name__)

_SHARD_ROWS = 1024
_NAMED = 20  # failures that are logged one by one


class Films:
    """One pass over the films of `source`; its plan is kept in `folder`. Counts films given out and films that failed.

    `id_from` as `make_plan` takes it. Nothing is decoded before the films are asked for.
    """

    def __init__(
        self,
        source: str,
        folder: Path,
        recipe: PixelRecipe,
        *,
        limit: int | None,
        batch_size: int,
        decode: DecodeConfig,
        id_from: str | None = "relpath",
    ) -> None:
        self.plan = make_plan(source, folder / "plan.parquet", shard_rows=_SHARD_ROWS, id_from=id_from, limit=limit)
        self.num_films = 0
        self.failed_by_reason: Counter[str] = Counter()  # "stage: reason", which names no path
        self._recipe, self._decode, self._batch_size = recipe, decode, batch_size

    @property
    def num_failed(self) -> int:
        """Films met so far that could not be read."""
        return self.failed_by_reason.total()

    @property
    def failed_fraction(self) -> float:
        """Of the films met so far, the share that could not be read."""
        return self.num_failed / max(1, self.num_failed + self.num_films)

    def batches(self) -> Iterator[Tensor]:
        """Pixels [n, 1, R, R] float32 in [-1, 1]. Ends with SourceError where not one film could be read."""
        for batch in self.pixel_batches():
            if batch.refs:
                yield batch.pixels

    def pixel_batches(self) -> Generator[PixelBatch, None, None]:
        """As `batches`, with the refs of the films; a batch of nothing but failures comes, too."""
        read = partial(read_bytes, max_bytes=self._decode.max_bytes)
        decoder = build_decoder(self._recipe, self._decode, read=read, batch_size=self._batch_size, film_size=None)
        try:
            for shard in self.plan.shards():
                for batch in decoder.batches(shard.refs):
                    for failure in batch.failures:
                        self._count_failure(failure.sample_id, failure.stage, failure.reason)
                    self.num_films += len(batch.refs)
                    yield batch
        finally:
            decoder.close()
        if not self.num_films:
            raise SourceError(f"not one film of the source could be read: {self.num_failed}")

    def _count_failure(self, name: str, stage: str, reason: str) -> None:
        self.failed_by_reason[f"{stage}: {reason}"] += 1
        if self.num_failed <= _NAMED:
            log.warning("film left out, %s failed (%s): %s", stage, reason, name)
        elif self.num_failed == _NAMED + 1:
            log.warning("further films are left out without a line each")
