"""What a worker, and a driver that takes it for dead, do to one shard of a small archive; each in a process that can be stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.archive.cleaning import clean_uncommitted, withdraw_hollow
from engine.archive.writer import ShardConflict, create_archive, finalise
from engine.errors import LatentrayError
from engine.records import Status
from tests.archive.cases import CODEC_FILES, MIXED, make_rows, make_shard, make_spec, publish

ROWS, ATTEMPTS = 8, 3
STATUSES = {0: MIXED, 1: (Status.OK,), 2: (Status.POISON,), 3: MIXED}  # by seed: attempts that differ in which objects they have


def worker(words: Sequence[str]) -> int:
    """Publishes shard 0 of ARCHIVE with the values of SEED; 1 when another attempt was in the way."""
    archive, seed = Path(words[0]), int(words[1])
    shard = make_shard(0, rows=ROWS)
    try:
        publish(archive, shard, make_rows(shard, seed=seed, statuses=STATUSES[seed]))
    except LatentrayError:
        return 1
    return 0


def driver(words: Sequence[str]) -> int:
    """Takes whoever is at work for dead: cleans and publishes, three times at most, as the driver of a run does with a shard."""
    archive, seed = Path(words[0]), int(words[1])
    for attempt in range(2, 2 + ATTEMPTS):
        clean_uncommitted(archive, [0])
        shard = make_shard(0, rows=ROWS, attempt=attempt)
        try:
            publish(archive, shard, make_rows(shard, seed=seed, statuses=STATUSES[seed]))
            return 0
        except ShardConflict:
            continue
    return 1


def whole(words: Sequence[str]) -> int:
    """All of a small archive from nothing, or from where another process stopped, as the command does it."""
    archive = Path(words[0])
    if not archive.exists():
        create_archive(archive, make_spec(archive, rows=ROWS), codec_files=CODEC_FILES)
    pending = set(range(2)) - withdraw_hollow(archive)
    clean_uncommitted(archive, pending)
    for index in pending:
        shard = make_shard(index, rows=ROWS)
        publish(archive, shard, make_rows(shard, statuses=MIXED))
    finalise(archive)
    return 0
