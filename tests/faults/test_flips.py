"""Single bytes flipped, and ends cut off, in every object of an archive: `verify` names each one that has it, and no other."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from engine.archive.root import ROOT_KEY, plan_beside
from engine.archive.verify import verify_archive
from tests.archive.cases import make_archive

Count = Callable[[dict[str, int]], None]
Scale = Callable[[int, int], int]
SHARDS, SHARD_ROWS = 64, 4
KINDS = ("flipped", "cut", "emptied", "longer")


@pytest.fixture(scope="module")
def large(memory: Path) -> Path:
    """An archive of 64 shards, with films that failed, an embedded codec and a plan."""
    return make_archive(memory / "flips" / "films.zarr", rows=SHARDS * SHARD_ROWS - 1, shard_rows=SHARD_ROWS)


def files_of(archive: Path) -> dict[str, Path]:
    """Every object by its key, and the plan by its name."""
    found = {str(path.relative_to(archive)): path for path in sorted(archive.rglob("*")) if path.is_file()}
    return found | {plan_beside(archive).name: plan_beside(archive)}


def damaged(data: bytes, kind: str, rng: random.Random) -> bytes:
    """The same with one fault; bytes of no length can only become longer."""
    if kind == "longer" or not data:
        return data + bytes([rng.randrange(256)])
    if kind == "flipped":
        at = rng.randrange(len(data))
        return data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :]
    return data[: rng.randrange(len(data))] if kind == "cut" else b""


def faulty(keys: Iterable[str], found: dict[str, Path], rng: random.Random, tally: Counter[str]) -> Iterator[str]:
    """Damages each of these objects, and puts all of them right again when the round is over."""
    before = {key: found[key].read_bytes() for key in keys}
    for key, data in before.items():
        kind = rng.choices(KINDS, (70, 20, 5, 5))[0]
        found[key].write_bytes(damaged(data, kind, rng))
        tally[kind] += 1
    yield from before
    for key, data in before.items():
        found[key].write_bytes(data)


def rounds(keys: list[str]) -> list[list[str]]:
    """All objects in as few checks as tell of each on its own: a damaged record hides its shard's objects, and the root hides all."""
    is_record = {key: key.startswith("shards/commit/c/") for key in keys}
    others = [key for key in keys if not is_record[key] and key != ROOT_KEY]
    return [others, [key for key in keys if is_record[key]], [ROOT_KEY]]


def test_each_of_many_is_named(large: Path, scale: Scale, seed: int, count: Count) -> None:
    rng, found, tally, named = random.Random(seed), files_of(large), Counter[str](), 0
    groups, level = rounds(list(found)), 2
    while tally.total() < scale(900, 10_000):
        for group in groups:
            level = 5 - level  # 2 and 3 in turn
            damage = faulty(group, found, rng, tally)
            expected = {next(damage)}
            problems = {problem.object for problem in verify_archive(large, level=level) if not problem.is_note}
            expected |= set(damage)
            assert problems == expected, f"level {level}: missed {sorted(expected - problems)}, wronged {sorted(problems - expected)}"
            named += len(problems)
    count({"faults": tally.total(), **tally, "objects": len(found), "named": named})
    assert named == tally.total()
    assert verify_archive(large) == []


def test_one_alone_is_named_and_nothing_else(memory: Path, scale: Scale, seed: int, count: Count) -> None:
    archive = make_archive(memory / "flip" / "films.zarr")
    rng, found, tally = random.Random(seed), files_of(archive), Counter[str]()
    for turn in range(scale(150, 3000)):
        key = rng.choice(list(found))
        for _ in faulty([key], found, rng, tally):
            problems = [problem.object for problem in verify_archive(archive, level=2 + turn % 2) if not problem.is_note]
            assert problems == [key], f"turn {turn}"
    count({"faults": tally.total(), **tally, "objects": len(found), "named": tally.total()})
    assert verify_archive(archive) == []
