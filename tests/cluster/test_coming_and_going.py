"""Nodes that join a run and leave it: workers that found no room come when there is some, and no shard is blamed for a node that left."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from engine.cluster import pools
from engine.cluster.driver import MOST_NODES_LOST, Driver, ShardFailed
from engine.cluster.pools import Outcome, RayPool
from engine.errors import ConfigError
from engine.job import job_config
from engine.records import ImageRef, Shard, ShardReceipt

pytestmark = pytest.mark.ray

SECONDS = 120.0  # that a node may take to come


class Worker:
    """A worker that only says who it is."""

    def __init__(self, cfg: None) -> None:
        self.cfg = cfg

    def ready(self) -> bool:
        return True

    def run(self, shard: Shard) -> ShardReceipt:
        return ShardReceipt(shard.index, shard.index, 1, "", shard.attempt, {"ok": 1}, {}, [], {"pid": os.getpid()}, {})


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head of one core, to which nodes may be added."""
    import ray
    from ray.cluster_utils import Cluster

    quick = {"health_check_period_ms": 500, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 4}
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "_system_config": quick})
    ray.init(found.address, logging_level="ERROR", log_to_driver=False)
    yield found
    ray.shutdown()
    found.shutdown()


def shard(index: int) -> Shard:
    return Shard(index=index, refs=(ImageRef(index, f"film-{index}", "fine"),), digest="")


class Watched:
    """Shards without end until what is waited for has happened; who ran them, and how often each came back."""

    def __init__(self) -> None:
        self.receipts: dict[int, ShardReceipt] = {}
        self.twice = 0
        self.most_in_flight = 0
        self.given = 0

    def until(self, happened: Callable[[], bool]) -> Iterator[Shard]:
        """At least four shards more; fails when it takes too long."""
        end, least = monotonic() + SECONDS, self.given + 4
        while self.given < least or not happened():
            assert monotonic() < end, "it never happened"
            yield shard(self.given)
            self.given += 1
            self.most_in_flight = max(self.most_in_flight, self.given - len(self.receipts))

    def on_receipt(self, receipt: ShardReceipt) -> None:
        self.twice += receipt.shard in self.receipts
        self.receipts[receipt.shard] = receipt

    def workers(self, since: int = 0) -> set[int]:
        return {receipt.made_by["pid"] for index, receipt in self.receipts.items() if index >= since}


def test_a_run_takes_the_nodes_that_come_and_outlives_those_that_go(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pools, "SECONDS_FOR_LATECOMERS", 0.1)
    seen, cleaned = Watched(), []
    pool = RayPool(Worker, None, workers=2, cpus=1, gpus=0)  # there is room for one

    def work() -> Iterator[Shard]:
        yield from seen.until(lambda: len(seen.workers()) == 1)
        node = cluster.add_node(num_cpus=1)
        yield from seen.until(lambda: len(seen.workers()) == 2)
        cluster.remove_node(node, allow_graceful=True)
        before = seen.given
        yield from seen.until(lambda: len(cleaned) == 1 or seen.given > before + 100)
        cluster.add_node(num_cpus=1)
        yield from seen.until(lambda: len(seen.workers()) == 3)

    Driver(pool, clean=cleaned.append, on_receipt=seen.on_receipt).run(work())
    pool.close()
    assert sorted(seen.receipts) == list(range(seen.given))  # all of them
    assert seen.twice == 0
    assert seen.most_in_flight <= 2 * pools.MOST_AT_ONE_WORKER + 1  # and one in the driver's hand
    attempts = Counter(receipt.attempt for receipt in seen.receipts.values())
    assert set(attempts) <= {1, 2}
    assert attempts[2] == len(cleaned) <= 1  # what ran on the node that went
    assert "a worker died" not in caplog.text  # nor was it blamed


class LeavingPool:
    """One worker whose node leaves under every shard, the first `times` times."""

    def __init__(self, times: int) -> None:
        self.times, self.queue = times, []

    def takes(self, shard: Shard) -> bool:
        return not self.queue

    def submit(self, shard: Shard) -> None:
        self.queue.append(shard)

    def wait(self, seconds: float) -> list[Outcome]:
        shard, self.times = self.queue.pop(), self.times - 1
        if self.times >= 0:
            return [Outcome(shard, error=RuntimeError("gone"), died=True, node_left=True)]
        return [Outcome(shard, receipt=ShardReceipt(shard.index, 0, 1, "", shard.attempt, {"ok": 1}, {}, [], {}, {}))]

    def survives(self, refs: object) -> bool:
        raise AssertionError("no film is looked for when a node leaves")

    def close(self) -> None:
        pass


def test_a_shard_is_not_blamed_for_the_nodes_that_leave_under_it() -> None:
    seen, cleaned = Watched(), []
    Driver(LeavingPool(MOST_NODES_LOST), clean=cleaned.append, on_receipt=seen.on_receipt).run(iter([shard(0)]))
    assert seen.receipts[0].attempt == 1 + MOST_NODES_LOST == 1 + len(cleaned)


def test_a_shard_that_loses_every_node_ends_the_run() -> None:
    driver = Driver(LeavingPool(1000), clean=lambda index: None, on_receipt=lambda receipt: None)
    with pytest.raises(ShardFailed, match=f"shard 0 lost its node {MOST_NODES_LOST + 1} times"):
        driver.run(iter([shard(0)]))


def test_what_each_worker_asks_for() -> None:
    def share(**settings: object) -> tuple[float, float] | None:
        return job_config("films", "a.zarr", "demo", workers=2, **settings).worker_share

    assert (share(), share(worker_cpus=4), share(worker_gpus=0.5)) == (None, (4, 0), (1, 0.5))
    with pytest.raises(ConfigError, match="need --workers of 1 or more"):
        job_config("films", "a.zarr", "demo", worker_cpus=4)
    with pytest.raises(ConfigError, match="more than 0 CPUs, and no fewer than 0 GPUs: 0, 0"):
        share(worker_cpus=0)
