"""Runs that write into a bucket through a proxy that fails, stalls, repeats and loses requests, and are killed on top of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.archive.commits import committed_shards
from engine.archive.object_store import ObjectStore
from engine.archive.store import Store
from engine.errors import ArchiveError
from tests.faults.job import Job
from tests.faults.stable import Run, Stable
from tests.faults.strikes import Place, Tally, strike_driver
from tests.s3_server import BUCKET, Faults, environment, flaky, s3_server

pytestmark = pytest.mark.slow
FAULTS = {"fail": 0.05, "stall": 0.01, "repeat": 0.05, "lose": 0.02}


@pytest.mark.usefixtures("only_long")  # in the short form tests/faults/test_runs_on_s3.py has the faults, without kills
def test_killed_while_the_store_fails(
    small_job: Job,
    stable: Stable,
    memory: Path,
    scale: Callable[[int, int], int],
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
    settle: Callable[[Tally], None],
    count: Callable[[dict[str, int]], None],
) -> None:
    rng, tally, faults = random.Random(seed), Tally(), Faults(**FAULTS, seed=seed)
    with s3_server() as endpoint, flaky(endpoint, faults) as proxy:
        for name, value in environment(endpoint).items():
            monkeypatch.setenv(name, value)
        while tally.strikes.total() < scale(2, 40):
            place = Place(memory / f"s3-{tally.archives}")
            tally.add(_until_whole(small_job, stable, place, f"s3://{BUCKET}/{tally.archives}/films.zarr", proxy, rng))
    count({f"requests to {name}": number for name, number in sorted(faults.counts.items())})
    settle(tally)
    assert faults.counts["fail"] > 0


def test_two_runs_at_once_in_a_store_lose_nothing(
    small_job: Job,
    stable: Stable,
    memory: Path,
    scale: Callable[[int, int], int],
    monkeypatch: pytest.MonkeyPatch,
    count: Callable[[dict[str, int]], None],
) -> None:
    ends = {"turns": 0, "both came to their end": 0, "one gave up": 0, "both gave up": 0}
    with s3_server() as endpoint:
        for name, value in environment(endpoint).items():
            monkeypatch.setenv(name, value)
        for turn in range(scale(1, 10)):
            place, url = Place(memory / f"s3-two-{turn}"), f"s3://{BUCKET}/two-{turn}/films.zarr"
            words, env = small_job.words(url, "--workers", "0"), {**place.env, **environment(endpoint)}
            runs = [stable.start(words, place.scratch / f"log-{at}", env=env) for at in range(2)]
            done = sum(run.wait() == 0 for run in runs)
            for run in runs:
                assert run.code in (0, 2), run.said
                assert run.code == 0 or run.said.strip().splitlines()[-1].startswith("latentray encode: "), run.said
            ends["turns"], ends[list(ends)[3 - done]] = turn + 1, ends[list(ends)[3 - done]] + 1
            again = stable.start(words, place.scratch / "again", env=env)
            assert again.wait() == 0, again.said
            found = small_job.check(url)
            assert {name: number for name, number in vars(found).items() if number and name != "rows"} == {}
    count(ends)


def _until_whole(job: Job, stable: Stable, place: Place, url: str, proxy: str, rng: random.Random) -> Tally:
    tally, env = Tally(archives=1), {**place.env, **environment(proxy, timeout=2.0)}
    while True:
        run = stable.start(job.words(url, "--workers", "0"), place.scratch / "log", env=env)
        tally.starts += 1
        kind = _hit(run, url, rng)
        if run.wait() == 0:
            tally.found = job.check(url)
            return tally
        assert kind, run.said
        tally.strikes[kind] += 1


def _hit(run: Run, url: str, rng: random.Random) -> str:
    """Strikes at a random moment of its start, or when so many more shards are done."""
    target = _done(url) + rng.randrange(0, 5)
    while _done(url) < target and run.ended(0.02) is None:
        pass
    return strike_driver(run, rng.uniform(0, 0.5), polite=False)


def _done(url: str) -> int:
    store: Store = ObjectStore(url)
    try:
        return len(committed_shards(url)) if store.exists() else 0
    except ArchiveError:
        return 0
