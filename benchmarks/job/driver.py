"""What a shard costs beside the work in it: the driver feeds workers that do nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchmarks.commands import StepFailed, run_alone
from benchmarks.inputs import Options
from benchmarks.job.idle_worker import IdleWorker
from benchmarks.report import Bar, Row, measured
from benchmarks.timing import take_turns
from engine.records import ShardReceipt

if TYPE_CHECKING:
    from engine.cluster.pools import Pool
    from engine.flow import Flow

QUESTION = "What does the driver cost a shard? Real plan, real Ray actors, real queue; the worker returns a receipt without a file."
TIMED = (
    "Timed: from reading the plan's first row to the last receipt. Not timed: planning, the start of Ray and its actors, and a first run."
)
NAME = "driver"
DRIVER_BAR = Bar(bound=5.0, sense="at most")
BAR = f"{DRIVER_BAR} ms a shard"
WARM_UP = 1
SHARD_ROWS = 16
WORKERS = 2


def rows(options: Options) -> Iterator[Row]:
    """The overhead in this process, and over Ray."""
    shards, repeats = options.pick(quick=(50, 2), nightly=(1000, 8), whole=(1000, 20))
    for workers, step in ((0, "in process"), (WORKERS, f"{WORKERS} Ray workers")):
        yield measured(NAME, step, _row, step, workers, shards, repeats)


def _row(step: str, workers: int, shards: int, repeats: int) -> Row:
    found = run_alone("benchmarks.job.driver:measure", workers=workers, shards=shards, repeats=repeats)
    return Row(
        benchmark=NAME,
        step=step,
        unit="ms/shard",
        values=tuple(found["ms"]),
        bar=DRIVER_BAR,
        quality={"receipts": found["receipts"]},
        figures={"shards": shards},
        settings={"workers": workers, "rows": shards * SHARD_ROWS},
    )


def measure(*, workers: int, shards: int, repeats: int) -> dict[str, Any]:
    """Milliseconds a shard, by run of all shards after one that warms up, and how many receipts the last run had."""
    from engine.cluster.driver import Driver
    from engine.cluster.progress import Progress
    from engine.source.plan import make_plan

    receipts: list[ShardReceipt] = []
    with tempfile.TemporaryDirectory(prefix="latentray-") as scratch:
        manifest = Path(scratch) / "films.csv"
        manifest.write_text("path\n" + "".join(f"films/study-{row:07d}.png\n" for row in range(shards * SHARD_ROWS)))
        plan = make_plan(str(manifest), Path(scratch) / "plan.parquet", shard_rows=SHARD_ROWS)
        pool = open_idle(workers)

        def run(turn: int) -> int:
            receipts.clear()
            progress = Progress(total=plan.num_rows, done=0, failed=0, quiet=True)

            def on_receipt(receipt: ShardReceipt) -> None:
                receipts.append(receipt)
                progress.on_receipt(receipt)

            Driver(pool, clean=lambda index: None, on_receipt=on_receipt).run(plan.shards(), tick=progress.tick)
            if sorted(receipt.shard for receipt in receipts) != list(range(shards)):
                raise StepFailed(f"a shard has no receipt, or two: {len(receipts)} receipts of {shards} shards")
            return shards

        rates = take_turns({"run": run}, repeats=repeats)["run"]
        pool.close()
    return {"ms": [1e3 / rate for rate in rates], "receipts": len(receipts)}


def open_idle(workers: int) -> Pool:
    """A pool of workers that do nothing: 0 for this process, else that many Ray actors on this machine."""
    from engine.cluster.pools import InProcessPool, RayPool, share_of_nodes
    from engine.cluster.worker import connect, node_resources

    if workers == 0:
        return InProcessPool(cast("Flow", IdleWorker(None)))
    connect(None)
    cpus, _ = share_of_nodes(node_resources(), workers)
    return RayPool(IdleWorker, None, workers=workers, cpus=cpus, gpus=0.0)
