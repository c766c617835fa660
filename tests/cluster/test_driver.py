"""The driver's decisions, against pools that fail as real ones do."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import pytest

from engine.archive.writer import ShardConflict
from engine.cluster.driver import Driver, ShardFailed, find_poison
from engine.cluster.pools import Outcome
from engine.errors import ArchiveError
from engine.records import ImageRef, Shard, ShardReceipt

ROWS = 8


def shards(count: int) -> list[Shard]:
    return [
        Shard(index=k, refs=tuple(ImageRef(row, f"film-{row}", f"{row}.png") for row in range(k * ROWS, (k + 1) * ROWS)), digest=str(k))
        for k in range(count)
    ]


def receipt_of(shard: Shard) -> ShardReceipt:
    rows = {"ok": len(shard.refs) - len(shard.poison), "poison": len(shard.poison)}
    return ShardReceipt(shard.index, shard.refs[0].row, len(shard.refs), shard.digest, shard.attempt, rows, {}, [], {}, {})


class DyingPool:
    """Two workers in one: a shard that holds a film of `deadly` kills its worker, and the shard behind it comes back unharmed."""

    def __init__(self, *, deadly: set[int] = frozenset(), errors: dict[int, list[Exception]] | None = None) -> None:
        self.deadly, self.errors = deadly, errors or {}
        self.queue: deque[Shard] = deque()
        self.most_in_flight = 0
        self.probes = 0

    def takes(self, shard: Shard) -> bool:
        return len(self.queue) < 2

    def submit(self, shard: Shard) -> None:
        self.queue.append(shard)
        self.most_in_flight = max(self.most_in_flight, len(self.queue))

    def wait(self, seconds: float) -> list[Outcome]:
        shard = self.queue.popleft()
        if self.errors.get(shard.index):
            return [Outcome(shard, error=self.errors[shard.index].pop(0))]
        if any(ref.row in self.deadly and ref.row not in shard.poison for ref in shard.refs):
            waiting = [Outcome(other, requeued=True) for other in self.queue]
            self.queue.clear()
            return [Outcome(shard, error=RuntimeError("gone"), died=True), *waiting]
        return [Outcome(shard, receipt=receipt_of(shard))]

    def survives(self, refs: Sequence[ImageRef]) -> bool:
        self.probes += 1
        return not any(ref.row in self.deadly for ref in refs)

    def close(self) -> None:
        pass


def run(pool: DyingPool, work: list[Shard]) -> tuple[dict[int, ShardReceipt], list[int]]:
    receipts: dict[int, ShardReceipt] = {}
    cleaned: list[int] = []
    driver = Driver(pool, clean=cleaned.append, on_receipt=lambda receipt: receipts.__setitem__(receipt.shard, receipt))
    driver.run(iter(work))
    return receipts, cleaned


def test_every_shard_gets_one_receipt_and_few_are_in_flight() -> None:
    pool = DyingPool()
    receipts, cleaned = run(pool, shards(20))
    assert sorted(receipts) == list(range(20))
    assert pool.most_in_flight == 2
    assert cleaned == []


def test_a_film_that_kills_its_worker_is_marked_and_the_rest_is_kept() -> None:
    receipts, cleaned = run(DyingPool(deadly={11, 14}), shards(4))
    assert sorted(receipts) == [0, 1, 2, 3]
    assert receipts[1].rows == {"ok": ROWS - 2, "poison": 2}
    assert receipts[1].attempt == 3
    assert all(receipts[k].rows == {"ok": ROWS, "poison": 0} and receipts[k].attempt == 1 for k in (0, 2, 3))
    assert cleaned == [1, 1]


def test_a_worker_that_dies_for_another_reason_ends_the_run() -> None:
    class Cursed(DyingPool):
        def survives(self, refs: Sequence[ImageRef]) -> bool:
            return True

    with pytest.raises(ShardFailed, match="shard 1 killed its worker 3 times"):
        run(Cursed(deadly={9}), shards(3))


def test_a_machine_that_kills_every_process_makes_no_poison() -> None:
    with pytest.raises(ShardFailed, match="the fault is the machine's: 8 films"):
        run(DyingPool(deadly=set(range(8, 16))), shards(3))

    class NoLife(DyingPool):
        def survives(self, refs: Sequence[ImageRef]) -> bool:
            return False

    with pytest.raises(ShardFailed, match="die before they see a film"):
        run(NoLife(deadly={9}), shards(3))


def test_an_error_is_tried_again_after_cleaning() -> None:
    receipts, cleaned = run(DyingPool(errors={2: [OSError("flaky"), ShardConflict("late writer")]}), shards(3))
    assert receipts[2].attempt == 3
    assert cleaned == [2, 2]


def test_the_third_error_ends_the_run_with_its_reason() -> None:
    with pytest.raises(ShardFailed, match="shard 0 failed 3 times, the last one with: third"):
        run(DyingPool(errors={0: [OSError("first"), OSError("second"), OSError("third")]}), shards(1))


def test_a_full_disk_is_not_tried_again() -> None:
    pool = DyingPool(errors={0: [ArchiveError("disk is full")]})
    with pytest.raises(ArchiveError, match="disk is full"):
        run(pool, shards(1))
    assert not pool.errors[0]


def test_bisection_finds_all_and_asks_little() -> None:
    refs = list(shards(8)[0].refs) + [ref for shard in shards(8)[1:] for ref in shard.refs]
    pool = DyingPool(deadly={5, 40})
    assert [ref.row for ref in find_poison(refs, pool.survives)] == [5, 40]
    assert pool.probes <= 4 * 6 + 1
