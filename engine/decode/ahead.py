"""The next shard's first batches, decoded while the current shard is coded and written."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from engine.decode.choose import Decoder
from engine.records import PixelBatch, Shard


class DecodeAhead:
    """Hands out the batches of shards, and begins one that is known to follow: one thread waits for it, the decoder's do the work."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decode-ahead")
        self._begun: tuple[Shard, Iterator[PixelBatch], Future[PixelBatch | None]] | None = None

    def begin(self, shard: Shard) -> None:
        """Starts to decode a shard, unless it has been started."""
        if self._begun is None or self._begun[0] != shard:
            self._drop()
            batches = self._batches(shard)
            self._begun = (shard, batches, self._thread.submit(next, batches, None))

    def take(self, shard: Shard) -> Iterator[PixelBatch]:
        """The batches of a shard, from where they have been brought to if it is the one that was begun."""
        if self._begun is None or self._begun[0] != shard:
            return self._batches(shard)
        _, batches, first = self._begun
        self._begun = None
        return self._resume(first, batches)

    def close(self) -> None:
        """Gives up what was begun."""
        self._drop()
        self._thread.shutdown()

    def _batches(self, shard: Shard) -> Iterator[PixelBatch]:
        return iter(self._decoder.batches([ref for ref in shard.refs if ref.row not in shard.poison]))

    def _resume(self, first: Future[PixelBatch | None], rest: Iterator[PixelBatch]) -> Iterator[PixelBatch]:
        batch = first.result()
        if batch is not None:
            yield batch
            yield from rest

    def _drop(self) -> None:
        if self._begun is not None:
            self._begun[2].exception()  # waits: a generator that runs cannot be closed
            self._begun = None
