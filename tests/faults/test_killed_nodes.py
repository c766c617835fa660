"""The command on a Ray of two nodes whose workers, raylets, nodes and drivers are killed at random moments."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.archive.commits import read_receipts
from tests.faults.job import Job
from tests.faults.nodes import Openings, TwoNodes, command_of, kill, session_of, two_nodes
from tests.faults.stable import Run, Stable
from tests.faults.strikes import Place, Tally, await_records, records, strike_driver, until_whole

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SECONDS = 200.0  # that the long form strikes for, at most


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    with two_nodes() as found:
        yield found


def start(job: Job, stable: Stable, place: Place, nodes: TwoNodes) -> Run:
    words = job.words(place.archive, "--workers", "2", "--address", nodes.address)
    return stable.start(words, place.scratch / "log", env=place.env)


def await_workers(run: Run, nodes: TwoNodes, number: int) -> list[int]:
    """The workers, as soon as there are so many, or the run has ended."""
    while len(found := nodes.workers()) < number and run.ended(0.1) is None:
        pass
    return found


def test_a_node_that_is_lost_half_way_costs_two_shards_a_worker(
    job: Job, stable: Stable, nodes: TwoNodes, memory: Path, count: Callable[[dict[str, int]], None]
) -> None:
    place, openings = Place(memory / "half-way"), Openings(Path(job.films))
    run = start(job, stable, place, nodes)
    await_records(run, place.archive, 32)
    at = records(place.archive)
    nodes.lose_node()
    assert run.wait() == 0, run.said
    again, films = openings.count(), len(list(Path(job.films).iterdir()))
    openings.close()
    attempts = sum(receipt.attempt - 1 for receipt in read_receipts(place.archive))
    found = job.check(place.archive)
    count({"done before": at, "films": films, "films read": again, "shards repeated": attempts, **vars(found)})
    assert attempts <= 2
    assert films <= again <= films + 2 * 2  # two shards of two films
    assert {name: number for name, number in vars(found).items() if number and name != "rows"} == {}


@pytest.mark.usefixtures("only_long")
def test_kills_at_random_on_two_nodes(
    job: Job, stable: Stable, nodes: TwoNodes, memory: Path, scale: Callable[[int, int], int], seed: int, settle: Callable[[Tally], None]
) -> None:
    rng, tally, deadline = random.Random(seed), Tally(), time.monotonic() + SECONDS
    while tally.strikes.total() < scale(1, 100) and time.monotonic() < deadline:
        place = Place(memory / f"nodes-{tally.archives}")
        tally.add(_until_whole(job, stable, place, nodes, rng, deadline=deadline, most=scale(1, 100)))
    settle(tally)


def _until_whole(job: Job, stable: Stable, place: Place, nodes: TwoNodes, rng: random.Random, *, deadline: float, most: int) -> Tally:
    tally, run = Tally(archives=1), None
    while True:
        if run is None:
            run, tally.starts = start(job, stable, place, nodes), tally.starts + 1
        if tally.strikes.total() < most and time.monotonic() < deadline:
            await_records(run, place.archive, rng.randrange(0, 6))
            tally.strikes.update(_strike(run, nodes, rng))
        else:
            run.ended(240.0)
        if run.ended(0.0) is not None:
            if run.wait() == 0:
                tally.found = job.check(place.archive)
                return tally
            run = None


def _strike(run: Run, nodes: TwoNodes, rng: random.Random) -> Counter[str]:
    time.sleep(rng.uniform(0, 0.3))
    kind = rng.choices(["worker", "raylet", "node", "driver"], (70, 6, 6, 18))[0]
    if kind == "driver":
        said = strike_driver(run, 0.0, polite=rng.random() < 0.4)
        return Counter([said] if said else [])
    workers = await_workers(run, nodes, 1)
    if not workers or run.ended(0.0) is not None:
        return Counter()
    if kind == "worker":
        nodes.kill_worker(rng.choice(workers))
    elif kind == "raylet":
        nodes.lose_raylet()
    else:
        nodes.lose_node()
    return Counter([f"{kind}, SIGKILL"])


@pytest.mark.usefixtures("only_long")
def test_the_raylet_of_a_ray_of_its_own(job: Job, stable: Stable, memory: Path, count: Callable[[dict[str, int]], None]) -> None:
    place, killed = Place(memory / "own-ray"), []

    def begin(start: int) -> Run:
        env = {"RAY_TMPDIR": "/tmp"}  # the names of its sockets have to be short
        return stable.start(job.words(place.archive, "--workers", "2"), place.scratch / "log", env=env)

    def hit(start: int, run: Run) -> str:
        if killed:
            return ""
        await_records(run, place.archive, 3)
        killed.extend(pid for pid in session_of(run.pid) if command_of(pid).split(b"\0")[0].endswith(b"raylet"))
        assert len(killed) == 1, run.said
        kill(killed[0])
        return "raylet of the driver, SIGKILL"

    tally = until_whole(job, place, begin, hit)
    count({"raylets killed": len(killed), "starts": tally.starts, **vars(tally.found)})
    assert {name: number for name, number in vars(tally.found).items() if number and name != "rows"} == {}
