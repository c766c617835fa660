"""What grows with a run and what must not: large plans, 20,000 shards past one driver, `status` on them; and what a run costs."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from statistics import fmean
from time import perf_counter, process_time
from typing import Any

from benchmarks.commands import PROC, StepFailed, family, run_alone, run_latentray
from benchmarks.inputs import Options, say
from benchmarks.job.driver import SHARD_ROWS, open_idle
from benchmarks.job.idle_worker import IdleWorker
from benchmarks.job.scale_costs import cost_rows
from benchmarks.report import Bar, Row, measured
from engine.records import ShardReceipt

QUESTION = (
    "What does a run cost that is a hundred times larger, and what would whole collections take? Time a row and memory of planning, "
    "shards/s, the driver's share of the time and its memory with up to 64 idle workers, hours and bytes."
)
TIMED = (
    "Timed: listing, ordering and writing a plan; from the first shard to the last receipt, with workers that return receipts without a "
    "file, after a tenth as many that warm up; `latentray status` from process start to exit, on an archive of commit records alone. One "
    "turn each. driver's share: of the time, that its process is at work. MB at n %: what it holds when so many shards are back. MB a "
    "worker: its own and its part of what it shares. Hours: films by the films/s of `encode --metrics none --workers 0` in this run, as if "
    "all were like those."
)
SINCE = "2026-11-21T07:00"
NAME = "scale"
MOST_GROWTH = 1.5  # of seconds a row, where there are ten times as many rows
MOST_PLAN_MB = 512.0  # at any number of rows
MOST_MS = 5.0
BAR = "plan: 512 MB and 1.5x the seconds a row at ten times the rows; driver: 5 ms and 0.5 kB a shard; status: 2 s"
MOST_KB = 500.0  # a thousand shards: at 20,000 a hundredth of what the driver holds
MOST_KB_SHARDS = 20_000  # below, what a process takes when it begins is more
MOST_SECONDS = 2.0
PLAN_SHARD_ROWS = 512
WORKERS = (0, 1, 2, 4, 8, 16, 32, 64)
SPARE_MB = 2048.0  # of memory, for everything else
SAMPLES = 5  # of the driver's memory
LOOK_EVERY = 250  # shards


def rows(options: Options) -> Iterator[Row]:
    """Plans of two sizes, idle workers from none to many, `status` on as many shards, and the costs of collections."""
    most, shards, repeats = options.pick(quick=(50_000, 1000, 2), nightly=(300_000, 2000, 3), whole=(10_000_000, 20_000, 5))
    yield from _plans(most)
    yield from _all_driven(options.pick(quick=(0, 1), nightly=(0, 4), whole=WORKERS), shards)
    yield measured(NAME, f"status of {shards:,} shards", _status, shards, repeats)
    yield from cost_rows(options)


def _plans(most: int) -> Iterator[Row]:
    say(f"scale: plan of {most // 10:,} rows, then of {most:,}")
    few, few_memory = _planned(most // 10)
    yield from (few, few_memory)
    many, many_memory = _planned(most)
    yield replace(many, ratio=many.values[0] / few.values[0], ratio_to=few.step, bar=Bar(bound=MOST_GROWTH, sense="at most"))
    yield many_memory


def _planned(count: int) -> tuple[Row, Row]:
    step = f"plan of {count:,} rows"
    found = run_alone("benchmarks.job.scale:plan_rows", count=count)
    figures = {"file MB": found["file_mb"], "read us": 1e6 * found["read_seconds"] / count, "grown MB while read": found["read_mb"]}
    time = Row(
        benchmark=NAME, step=step, unit="us/row", values=(1e6 * found["seconds"] / count,), quality={"rows": found["rows"]}, figures=figures
    )
    peak = Row(
        benchmark=NAME,
        step=f"memory taken by a {step}",
        unit="MB",
        values=(found["peak_mb"],),
        bar=Bar(bound=MOST_PLAN_MB, sense="at most"),
        quality={"rows": found["rows"]},
    )
    return time, peak


def _all_driven(numbers: Sequence[int], shards: int) -> Iterator[Row]:
    """With each number of workers, as far as this machine has the memory for them, by what one takes where there are fewer."""
    each_mb = 0.0
    for workers in numbers:
        step, why = _workers(workers), no_room(workers, each_mb, available_mb() - SPARE_MB)
        if why:
            yield Row(benchmark=NAME, step=f"{shards:,} shards, {step}", unavailable=why)
            continue
        say(f"scale: {shards:,} shards, {step}")
        try:
            found = run_alone("benchmarks.job.scale:drive_shards", workers=workers, shards=shards)
        except StepFailed as error:
            yield Row(benchmark=NAME, step=f"{shards:,} shards, {step}", failed=str(error))
            continue
        each_mb = max(each_mb, found["worker_mb"])
        yield from _driven(workers, shards, found)


def no_room(workers: int, each_mb: float, free_mb: float) -> str:
    """Why so many workers do not fit into the memory that is free, "" where they do."""
    needed = workers * each_mb
    return "" if needed <= free_mb else f"{workers} workers of {each_mb:.0f} MB need {needed:,.0f} MB of memory, {free_mb:,.0f} are free"


def _driven(workers: int, shards: int, found: dict[str, Any]) -> list[Row]:
    step, quality, settings = _workers(workers), {"receipts": found["receipts"]}, {"workers": workers, "shards": shards}
    time = Row(
        benchmark=NAME,
        step=f"{shards:,} shards, {step}",
        unit="ms/shard",
        values=(1e3 * found["seconds"] / shards,),
        bar=Bar(bound=MOST_MS, sense="at most"),
        quality=quality,
        figures={"shards/s": shards / found["seconds"], "driver's share": found["cpu_seconds"] / found["seconds"]},
        settings=settings,
    )
    memory = Row(
        benchmark=NAME,
        step=f"driver's memory, {step}",
        unit="kB/1,000 shards",
        values=(found["kb_a_thousand"],),
        bar=Bar(bound=MOST_KB, sense="at most") if shards >= MOST_KB_SHARDS else None,
        quality=quality,
        figures={f"MB at {share} %": mb for share, mb in found["mb"].items()} | ({"MB a worker": found["worker_mb"]} if workers else {}),
        settings=settings,
    )
    return [time, memory]


def _workers(count: int) -> str:
    return f"{count} idle Ray {'worker' if count == 1 else 'workers'}" if count else "in process"


def _status(shards: int, repeats: int) -> Row:
    with tempfile.TemporaryDirectory(prefix="latentray-") as scratch:
        archive = str(Path(scratch) / "scale.zarr")
        run_alone("benchmarks.job.scale:commit_shards", archive=archive, shards=shards)
        found = [run_latentray("status", archive, "--json") for _ in range(repeats)]
    return Row(
        benchmark=NAME,
        step=f"status of {shards:,} shards",
        unit="s",
        values=tuple(done.seconds for done in found),
        bar=Bar(bound=MOST_SECONDS, sense="at most"),
        quality={"shards done": min(done.report["shards_done"] for done in found)},
    )


def plan_rows(*, count: int) -> dict[str, Any]:
    """Plans a manifest whose rows are in no order, and reads every shard of the plan: seconds, memory, size."""
    from engine.source.plan import make_plan

    with tempfile.TemporaryDirectory(prefix="latentray-") as scratch:
        manifest = Path(scratch) / "films.csv"
        with manifest.open("w") as file:
            file.write("path,view\n")
            shuffled = (at * 7919 % count for at in range(count))  # 7919 is prime: each film once
            file.writelines(f"p{film % 100:02d}/film-{film:09d}.png,{'PA' if film % 2 else 'AP'}\n" for film in shuffled)
        before, start = memory_mb("VmRSS"), perf_counter()
        begin_high_water()
        plan = make_plan(str(manifest), Path(scratch) / "plan.parquet", shard_rows=PLAN_SHARD_ROWS)
        planned = perf_counter() - start
        peak, start, seen, held = memory_mb("VmHWM") - before, perf_counter(), 0, []
        for shard in plan.shards():
            seen += len(shard.refs)
            if shard.index % LOOK_EVERY == 0:
                held.append(memory_mb("VmRSS"))
        read, size = perf_counter() - start, plan.path.stat().st_size / 1e6
    read_mb = held[-1] - held[len(held) // 8]
    return {"rows": seen, "seconds": planned, "peak_mb": peak, "file_mb": size, "read_seconds": read, "read_mb": read_mb}


def drive_shards(*, workers: int, shards: int) -> dict[str, Any]:
    """Drives all shards of a plan, after some that warm up: seconds, this process's own processor time, and how its memory grows."""
    from engine.cluster.driver import Driver
    from engine.cluster.progress import Progress
    from engine.source.plan import make_plan

    seen, held = bytearray(shards), [(0, 0.0)] * (shards // LOOK_EVERY)  # made beforehand, so as not to be what grows
    count = 0
    with tempfile.TemporaryDirectory(prefix="latentray-") as scratch:
        plan = make_plan(f"phantom:{shards * SHARD_ROWS}", Path(scratch) / "plan.parquet", shard_rows=SHARD_ROWS)
        progress, pool = Progress(total=plan.num_rows, done=0, failed=0, quiet=True), open_idle(workers)

        def on_receipt(receipt: ShardReceipt) -> None:
            nonlocal count
            seen[receipt.shard] += 1
            count += 1
            progress.on_receipt(receipt)
            if count % LOOK_EVERY == 0:
                held[count // LOOK_EVERY - 1] = (count, memory_mb("VmRSS"))

        driver = Driver(pool, clean=lambda index: None, on_receipt=on_receipt)
        assert sum(len(shard.refs) for shard in plan.shards()) == plan.num_rows  # every row group has been held once
        driver.run(plan.shards(range(shards // 10)), tick=progress.tick)
        count, seen[:] = 0, bytes(shards)
        start, cpu = perf_counter(), process_time()
        driver.run(plan.shards(), tick=progress.tick)
        seconds, cpu = perf_counter() - start, process_time() - cpu
        worker_mb = mean_worker_mb()
        pool.close()
    rate = 1e3 * slope([at for at, _ in held], [1e3 * mb for _, mb in held])
    if set(seen) != {1}:
        raise StepFailed(f"a shard has no receipt, or two: {sum(seen)} receipts of {shards} shards")
    shares = [100 * part // SAMPLES for part in range(1, SAMPLES + 1)]
    samples = {share: held[max(share * len(held) // 100 - 1, 0)][1] for share in shares}
    return {"receipts": count, "seconds": seconds, "cpu_seconds": cpu, "kb_a_thousand": rate, "mb": samples, "worker_mb": worker_mb}


def commit_shards(*, archive: str, shards: int) -> int:
    """An archive whose shards all have their record, as a worker writes it, and no rows: `status` looks at nothing else."""
    from engine.archive.chunks import column_codecs
    from engine.archive.commits import CommitLog, describe_object
    from engine.archive.root import read_root
    from engine.archive.schema import ArchiveSpec
    from engine.archive.writer import create_archive

    parts = {"codec": {"name": "scale", "digest": "0" * 64}, "refine": {"steps": 0}, "shard_rows": SHARD_ROWS, "plan": ""}
    spec = ArchiveSpec(
        num_rows=shards * SHARD_ROWS,
        shard_rows=SHARD_ROWS,
        latent_dims=("layer", "channel"),
        latent_shape=(1, 8),
        latent_dtype="f2",
        fingerprint_parts=parts,
        software={},
        plan_digest="",
        plan_sha256="",
    )
    create_archive(archive, spec)
    root = read_root(archive)
    log, entry = CommitLog(root), describe_object(b"some bytes")
    codecs = column_codecs(root).values()
    made_by = {"host": "here", "process": 1, "backend": "eager", "precision": "fp32", "device": "cpu", "decoder": "cpu"}
    seconds = dict.fromkeys(("decode", "encode", "metrics", "archive"), 0.1)
    for index in range(shards):
        objects = {codec.key(index): entry for codec in codecs}
        first = index * SHARD_ROWS
        receipt = ShardReceipt(index, first, SHARD_ROWS, "0" * 64, 1, {"ok": SHARD_ROWS}, objects, [], made_by, seconds)
        path = Path(archive) / log.key(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(log.encode(receipt))
    return shards


def memory_mb(name: str) -> float:
    """What this process holds (VmRSS) or ever held (VmHWM), in MB of 10^6 bytes; 0 where the system has no /proc."""
    status = Path("/proc/self/status")
    found = re.search(rf"{name}:\s*(\d+) kB", status.read_text() if status.exists() else "")
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def mean_worker_mb() -> float:
    """Of the idle workers below this process: what one holds, with its part of the pages that it shares; 0 where there are none."""
    found = []
    for pid in family(os.getpid()):
        with suppress(OSError):
            if IdleWorker.__name__.encode() in (PROC / str(pid) / "cmdline").read_bytes():
                found.append(int(re.findall(r"Pss:\s*(\d+) kB", (PROC / str(pid) / "smaps_rollup").read_text())[0]) * 1024 / 1e6)
    return fmean(found) if found else 0.0


def available_mb() -> float:
    """Memory that is free for new processes, in MB of 10^6 bytes; without end where the system does not say."""
    told = PROC / "meminfo"
    found = re.search(r"MemAvailable:\s*(\d+) kB", told.read_text() if told.exists() else "")
    return int(found[1]) * 1024 / 1e6 if found else inf


def begin_high_water() -> None:
    """Lets VmHWM begin anew at what is held now, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the line through the medians of the first and the last third, which one step up or down does not tilt much."""
    from statistics import median

    third = max(len(x) // 3, 1)
    return (median(y[-third:]) - median(y[:third])) / max(median(x[-third:]) - median(x[:third]), 1)
