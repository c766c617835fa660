"""Clocks that jump, and files of any age: nothing in a run is decided by them."""

from __future__ import annotations

import ast
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.faults.job import Job
from tests.faults.stable import Stable, encode
from tests.faults.strikes import Place, Tally, await_records, strike_driver, until_whole

ROOT = Path(__file__).resolve().parents[2]
YEARS = 365.25 * 86400
WALL = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")}
# What a run consists of. Elsewhere the date is printed on a page, or stands in a log of training.
RUN = ["archive", "cluster", "source", "decode", "encode", "refine"]
RUN_FILES = ["encode_dataset.py", "job.py", "flow.py", "rows.py", "refiner.py", "coded.py", "records.py"]


def jumping(words: Sequence[str]) -> int:
    """`latentray encode` in a process whose wall clock jumps by years each time that it is asked."""
    rng, now = random.Random(int(words[0])), time.time
    time.time = lambda: now() + rng.uniform(-10, 10) * YEARS
    time.time_ns = lambda: int(time.time() * 1e9)
    return encode(words[1:])


def test_no_part_of_a_run_reads_the_wall_clock() -> None:
    found = []
    paths = [path for room in RUN for path in (ROOT / "engine" / room).rglob("*.py")] + [ROOT / "engine" / name for name in RUN_FILES]
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
                if (owner, node.attr) in WALL or node.attr in ("st_mtime", "st_ctime", "st_mtime_ns", "getmtime"):
                    found.append(f"{path.name}:{node.lineno}")
            if isinstance(node, ast.ImportFrom) and node.module == "time" and any(name.name in ("time", "time_ns") for name in node.names):
                found.append(f"{path.name}:{node.lineno}")
    assert len(paths) > 60
    assert found == []


def test_clocks_that_jump(
    small_job: Job, stable: Stable, memory: Path, scale: Callable[[int, int], int], seed: int, settle: Callable[[Tally], None]
) -> None:
    rng, tally = random.Random(seed), Tally()
    while tally.strikes.total() < scale(1, 30):
        place = Place(memory / f"clock-{tally.archives}")

        def begin(start: int, place: Place = place) -> object:
            for folder, _, files in os.walk(place.folder):  # what is there is now of any age, and from the future
                for name in files:
                    os.utime(os.path.join(folder, name), (rng.uniform(0, 80) * YEARS,) * 2)
            words = [str(start), *small_job.words(place.archive, "--workers", "0")]
            return stable.start(words, place.scratch / "log", env=place.env, call="tests.faults.test_clocks:jumping")

        def hit(start: int, run: object, place: Place = place) -> str:
            await_records(run, place.archive, rng.randrange(0, 4))
            return strike_driver(run, rng.uniform(0, 0.1), polite=False)

        tally.add(until_whole(small_job, place, begin, hit))
    settle(tally)
