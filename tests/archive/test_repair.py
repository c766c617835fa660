"""Repair: what can be had is put back as it was, what cannot is made pending, and nothing else is touched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.archive.commits import committed_shards
from engine.archive.folder_store import FolderStore
from engine.archive.merge import merge_archives
from engine.archive.reader import archive_status
from engine.archive.repair import repair_archive
from engine.archive.root import plan_beside, read_root
from engine.archive.verify import verify_archive
from engine.archive.writer import finalise
from engine.errors import ArchiveError
from tests.archive.cases import MIXED, make_archive, make_rows, make_shard, objects, publish


def everything(path: Path) -> dict[str, bytes]:
    """Every file of an archive and of what lies beside it."""
    return {str(file.relative_to(path.parent)): file.read_bytes() for file in sorted(path.parent.rglob("*")) if file.is_file()}


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.fixture
def copy(archive: Path, tmp_path: Path) -> Path:
    """A backup of the archive, made before it was damaged."""
    shutil.copytree(archive.parent, tmp_path / "backup")
    return tmp_path / "backup" / "films.zarr"


def test_a_whole_archive_is_left_as_it_is(archive: Path) -> None:
    before = everything(archive)
    done = repair_archive(archive)
    assert (done.restored, done.requeued, done.plan, done.left) == ((), (), False, ())
    assert everything(archive) == before


@pytest.mark.parametrize("key", ["latent/c/1/0/0", "status/c/1", "shards/commit/c/1"])
def test_only_the_damaged_shard_becomes_pending_and_the_same_rows_make_it_whole(archive: Path, key: str) -> None:
    content, before = read_root(archive).attributes["content"], objects(archive)
    flip(archive / key)
    tried = repair_archive(archive, dry_run=True)
    assert committed_shards(archive) == {0, 1, 2}
    done = repair_archive(archive)
    assert tried == done
    assert done.requeued == (1,)
    assert committed_shards(archive) == {0, 2}
    assert {name: data for name, data in before.items() if "/c/1" not in name and name != "zarr.json"}.items() <= objects(archive).items()
    assert [problem.what for problem in verify_archive(archive) if not problem.is_note] == ["not finished, 1 of 3 shards are pending: 1"]
    publish(archive, make_shard(1), make_rows(make_shard(1), statuses=MIXED))
    finalise(archive)
    assert verify_archive(archive) == []
    assert read_root(archive).attributes["content"] == content


def test_a_dry_run_writes_nothing(archive: Path, copy: Path) -> None:
    for key in ("latent/c/0/0/0", "status/zarr.json", "shards/commit/c/2", "zarr.json"):
        flip(archive / key)
    before = everything(archive)
    assert repair_archive(archive, copy=copy, dry_run=True).restored == ("zarr.json",)
    assert everything(archive) == before


def test_everything_comes_back_from_a_copy(archive: Path, copy: Path) -> None:
    before = everything(archive)
    (archive / "latent/c/0/0/0").unlink()
    (archive / "shards/commit/c/1").unlink()
    for key in ("zarr.json", "latent/zarr.json", "codec/weights.safetensors/c/0", "shards/commit/c/2", "mse/c/2", "sample_id/c/1"):
        flip(archive / key)
    done = repair_archive(archive, copy=copy)
    assert done.requeued == ()
    assert done.left == ()
    assert everything(archive) == before
    assert verify_archive(archive) == []


def test_metadata_of_arrays_needs_no_copy(archive: Path) -> None:
    before = everything(archive)
    (archive / "psnr/zarr.json").unlink()
    flip(archive / "shards/commit/zarr.json")
    assert set(repair_archive(archive).restored) == {"psnr/zarr.json", "shards/commit/zarr.json"}
    assert everything(archive) == before


def test_a_damaged_object_of_the_copy_is_not_taken(archive: Path, copy: Path) -> None:
    flip(archive / "latent/c/1/0/0")
    flip(copy / "latent/c/1/0/0")
    assert repair_archive(archive, copy=copy).requeued == (1,)
    flip(archive / "shards/commit/c/0")
    flip(copy / "latent/c/0/0/0")  # whole here, so the copy's record is as good
    assert repair_archive(archive, copy=copy).restored == ("shards/commit/c/0",)


def test_a_damaged_plan_is_removed_to_be_written_anew(archive: Path) -> None:
    flip(plan_beside(archive))
    done = repair_archive(archive)
    assert (done.plan, done.requeued, done.left) == (True, (), ())
    assert not plan_beside(archive).exists()


def test_an_embedded_codec_without_a_copy_is_left_and_said(archive: Path) -> None:
    flip(archive / "codec/weights.safetensors/c/0")
    assert [problem.object for problem in repair_archive(archive).left] == ["codec/weights.safetensors/c/0"]


def test_what_no_film_could_fill_again_is_never_removed(tmp_path: Path) -> None:
    parts = [make_archive(tmp_path / name / "a.zarr", prefix=name) for name in ("left", "right")]
    merged = tmp_path / "both.zarr"
    merge_archives(parts, merged)
    flip(merged / "latent/c/1/0/0")
    before = everything(merged)
    with pytest.raises(ArchiveError, match="no films would fill these rows again"):
        repair_archive(merged)
    assert everything(merged) == before


def test_a_root_is_not_guessed(archive: Path, tmp_path: Path) -> None:
    flip(archive / "zarr.json")
    with pytest.raises(ArchiveError, match=r"zarr\.json .* name a copy with --from"):
        repair_archive(archive)
    other = make_archive(tmp_path / "other" / "films.zarr", seed=1)
    with pytest.raises(ArchiveError, match="of another run"):
        repair_archive(archive, copy=other)


def test_a_copy_of_another_run_is_refused(archive: Path, tmp_path: Path) -> None:
    flip(archive / "latent/c/1/0/0")
    other = make_archive(tmp_path / "other" / "films.zarr", prefix="other")
    before = everything(archive)
    with pytest.raises(ArchiveError, match="of another run"):
        repair_archive(archive, copy=other)
    assert everything(archive) == before
    assert archive_status(archive)["pending"] == 0


def test_repair_waits_for_no_run_and_disturbs_none(archive: Path, tmp_path: Path) -> None:
    flip(archive / "latent/c/1/0/0")
    before = everything(archive)
    with FolderStore(archive).held(), pytest.raises(ArchiveError, match="another run is writing this archive"):
        repair_archive(archive)
    assert everything(archive) == before
    with pytest.raises(ArchiveError, match="there is no archive"):
        repair_archive(tmp_path / "nowhere.zarr")
