"""The Ray pool with real processes: order, replacement of the dead, errors that keep their class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine.cluster.driver import Driver
from engine.cluster.pools import RayPool
from engine.errors import CodecError
from engine.records import ImageRef, Shard, ShardReceipt

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

ROWS = 4


class Worker:
    """A worker whose films say what happens to it: `deadly` ends the process, `bad` raises."""

    def __init__(self, cfg: str) -> None:
        self.cfg = cfg

    def ready(self) -> bool:
        if self.cfg == "no codec":
            raise CodecError("codec directory is not there: runs/none")
        return True

    def run(self, shard: Shard) -> ShardReceipt:
        self.rehearse([ref for ref in shard.refs if ref.row not in shard.poison])
        rows = {"ok": len(shard.refs) - len(shard.poison), "poison": len(shard.poison)}
        return ShardReceipt(shard.index, shard.refs[0].row, len(shard.refs), "", shard.attempt, rows, {}, [], {"pid": os.getpid()}, {})

    def rehearse(self, refs: list[ImageRef]) -> dict[str, float]:
        for ref in refs:
            if ref.uri == "deadly":
                os._exit(1)
            if ref.uri == "bad":
                raise CodecError("code shape is wrong: 7")
        return {}


def shard(index: int, **uris: str) -> Shard:
    rows = range(index * ROWS, (index + 1) * ROWS)
    return Shard(index=index, refs=tuple(ImageRef(row, f"film-{row}", uris.get(f"row{row}", "fine")) for row in rows), digest="")


@contextmanager
def pool_of(workers: int, cfg: str = "") -> Iterator[RayPool]:
    pool = RayPool(Worker, cfg, workers=workers, cpus=2 / workers, gpus=0)  # every core, as a job has them
    try:
        yield pool
    finally:
        pool.close()


def drive(pool: RayPool, work: list[Shard]) -> dict[int, ShardReceipt]:
    receipts: dict[int, ShardReceipt] = {}
    Driver(pool, clean=lambda index: None, on_receipt=lambda receipt: receipts.__setitem__(receipt.shard, receipt)).run(iter(work))
    return receipts


def test_both_workers_work() -> None:
    with pool_of(2) as pool:
        receipts = drive(pool, [shard(k) for k in range(24)])
    assert sorted(receipts) == list(range(24))
    assert len({receipt.made_by["pid"] for receipt in receipts.values()}) == 2


def test_a_film_that_kills_its_process_is_found_among_its_neighbours() -> None:
    with pool_of(1) as pool:
        receipts = drive(pool, [shard(0), shard(1, row6="deadly"), shard(2), shard(3)])
    assert [receipts[k].rows["ok"] for k in range(4)] == [4, 3, 4, 4]
    assert receipts[1].rows["poison"] == 1
    assert receipts[2].attempt == 1  # it only waited behind the one that died


def test_a_search_finds_room_while_every_core_is_taken() -> None:
    with pool_of(2) as pool:
        receipts = drive(pool, [shard(k, row13="deadly") for k in range(8)])
    assert [receipts[k].rows["poison"] for k in range(8)] == [0, 0, 0, 1, 0, 0, 0, 0]


def test_an_error_keeps_its_class_on_the_way_to_the_driver() -> None:
    with pool_of(1) as pool, pytest.raises(CodecError, match="code shape is wrong: 7"):
        drive(pool, [shard(0, row2="bad")])


def test_a_worker_that_cannot_start_says_why() -> None:
    with pytest.raises(CodecError, match="codec directory is not there"), pool_of(1, "no codec"):
        pytest.fail("the pool opened")
