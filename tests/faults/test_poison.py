"""A film that kills whichever worker opens it, while workers and drivers are killed as well: it alone is marked."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.archive.cleaning import collect_garbage
from engine.archive.reader import open_archive
from engine.archive.verify import verify_archive
from engine.records import Status
from tests.faults.job import Job
from tests.faults.nodes import TwoNodes, two_nodes
from tests.faults.stable import Stable
from tests.faults.strikes import Place, await_records, strike_driver

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("only_long")]
DEADLY = "film-0005.png"
# Python loads it in every process that a node starts; drivers, which only list films, are no such processes.
CUSTOM = f"""
import os, signal, sys
def look(event, args):
    if event == "open" and str(args[0]).endswith("deadly/{DEADLY}"):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(look)
"""


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoNodes]:
    (tmp_path / "sitecustomize.py").write_text(CUSTOM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with two_nodes() as found:
        yield found


def test_poison_among_other_faults(
    small_job: Job,
    stable: Stable,
    nodes: TwoNodes,
    memory: Path,
    tmp_path: Path,
    scale: Callable[[int, int], int],
    seed: int,
    count: Callable[[dict[str, int]], None],
) -> None:
    rng, starts, kills = random.Random(seed), 0, 0
    films = tmp_path / "deadly"
    shutil.copytree(small_job.films, films)
    options = [word if before != "--shard-rows" else "4" for before, word in zip(["", *small_job.options], small_job.options, strict=False)]
    job = Job(str(films), small_job.codec, options)
    for turn in range(scale(1, 3)):
        place, code = Place(memory / f"poison-{turn}"), -1
        while code != 0:
            run = stable.start(
                job.words(place.archive, "--workers", "2", "--address", nodes.address, "--max-failed-fraction", "0.5"),
                place.scratch / "log",
                env=place.env,
            )
            starts += 1
            if starts % 4 == 1:  # a driver dies, or a worker that is none of the film's; the next runs are let be
                await_records(run, place.archive, 1)
                if rng.random() < 0.5:
                    kills += bool(strike_driver(run, rng.uniform(0, 2), polite=False))
                elif workers := nodes.workers():
                    nodes.kill_worker(rng.choice(workers))
                    kills += 1
            code = run.wait()
            assert code in (0, 2, -9), run.said
            assert starts < 20, run.said
        _assert_one_is_marked(place.archive, small_job)
    count({"archives": scale(1, 3), "starts": starts, "strikes": kills, "poison films": scale(1, 3)})


def _assert_one_is_marked(archive: Path, small_job: Job) -> None:
    collect_garbage(archive)
    assert verify_archive(archive) == []
    whole = open_archive(Path(small_job.films).with_name("undisturbed.zarr")).load()
    found = open_archive(archive).load()
    row = [f"{name}.png" for name in whole.sample_id.values].index(DEADLY)
    assert found.status.values[row] == Status.POISON
    others = [at for at in range(whole.sizes["sample"]) if at != row]
    assert np.array_equal(found.sample_id.values, whole.sample_id.values)
    for name in ("status", "latent", "psnr", "source_sha256"):
        assert np.array_equal(found[name].values[others], whole[name].values[others]), name
