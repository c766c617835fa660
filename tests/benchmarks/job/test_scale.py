"""`bench scale`: shards past a driver, what its workers and its memory take, and what collections would cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.inputs import Options
from benchmarks.job import scale
from benchmarks.job.idle_worker import IdleWorker
from benchmarks.job.scale_costs import COLLECTIONS, cost_rows
from engine.records import ImageRef, Shard

SHARDS = 250


def test_a_driver_in_this_process_is_looked_at_five_times() -> None:
    found = scale.drive_shards(workers=0, shards=SHARDS)
    assert found["receipts"] == SHARDS
    assert found["cpu_seconds"] > 0
    assert list(found["mb"]) == [20, 40, 60, 80, 100]
    assert all(50 < mb < 10_000 for mb in found["mb"].values())
    assert found["worker_mb"] == 0


@pytest.mark.ray
def test_a_worker_that_does_nothing_takes_little() -> None:
    (time, memory) = scale._all_driven([1], SHARDS)
    assert time.quality == memory.quality == {"receipts": SHARDS}
    assert time.figures["shards/s"] > 10
    assert 0 < time.figures["driver's share"] < 1.5
    assert 20 < memory.figures["MB a worker"] < 200


def test_workers_without_room_are_unavailable_with_the_reason() -> None:
    assert scale.no_room(4, 100.0, 400.0) == ""
    assert scale.no_room(64, 450.0, 20_000.0) == "64 workers of 450 MB need 28,800 MB of memory, 20,000 are free"
    assert scale.available_mb() > 100


def test_an_idle_worker_finds_every_film_ok() -> None:
    shard = Shard(index=3, refs=tuple(ImageRef(row, f"film-{row}", "") for row in (6, 7)), digest="d")
    receipt = IdleWorker(None).run(shard)
    assert (receipt.shard, receipt.first_row, receipt.rows) == (3, 6, {"ok": 2})


@pytest.mark.slow
def test_collections_cost_hours_at_the_rate_of_this_run(tmp_path: Path) -> None:
    rate, *hours, gpu = cost_rows(Options(quick=True, films="phantom:4?seed=3&size=128", scratch=tmp_path))
    assert rate.reason == ""
    assert [row.values[0] for row in hours] == [films / rate.values[0] / 3600 for films in COLLECTIONS.values()]
    assert [row.figures["GB"] for row in hours] == [films * rate.figures["bytes/row"] / 1e9 for films in COLLECTIONS.values()]
    assert gpu.unavailable or gpu.figures["GPU-hours"] > 0
