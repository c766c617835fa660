"""Two runs of one archive at once: the second is refused in one line, whichever it is; a run that died keeps nobody out."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from engine.archive.root import read_root
from tests.faults.job import Job, rows_of
from tests.faults.stable import Run, Stable
from tests.faults.strikes import Place, await_records

REFUSALS = ("another run is writing this archive", "something of that name already", "archive was made otherwise")


def test_one_of_two_is_refused(
    small_job: Job, stable: Stable, memory: Path, scale: Callable[[int, int], int], seed: int, count: Callable[[dict[str, int]], None]
) -> None:
    rng, ends = random.Random(seed), Counter[str]()
    for turn in range(scale(2, 40)):
        place = Place(memory / f"two-{turn}")
        first = stable.start(small_job.words(place.archive, "--workers", "0"), place.scratch / "first", env=place.env)
        if rng.random() < 0.5:
            await_records(first, place.archive, rng.randrange(1, 4))
        more = rng.choice([[], [], ["--overwrite"], ["--dtype", "f4"], ["--dtype", "f4", "--overwrite"]])
        second = stable.start(small_job.words(place.archive, "--workers", "0", *more), place.scratch / "second", env=place.env)
        codes = (first.wait(), second.wait())
        assert 0 in codes, first.said + second.said
        for run, code in zip((first, second), codes, strict=True):
            if code != 0:
                assert code in (2, 3), run.said
                assert any(refusal in run.said for refusal in REFUSALS), run.said
                assert len(run.said.strip().splitlines()) == 1, run.said
        ends["both in turn" if codes == (0, 0) else "one refused"] += 1
        if "f4" in more and codes[1] == 0:
            assert read_root(place.archive).parts["latent"]["dtype"] == "f4"  # the second came after, and all of it is the second's
            continue
        found = small_job.check(place.archive)
        assert {name: number for name, number in vars(found).items() if number and name != "rows"} == {}, first.said + second.said
    count({"turns": ends.total(), **ends})


def test_a_run_that_stands_still_keeps_others_out_and_a_dead_one_does_not(small_job: Job, stable: Stable, memory: Path) -> None:
    place = Place(memory / "still")
    words = small_job.words(place.archive, "--workers", "0")

    def start(name: str) -> Run:
        return stable.start(words, place.scratch / name, env=place.env)

    first = start("first")
    await_records(first, place.archive, 1)
    first.signal(signal.SIGSTOP)
    second = start("second")
    assert second.wait() == 2
    assert "another run is writing this archive" in second.said
    first.signal(signal.SIGKILL)
    first.wait()
    third = start("third")
    assert third.wait() == 0, third.said
    assert rows_of(place.archive) == small_job.undisturbed
