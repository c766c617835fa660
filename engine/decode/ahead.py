"""The next shards' first batches, decoded while the current shard is coded and written."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from engine.decode.choose import Decoder
from engine.records import PixelBatch, Shard

MOST_SHARDS = 2  # begun at once: where one holds a single batch, its rows may take longer to write than its follower to decode


@dataclass(frozen=True, slots=True)
class _Begun:
    shard: Shard
    batches: Iterator[PixelBatch]
    first: Future[PixelBatch | None]


class DecodeAhead:
    """Hands out the batches of shards, and begins those that are known to follow: threads of its own wait, the decoder's do the work."""

    def __init__(self, decoder: Decoder, *, batch_size: int) -> None:
        self._decoder = decoder
        self._batch_size = batch_size
        self._threads = ThreadPoolExecutor(MOST_SHARDS, thread_name_prefix="decode-ahead")
        self._begun: deque[_Begun] = deque()

    def begin(self, *shards: Shard) -> None:
        """Starts to decode the shards that follow, unless they have been started: the first, and another only behind one of one batch."""
        for at, shard in enumerate(shards[:MOST_SHARDS]):
            if at < len(self._begun) and self._begun[at].shard != shard:
                self._drop(at)
            if at == len(self._begun):
                batches = self._batches(shard)
                self._begun.append(_Begun(shard, batches, self._threads.submit(next, batches, None)))
            if len(shard.refs) > self._batch_size:
                return

    def take(self, shard: Shard) -> Iterator[PixelBatch]:
        """The batches of a shard, from where they have been brought to if it is the one that was begun first."""
        if not self._begun or self._begun[0].shard != shard:
            return self._batches(shard)
        begun = self._begun.popleft()
        return self._resume(begun.first, begun.batches)

    def close(self) -> None:
        """Gives up what was begun."""
        self._drop(0)
        self._threads.shutdown()

    def _batches(self, shard: Shard) -> Iterator[PixelBatch]:
        return iter(self._decoder.batches([ref for ref in shard.refs if ref.row not in shard.poison]))

    def _resume(self, first: Future[PixelBatch | None], rest: Iterator[PixelBatch]) -> Iterator[PixelBatch]:
        batch = first.result()
        if batch is not None:
            yield batch
            yield from rest

    def _drop(self, kept: int) -> None:
        while len(self._begun) > kept:
            self._begun.pop().first.exception()  # waits: a generator that runs cannot be closed
