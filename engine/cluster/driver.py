"""The driver: shards out, receipts in. Bounded in flight, attempts counted here, a film that kills its worker is found and marked."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from engine.archive.writer import ShardConflict
from engine.cluster.pools import Outcome, Pool
from engine.errors import ClusterError, LatentrayError
from engine.records import ImageRef, Shard, ShardReceipt

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
DEATHS_BEFORE_SEARCH = 2
MOST_NODES_LOST = 8  # by one shard: more are hardly chance


class ShardFailed(ClusterError):
    """A shard failed every attempt for a reason that is not one film's."""


class Driver:
    """Feeds a pool until every shard has a receipt.

    `clean(index)` removes what an unfinished attempt left in the archive; `on_receipt` hears of each finished shard.
    """

    def __init__(self, pool: Pool, *, clean: Callable[[int], None], on_receipt: Callable[[ShardReceipt], None]) -> None:
        self._pool = pool
        self._clean = clean
        self._on_receipt = on_receipt
        self._deaths: Counter[int] = Counter()
        self._nodes_lost: Counter[int] = Counter()
        self._again: list[Shard] = []
        self._in_flight = 0

    def run(self, shards: Iterator[Shard], *, tick: Callable[[], None] = lambda: None) -> None:
        """Runs all shards; `tick` is called about once a second. Raises what a worker raised when trying again cannot help."""
        fresh = next(shards, None)
        while fresh is not None or self._again or self._in_flight:
            while self._again and self._pool.takes(self._again[-1]):
                self._submit(self._again.pop())
            while fresh is not None and not self._again and self._pool.takes(fresh):
                self._submit(fresh)
                fresh = next(shards, None)
            for outcome in self._pool.wait(1.0):
                self._in_flight -= 1
                self._settle(outcome)
            tick()

    def _submit(self, shard: Shard) -> None:
        self._in_flight += 1
        self._pool.submit(shard)

    def _settle(self, outcome: Outcome) -> None:
        if outcome.receipt is not None:
            counted = sum(outcome.receipt.rows.values())
            assert counted == len(outcome.shard.refs), (
                f"shard {outcome.shard.index}: {len(outcome.shard.refs)} films in, {counted} rows out"
            )
            self._on_receipt(outcome.receipt)
        elif outcome.requeued:
            self._again.append(outcome.shard)
        elif outcome.died:
            self._again.append(self._after_leaving(outcome.shard) if outcome.node_left else self._after_death(outcome.shard))
        else:
            assert outcome.error is not None
            self._again.append(self._after_error(outcome.shard, outcome.error))

    def _after_error(self, shard: Shard, error: Exception) -> Shard:
        if isinstance(error, LatentrayError) and not isinstance(error, ShardConflict):
            raise error
        log.warning("shard %d failed, attempt %d of %d: %s", shard.index, shard.attempt, MAX_ATTEMPTS, error, exc_info=error)
        if shard.attempt >= MAX_ATTEMPTS:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise ShardFailed(f"shard {shard.index} failed {shard.attempt} times, the last one with: {reason}") from error
        self._clean(shard.index)
        return replace(shard, attempt=shard.attempt + 1)

    def _after_leaving(self, shard: Shard) -> Shard:
        """Again, without blame: nodes are taken away as an autoscaler or a market for them sees fit."""
        self._nodes_lost[shard.index] += 1
        log.warning("the node that ran shard %d has left", shard.index)
        if self._nodes_lost[shard.index] > MOST_NODES_LOST:
            raise ShardFailed(f"shard {shard.index} lost its node {self._nodes_lost[shard.index]} times")
        self._clean(shard.index)
        return replace(shard, attempt=shard.attempt + 1)

    def _after_death(self, shard: Shard) -> Shard:
        self._deaths[shard.index] += 1
        deaths = self._deaths[shard.index]
        log.warning("a worker died on shard %d (%d)", shard.index, deaths)
        if deaths > DEATHS_BEFORE_SEARCH:
            raise ShardFailed(f"shard {shard.index} killed its worker {deaths} times, also after films that kill a process were set aside")
        self._clean(shard.index)
        poison = shard.poison
        if deaths == DEATHS_BEFORE_SEARCH:
            alive = [ref for ref in shard.refs if ref.row not in poison]
            if not self._pool.survives([]):
                raise ShardFailed(f"workers die before they see a film; see their logs (shard {shard.index})")
            found = find_poison(alive, self._pool.survives)
            if len(found) == len(alive) > 1:
                raise ShardFailed(f"every film of shard {shard.index} kills its process, so the fault is the machine's: {len(found)} films")
            poison |= {ref.row for ref in found}
            log.warning("shard %d: %d films kill a process and are marked as poison", shard.index, len(poison))
        return replace(shard, attempt=shard.attempt + 1, poison=poison)


def find_poison(refs: list[ImageRef], survives: Callable[[list[ImageRef]], bool]) -> list[ImageRef]:
    """The films that kill a process, by bisection: about 2 log2(n) throw-away processes a film found."""
    if not refs or survives(refs):
        return []
    if len(refs) == 1:
        return refs
    half = len(refs) // 2
    return find_poison(refs[:half], survives) + find_poison(refs[half:], survives)
