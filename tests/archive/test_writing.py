"""A shard is committed whole or not at all, whoever writes it, how often, and whatever kills the writer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from engine.archive.cleaning import collect_garbage, remove_archive
from engine.archive.commits import committed_shards, read_receipts
from engine.archive.folder_store import FolderStore, abandoned_beside
from engine.archive.root import read_root
from engine.archive.verify import verify_archive
from engine.archive.writer import ShardConflict, clean_uncommitted, create_archive, finalise
from engine.errors import ArchiveError
from tests.archive.cases import CODEC_FILES, MIXED, make_archive, make_rows, make_shard, make_spec, objects, publish

ROOT = Path(__file__).parents[2]
WRITE_ALL = """
import sys
from pathlib import Path
from engine.archive.writer import ShardWriter
from tests.archive.cases import MIXED, make_rows, make_shard
writer, rows = ShardWriter(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
for index in range(-(-rows // 4)):
    shard = make_shard(index, rows=rows)
    writer.publish(shard, make_rows(shard, statuses=MIXED), made_by={}, seconds={})
"""

# one of the writers has no latents at all, so no object for them
RACE = """
import sys
from engine.archive.writer import ShardConflict, ShardWriter
from engine.records import Status
from tests.archive.cases import make_rows, make_shard
seed, shard = int(sys.argv[1]), make_shard(0, rows=8, shard_rows=8)
rows = make_rows(shard, seed=seed, statuses=(Status.POISON if seed == 0 else Status.OK,))
for writer in [ShardWriter(path) for path in sys.argv[2:]]:
    sys.stdin.readline()
    try:
        print(writer.publish(shard, rows, made_by={"seed": seed}, seconds={}).made_by["seed"], flush=True)
    except ShardConflict:
        print("conflict", flush=True)
"""


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = make_archive(tmp_path / "1" / "a.zarr"), make_archive(tmp_path / "2" / "a.zarr")
    assert objects(first) == objects(second)
    other = make_archive(tmp_path / "3" / "a.zarr", seed=1)
    assert read_root(first).attributes["content"] != read_root(other).attributes["content"]


def test_finalising_twice_changes_nothing_and_unfinished_is_refused(archive: Path) -> None:
    before = objects(archive)
    finalise(archive)
    assert objects(archive) == before
    (archive / "shards/commit/c/1").unlink()
    with pytest.raises(ArchiveError, match="1 of 3 shards are pending"):
        finalise(archive)


def test_publishing_again_returns_the_receipt_that_stands(archive: Path) -> None:
    before = objects(archive)
    shard = make_shard(1, attempt=5)
    receipt = publish(archive, shard, make_rows(shard, seed=9))
    assert receipt == read_receipts(archive)[1]
    assert receipt.attempt == 1
    assert objects(archive) == before


def test_equal_leftovers_are_taken_over_and_others_are_a_conflict_until_cleaned(archive: Path) -> None:
    before = objects(archive)
    (archive / "shards/commit/c/1").unlink()
    (archive / "mse/c/1").unlink()
    publish(archive, make_shard(1), make_rows(make_shard(1), statuses=MIXED))
    assert objects(archive) == before
    (archive / "shards/commit/c/1").unlink()
    again = make_rows(make_shard(1, attempt=2), seed=3, statuses=MIXED)
    with pytest.raises(ShardConflict, match="clean the shard and try again: shard 1"):
        publish(archive, make_shard(1, attempt=2), again)
    assert objects(archive) == before
    clean_uncommitted(archive, [0, 1, 2])
    assert committed_shards(archive) == {0, 2}
    assert publish(archive, make_shard(1, attempt=2), again).attempt == 2
    finalise(archive)
    assert verify_archive(archive) == []


@pytest.mark.parametrize("meanwhile", ["cleaned", "cleaned and done again up to the record"])
def test_a_late_writer_takes_its_record_back_when_its_objects_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    path = tmp_path / "a.zarr"
    create_archive(path, make_spec(path, rows=4))
    put, record = FolderStore.put_if_absent, path / "shards/commit/c/0"

    def put_late(store: FolderStore, key: str, data: bytes) -> bool:
        monkeypatch.undo()
        clean_uncommitted(path, [0])  # the driver takes this attempt for dead just now
        if meanwhile != "cleaned":
            publish(path, make_shard(0, attempt=2), make_rows(make_shard(0), seed=1))
            record.unlink()
        return put(store, key, data)

    monkeypatch.setattr(FolderStore, "put_if_absent", put_late)
    with pytest.raises(ShardConflict, match="clean the shard and try again: shard 0"):
        publish(path, make_shard(0), make_rows(make_shard(0)))
    assert committed_shards(path) == set()
    clean_uncommitted(path, [0])
    publish(path, make_shard(0, attempt=3), make_rows(make_shard(0)))
    finalise(path)
    assert verify_archive(path) == []


def test_a_record_that_comes_while_its_shard_is_cleaned_goes_with_its_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zarr"
    create_archive(path, make_spec(path, rows=4))
    listdir = os.listdir

    def list_late(folder: Path) -> list[str]:
        monkeypatch.undo()
        names = listdir(folder)  # the cleaner asks which shards are committed, and this one is just before it
        publish(path, make_shard(0), make_rows(make_shard(0)))
        return names

    (path / "shards/commit/c").mkdir(parents=True)
    monkeypatch.setattr(os, "listdir", list_late)
    clean_uncommitted(path, [0])
    assert committed_shards(path) == set()
    assert not [key for key in objects(path) if key.split("/c/")[-1].startswith("0") and "/c/" in key]


def test_a_late_writer_leaves_the_record_of_another_attempt_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zarr"
    create_archive(path, make_spec(path, rows=4))
    put = FolderStore.put_if_absent

    def put_late(store: FolderStore, key: str, data: bytes) -> bool:
        monkeypatch.undo()
        clean_uncommitted(path, [0])
        publish(path, make_shard(0, attempt=2), make_rows(make_shard(0), seed=1))
        return put(store, key, data)

    monkeypatch.setattr(FolderStore, "put_if_absent", put_late)
    assert publish(path, make_shard(0), make_rows(make_shard(0))).attempt == 2
    finalise(path)
    assert verify_archive(path) == []


def test_a_leftover_where_the_new_attempt_has_no_object_is_a_conflict(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    create_archive(path, make_spec(path, rows=4))
    (path / "psnr/c").mkdir(parents=True)
    (path / "psnr/c/0").write_bytes(b"of another attempt")
    rows = make_rows(make_shard(0))
    rows.columns["psnr"][:] = np.nan
    with pytest.raises(ShardConflict):
        publish(path, make_shard(0), rows)
    assert committed_shards(path) == set()


def test_killed_at_any_moment_cleaned_and_done_again_it_is_the_same_archive(tmp_path: Path) -> None:
    rows, shards, rng = 24, range(6), np.random.default_rng(0)
    undisturbed = tmp_path / "0" / "a.zarr"
    start = time.perf_counter()
    make_archive(undisturbed, rows=rows)
    usual = time.perf_counter() - start
    kills, found_done = 0, []
    for attempt in range(1, 11):
        path = tmp_path / str(attempt) / "a.zarr"
        create_archive(path, make_spec(path, rows=rows), codec_files=CODEC_FILES)
        with subprocess.Popen([sys.executable, "-c", WRITE_ALL, str(path), str(rows)], cwd=ROOT, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(float(rng.uniform(0, usual)))
            writer.send_signal(signal.SIGKILL)
        kills += writer.returncode == -signal.SIGKILL
        harmful = [problem.object for problem in verify_archive(path) if not problem.is_note]
        done = committed_shards(path)
        assert harmful == ([] if len(done) == len(shards) else ["shards/commit"])
        clean_uncommitted(path, set(shards) - done)
        for index in shards:
            publish(path, make_shard(index, rows=rows), make_rows(make_shard(index, rows=rows), statuses=MIXED))
        finalise(path)
        assert objects(path) == objects(undisturbed)
        assert verify_archive(path) == []
        found_done.append(len(done))
    print(f"{kills} kills, with so many of 6 shards done: {found_done}")
    assert kills >= 3


def test_writers_that_race_for_a_shard_leave_one_consistent_result(tmp_path: Path) -> None:
    paths = [tmp_path / f"{attempt}.zarr" for attempt in range(8)]
    for path in paths:
        create_archive(path, make_spec(path, rows=8, shard_rows=8))
    with ExitStack() as stack:
        racers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", RACE, str(seed), *map(str, paths)],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    bufsize=1,
                )
            )
            for seed in range(3)
        ]
        for path in paths:
            _race_once(path, racers)
    assert [racer.returncode for racer in racers] == [0, 0, 0]


def _race_once(path: Path, racers: list[subprocess.Popen[str]]) -> None:
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
    said = [racer.stdout.readline().strip() for racer in racers if racer.stdout is not None]
    winners = {answer for answer in said if answer != "conflict"}
    if winners:
        assert winners == {str(read_receipts(path)[0].made_by["seed"])}
    else:  # they stood in one another's way: the driver cleans and tries again
        clean_uncommitted(path, [0])
        publish(path, make_shard(0, rows=8, shard_rows=8), make_rows(make_shard(0, rows=8, shard_rows=8)))
    finalise(path)
    assert verify_archive(path) == []


def test_a_creation_that_is_killed_leaves_nothing_that_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.archive.cases import make_spec, CODEC_FILES; from engine.archive.writer import create_archive\n"
        "link, done = os.link, []\n"
        "def dying(a, b):\n"
        "    done.append(b); link(a, b)\n"
        "    if len(done) == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.link = dying\n"
        "path = Path(sys.argv[1]); create_archive(path, make_spec(path), codec_files=CODEC_FILES)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists()
    assert len(abandoned_beside(path)) == 1
    create_archive(path, make_spec(path))
    freed = collect_garbage(path)
    assert freed.files >= 5
    assert freed.foreign == ()
    assert abandoned_beside(path) == []
    with pytest.raises(ArchiveError, match="something of that name already"):
        create_archive(path, make_spec(path))


def test_gc_removes_what_no_record_names_and_nothing_else(archive: Path) -> None:
    before = objects(archive)
    (archive / "shards/commit/c/2").unlink()
    for key in (
        "latent/c/0/0/0." + "a" * 32 + ".partial",
        "zarr.json." + "b" * 32 + ".partial",
        "shards/commit/c/1." + "c" * 32 + ".partial",
    ):
        (archive / key).write_bytes(b"abc")
    (archive / "notes.txt").write_bytes(b"mine")
    freed = collect_garbage(archive)
    assert freed.foreign == ("notes.txt",)
    assert freed.files == 3 + 12
    left = objects(archive)
    assert left.pop("notes.txt") == b"mine"
    assert left == {key: data for key, data in before.items() if not key.split("/c/")[-1].startswith("2")}
    record = archive / "shards/commit/c/0"
    record.write_bytes(record.read_bytes()[:-1])
    with pytest.raises(ArchiveError, match="commit record is damaged"):
        collect_garbage(archive)
    assert objects(archive).keys() == left.keys() | {"notes.txt"}


def test_only_an_archive_is_removed(archive: Path) -> None:
    other = archive.parent / "photographs"
    other.mkdir()
    (other / "cat.png").write_bytes(b"")
    for path in (other, other / "cat.png"):
        with pytest.raises(ArchiveError, match="not a latentray archive"):
            remove_archive(path)
    assert (other / "cat.png").exists()
    remove_archive(archive)
    remove_archive(archive)
    assert sorted(path.name for path in archive.parent.iterdir()) == ["films.plan.parquet", "photographs"]
