"""A worker that does nothing, so that what a shard costs beside the work in it can be measured."""

from __future__ import annotations

from collections.abc import Sequence

from engine.records import ImageRef, Shard, ShardReceipt


class IdleWorker:
    """A worker, and a flow, that finds every film ok without looking at it. Its process imports this module, and little else."""

    def __init__(self, cfg: object) -> None:
        self._cfg = cfg

    def ready(self) -> bool:
        """At once."""
        return True

    def run(self, shard: Shard) -> ShardReceipt:
        """What a worker does for a shard, as far as the driver can see."""
        n = len(shard.refs)
        return ShardReceipt(shard.index, shard.refs[0].row, n, shard.digest, shard.attempt, {"ok": n}, {}, [], {}, {})

    def encode(self, shard: Shard, *, following: Sequence[Shard] = ()) -> ShardReceipt:
        """What a flow does for a shard; what follows is not decoded here."""
        return self.run(shard)

    def rehearse(self, refs: Sequence[ImageRef]) -> dict[str, float]:
        """Never fails."""
        return {}

    def close(self) -> None:
        """Has nothing to stop."""
