"""The same command again and again, struck each time, until the archive is whole; and how often that was."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.job import Found, Job
from tests.faults.operations import Strike
from tests.faults.stable import Run, Stable

MOST_STARTS = 400  # of one archive: far beyond what any needs


@dataclass
class Tally:
    """What was done to the engine, by kind, and what was found."""

    strikes: Counter[str] = field(default_factory=Counter)
    archives: int = 0
    starts: int = 0
    found: Found = field(default_factory=Found)

    def add(self, other: Tally) -> None:
        self.strikes.update(other.strikes)
        self.archives, self.starts = self.archives + other.archives, self.starts + other.starts
        self.found.add(other.found)


@dataclass
class Place:
    """Where one archive is made: nothing but it and its plan may be left in `folder`."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.scratch.mkdir()

    @property
    def archive(self) -> Path:
        return self.folder / "films.zarr"

    @property
    def scratch(self) -> Path:
        """The run's TMPDIR, and its log."""
        return self.folder.with_name(f"{self.folder.name}-scratch")

    @property
    def env(self) -> dict[str, str]:
        return {"TMPDIR": str(self.scratch)}


def until_whole(job: Job, place: Place, begin: Callable[[int], Run], hit: Callable[[int, Run], str]) -> Tally:
    """Starts runs by `begin`, each struck by `hit`, which says how or "" when it was too late, until one ends by itself with 0."""
    tally = Tally(archives=1)
    for start in range(MOST_STARTS):
        run = begin(start)
        kind = hit(start, run)
        code = run.wait()
        tally.starts += 1
        if code == 0:
            tally.found = job.check(place.archive)
            return tally
        assert kind, f"a run that nothing was done to ended with {code}: {run.said}"
        tally.strikes[kind] += 1
        run.end_session()
    raise AssertionError(f"no run out of {MOST_STARTS} came to its end")


def by_operations(job: Job, stable: Stable, place: Place, rng: random.Random, *, longest: int) -> Tally:
    """Each run dies before an operation drawn from its first `longest`, every second one with the file that it flushes cut."""

    def begin(start: int) -> Run:
        strike = Strike(str(place.folder), rng.randrange(longest), rng.choice(["kill", "torn"]))
        return stable.start(job.words(place.archive, "--workers", "0"), place.scratch / "log", env=place.env, strike=strike)

    return until_whole(job, place, begin, lambda start, run: "driver, at an operation")


def in_time(job: Job, stable: Stable, place: Place, rng: random.Random, *, env: Mapping[str, str] | None = None) -> Tally:
    """Each run gets SIGKILL, or SIGTERM and 3 s later SIGKILL, at a random moment of its start or after a few more shards."""

    def begin(start: int) -> Run:
        words = job.words(place.archive, "--workers", "0")
        return stable.start(words, place.scratch / "log", env={**place.env, **(env or {})})

    def hit(start: int, run: Run) -> str:
        if rng.random() < 0.3:
            return strike_driver(run, rng.uniform(0, 2.0), polite=False)
        await_records(run, place.archive, rng.randrange(1, 10))
        return strike_driver(run, rng.uniform(0, 0.1), polite=rng.random() < 0.2)

    return until_whole(job, place, begin, hit)


def records(archive: Path) -> int:
    """How many shards have a commit record."""
    return sum(path.name.isdecimal() for path in (archive / "shards" / "commit" / "c").glob("*"))


def await_records(run: Run, archive: Path, more: int) -> None:
    """Waits until so many more shards are done than now, or the run has ended."""
    target = records(archive) + more
    while records(archive) < target and run.ended(0.01) is None:
        pass


def strike_driver(run: Run, seconds: float, *, polite: bool) -> str:
    """Waits, then ends a run as `ray job stop` does, or at once; "" when it ended by itself before."""
    if run.ended(seconds) is not None:
        return ""
    if polite:
        run.signal(signal.SIGTERM)
        run.ended(3.0)
    run.signal(signal.SIGKILL)
    run.wait()
    return "driver, SIGTERM then SIGKILL" if polite else "driver, SIGKILL"


def count_operations(job: Job, stable: Stable, place: Place) -> int:
    """How many operations one undisturbed run does."""
    count = place.scratch / "count"
    strike = Strike(str(place.folder), count=str(count))
    run = stable.start(job.words(place.archive, "--workers", "0"), place.scratch / "log", env=place.env, strike=strike)
    assert run.wait() == 0, run.said
    return int(count.read_text())


def wait_until(is_so: Callable[[], bool], *, seconds: float = 120.0) -> None:
    """Looks fifty times a second; an AssertionError when it never is."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "what was waited for never came"
        time.sleep(0.02)
