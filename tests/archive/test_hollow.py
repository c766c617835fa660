"""Records that name objects which are not there, and what else a writer leaves that was taken for dead, or a run that was killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.archive.cleaning import clean_uncommitted, collect_garbage, withdraw_hollow
from engine.archive.commits import committed_shards
from engine.archive.folder_store import FolderStore
from engine.archive.verify import verify_archive
from engine.archive.writer import create_archive, finalise
from engine.errors import ArchiveError
from tests.archive.cases import MIXED, make_rows, make_shard, make_spec, publish

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from engine.archive.store import open_store
with open_store(sys.argv[1]).held():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hollow(tmp_path: Path) -> Path:
    """Shard 0 of 2 has a record, linked by a writer that was killed before it saw that its objects had been cleaned away."""
    path = tmp_path / "films.zarr"
    create_archive(path, make_spec(path, rows=8))
    publish(path, make_shard(0, rows=8), make_rows(make_shard(0, rows=8), statuses=MIXED))
    record = path / "shards/commit/c/0"
    data = record.read_bytes()
    record.unlink()
    clean_uncommitted(path, [0])
    record.write_bytes(data)
    return path


@pytest.mark.parametrize("seed", [0, 1])
def test_a_hollow_record_is_no_reason_to_skip_the_shard(hollow: Path, seed: int) -> None:
    for index in range(2):
        shard = make_shard(index, rows=8, attempt=2)
        receipt = publish(hollow, shard, make_rows(shard, seed=seed, statuses=MIXED))
        assert receipt.attempt == 2
    finalise(hollow)
    assert verify_archive(hollow) == []


def test_a_run_that_goes_on_takes_hollow_records_back_and_no_others(hollow: Path, archive: Path) -> None:
    publish(hollow, make_shard(1, rows=8), make_rows(make_shard(1, rows=8)))
    assert withdraw_hollow(hollow) == {1}
    assert committed_shards(hollow) == {1}
    (archive / "mse/c/1").unlink()  # of one that was finalised: damage, for `verify`
    assert withdraw_hollow(archive) == {0, 1, 2}
    assert committed_shards(archive) == {0, 1, 2}


def test_gc_removes_what_a_killed_run_left_of_the_plan(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, before = tmp_path / "plan.parquet", sorted(os.listdir(archive.parent))
    plan.write_bytes(b"a plan")
    before = sorted(os.listdir(archive.parent))

    class Killed(BaseException):
        """As if the process had ended here."""

    def dying(source: Path, target: Path) -> None:
        target.write_bytes(b"a pl")
        raise Killed

    monkeypatch.setattr("shutil.copyfile", dying)
    with pytest.raises(Killed):
        FolderStore(archive).put_beside("films.plan.parquet", plan)
    assert len(os.listdir(archive.parent)) == len(before) + 1
    assert collect_garbage(archive).bytes == 4
    assert sorted(os.listdir(archive.parent)) == before


def test_only_one_run_holds_an_archive(archive: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(archive)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ArchiveError, match="another run is writing this archive"), FolderStore(archive).held():
            pass
        with pytest.raises(ArchiveError, match="another run is writing this archive"):
            collect_garbage(archive)
        other.kill()
        other.wait()
    assert collect_garbage(archive).files == 0
    with FolderStore(archive).held():
        pass
