"""Every point of creating, publishing and finalising at which a process can die, and many at which two writers of a shard can meet."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.archive.chunks import ChunkCodec
from engine.archive.cleaning import collect_garbage
from engine.archive.commits import committed_shards
from engine.archive.root import read_root
from engine.archive.verify import verify_archive
from engine.archive.writer import create_archive
from tests.archive.cases import CODEC_FILES, make_archive, make_rows, make_shard, make_spec, objects
from tests.faults.late import MIXED, ROWS, STATUSES
from tests.faults.operations import Strike
from tests.faults.stable import Stable
from tests.faults.strikes import Place

Count = Callable[[dict[str, int]], None]
Scale = Callable[[int, int], int]


def assert_whole(archive: Path) -> None:
    """Nothing is wrong, and after `gc` nothing is too many, neither in the archive nor beside it."""
    assert [str(problem) for problem in verify_archive(archive) if not problem.is_note] == []
    collect_garbage(archive)
    assert [str(problem) for problem in verify_archive(archive)] == []
    assert sorted(os.listdir(archive.parent)) == ["films.plan.parquet", "films.zarr"]


@pytest.mark.parametrize("kind", ["kill", "torn"])
def test_death_at_every_operation(kind: str, stable: Stable, memory: Path, scale: Scale, count: Count) -> None:
    whole, kills, at = make_archive(memory / f"{kind}-whole" / "films.zarr", rows=ROWS), 0, random.Random(3).randrange(scale(24, 1))
    while True:
        place = Place(memory / f"{kind}-{at}")
        strike = Strike(str(place.folder), at, kind)
        code = stable.start([str(place.archive)], place.scratch / "log", strike=strike, call="tests.faults.late:whole").wait()
        if code == 0:
            break
        assert code == -signal.SIGKILL, (place.scratch / "log").read_text()
        kills, at = kills + 1, at + scale(24, 1)
        again = stable.start([str(place.archive)], place.scratch / "log", call="tests.faults.late:whole")
        assert again.wait() == 0, again.said
        assert_whole(place.archive)
        assert objects(place.archive) == objects(whole)
    count({"points": kills, "whole": kills})
    assert kills > 250 // scale(24, 1)


def test_a_writer_that_comes_back_after_its_shard_was_redone(stable: Stable, memory: Path, scale: Scale, count: Count) -> None:
    rng, fates, winners = random.Random(4), Counter[str](), Counter[str]()
    for turn in range(scale(12, 500)):
        place = Place(memory / f"late-{turn}")
        create_archive(place.archive, make_spec(place.archive, rows=ROWS), codec_files=CODEC_FILES)
        stopped_at, redone_at = rng.randrange(90), rng.choice([-1, rng.randrange(150)])
        fate = rng.choice(["goes on", "goes on", "dies there", "dies later"])
        dies = {"goes on": -1, "dies there": -1, "dies later": stopped_at + rng.randrange(1, 20)}[fate]
        late = Strike(str(place.folder), stopped_at, "stop", dies_at=dies)
        seeds = rng.sample(sorted(STATUSES), 2)
        zombie = stable.start([str(place.archive), str(seeds[0])], place.scratch / "late", strike=late, call="tests.faults.late:worker")
        if zombie.stopped():
            fates[fate] += 1
        redo = Strike(str(place.folder), redone_at, "stop")
        other = stable.start([str(place.archive), str(seeds[1])], place.scratch / "redo", strike=redo, call="tests.faults.late:driver")
        meets = redone_at >= 0 and other.stopped()
        if not meets:
            other.wait()
        zombie.signal(signal.SIGKILL if fate == "dies there" else signal.SIGCONT)
        zombie.wait()
        other.signal(signal.SIGCONT)
        other.wait()
        about = f"turn {turn}: stopped at {stopped_at}, redone to {redone_at}, {fate}, seeds {seeds}: {zombie.said}{other.said}"
        assert zombie.code in (0, 1, -signal.SIGKILL), about
        assert other.code in (0, 1), about
        again = stable.start([str(place.archive)], place.scratch / "again", call="tests.faults.late:whole")
        assert again.wait() == 0, f"{about}: {again.said}"
        winners[_seed_of(place.archive, [*seeds, 0])] += 1
        try:
            assert_whole(place.archive)
        except AssertionError as error:
            raise AssertionError(about) from error
    count({"turns": scale(12, 500), **fates, **winners})
    assert committed_shards(place.archive) == {0, 1}


def _seed_of(archive: Path, seeds: list[int]) -> str:
    """Whose values the shard has; a mixture of two attempts is nobody's."""
    codecs = {name: ChunkCodec(name, node) for name, node in read_root(archive).columns.items()}
    found = {name: path.read_bytes() if (path := archive / codec.key(0)).exists() else None for name, codec in codecs.items()}
    for seed in dict.fromkeys(seeds):
        rows = make_rows(make_shard(0, rows=ROWS), seed=seed, statuses=STATUSES.get(seed, MIXED))
        if found == {name: codec.encode(0, rows.columns[name]) for name, codec in codecs.items()}:
            return f"seed {seed}"
    return "a mixture" if any(found.values()) else "nobody"
