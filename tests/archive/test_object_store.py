"""Archives in an S3 store, against a real server: the same objects as on a disk, also through a store that fails, stalls and repeats."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from engine.archive.cleaning import clean_uncommitted, collect_garbage, remove_archive
from engine.archive.code_reader import open_codes
from engine.archive.commits import committed_shards
from engine.archive.folder_store import FolderStore
from engine.archive.merge import merge_archives
from engine.archive.object_store import ObjectStore
from engine.archive.reader import archive_status, list_failures, open_archive, read_codec_files
from engine.archive.root import plan_beside, plan_name, read_root
from engine.archive.store import Store, open_store
from engine.archive.store_client import opened
from engine.archive.verify import verify_archive
from engine.archive.writer import ShardConflict, create_archive, finalise
from engine.errors import ArchiveError
from tests.archive.cases import CODEC_FILES, MIXED, make_archive, make_rows, make_shard, make_spec, publish
from tests.s3_server import BUCKET, SECRET, Faults, environment, flaky, s3_server

pytestmark = pytest.mark.xdist_group("s3")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as found:
        yield found


@pytest.fixture
def url(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place in the bucket that no other test uses, with the server in the environment."""
    for name, value in environment(endpoint).items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/films.zarr"


def copied(local: Path, url: str) -> ObjectStore:
    """A whole archive in the bucket, with its plan, as a copying tool would bring it there."""
    store = ObjectStore(url)
    for key, data in everything(FolderStore(local)).items():
        assert store.put_if_absent(key, data)
    store.put_beside(plan_name(store.name), plan_beside(local))
    return store


def everything(store: Store) -> dict[str, bytes]:
    return {key: store.read(key) for key, _ in store.walk()}


def stored(url: str) -> dict[str, bytes]:
    return everything(ObjectStore(url))


def fill(url: str, tmp_path: Path, *, shards: int = 3) -> None:
    spec = make_spec(tmp_path / "films.zarr")
    create_archive(url, spec, codec_files=CODEC_FILES)
    open_store(url).put_beside("films.plan.parquet", plan_beside(tmp_path / "films.zarr"))
    for index in range(shards):
        publish(url, make_shard(index), make_rows(make_shard(index), statuses=MIXED))


def test_the_same_objects_as_on_a_disk(url: str, archive: Path, tmp_path: Path) -> None:
    fill(url, tmp_path)
    finalise(url)
    local, remote = everything(FolderStore(archive)), stored(url)
    assert local.keys() == remote.keys()
    assert {key for key in local if local[key] != remote[key]} <= {f"shards/commit/c/{at}" for at in range(3)}  # these hold times
    assert read_root(url).attributes["content"] == read_root(archive).attributes["content"]
    for level in (1, 2, 3):
        assert verify_archive(url, level=level) == []
    assert archive_status(url)["ok"] == archive_status(archive)["ok"]
    assert list_failures(url) == list_failures(archive)
    assert read_codec_files(url) == CODEC_FILES


def test_xarray_opens_it_as_it_opens_a_folder(url: str, archive: Path) -> None:
    copied(archive, url)
    local = open_archive(archive)
    assert open_archive(url).identical(local)
    assert xr.open_zarr(url).latent.equals(local.latent)  # by the URL alone, without latentray


def test_codes_are_read_by_row_and_all_at_once(url: str, tmp_path: Path) -> None:
    shape, local = (20, 1024), tmp_path / "large.zarr"
    create_archive(local, make_spec(local, rows=40, shard_rows=32, latent_shape=shape))
    publish(local, shard := make_shard(1, rows=40, shard_rows=32), make_rows(shard, code=shape))  # the other one is pending
    copied(local, url)
    there, here = open_codes(url), open_codes(local)
    np.testing.assert_array_equal(there.read(), here.read())
    for row in (0, 31, 32, 39):
        np.testing.assert_array_equal(there[row], here[row])


@pytest.mark.parametrize("part", [slice(None), slice(3, 7), slice(0, 1), slice(-4, None), slice(-99, None), slice(8, 99)])
def test_parts_of_objects_are_those_of_a_file(url: str, tmp_path: Path, part: slice) -> None:
    stores: list[Store] = [ObjectStore(url), FolderStore(tmp_path)]
    for store in stores:
        assert store.put_if_absent("some/object", b"0123456789")
        assert bytes(store.read_into("some/object", lambda size: memoryview(bytearray(size)), part) or b"") == b"0123456789"[part]
        assert store.read_into("some/other", lambda size: memoryview(bytearray(size)), part) is None


def test_an_archive_that_is_there_is_never_written_over(url: str, tmp_path: Path) -> None:
    fill(url, tmp_path, shards=1)
    before = stored(url)
    with pytest.raises(ArchiveError, match="something of that name already"):
        create_archive(url, make_spec(tmp_path / "films.zarr"))
    assert stored(url) == before


def test_a_creation_that_was_killed_is_no_archive_and_is_finished_by_the_next(url: str, tmp_path: Path) -> None:
    fill(url, tmp_path, shards=0)
    store = ObjectStore(url)
    store.remove("zarr.json")
    assert not store.exists()
    create_archive(url, make_spec(tmp_path / "films.zarr"), codec_files=CODEC_FILES)
    assert store.exists()
    store.remove("zarr.json")
    store.replace("codec/codec.json/zarr.json", b"of another codec")
    with pytest.raises(ArchiveError, match="use --overwrite, or another name"):
        create_archive(url, make_spec(tmp_path / "films.zarr"), codec_files=CODEC_FILES)
    remove_archive(url)
    create_archive(url, make_spec(tmp_path / "films.zarr"), codec_files=CODEC_FILES)


def test_two_attempts_at_a_shard_never_mix(url: str, tmp_path: Path) -> None:
    fill(url, tmp_path, shards=0)
    first, second = make_rows(make_shard(0), seed=1), make_rows(make_shard(0), seed=2)
    ObjectStore(url).put_if_absent("status/c/0", b"left by a dead attempt")
    with pytest.raises(ShardConflict, match="clean the shard"):
        publish(url, make_shard(0), first)
    clean_uncommitted(url, [0])
    publish(url, make_shard(0, attempt=2), first)
    assert publish(url, make_shard(0, attempt=3), second).attempt == 2
    clean_uncommitted(url, range(3))
    assert committed_shards(url) == {0}


@pytest.mark.parametrize("count", [1, 20])
def test_cleaning_removes_what_no_record_names(url: str, tmp_path: Path, count: int) -> None:
    create_archive(url, make_spec(tmp_path / "films.zarr", rows=4 * count))
    publish(url, make_shard(0, rows=4 * count), make_rows(make_shard(0, rows=4 * count)))
    before, store = stored(url), ObjectStore(url)
    for at in range(1, count):
        store.put_if_absent(f"latent/c/{at}/0/0", b"orphan")
        store.put_if_absent(f"status/c/{at}", b"orphan")
    clean_uncommitted(url, range(count))
    assert stored(url) == before
    store.put_if_absent(f"status/c/{count + 7}", b"orphan")
    store.put_if_absent("notes.txt", b"mine")
    freed = collect_garbage(url)
    assert (freed.files, freed.foreign) == (1, ("notes.txt",))


def test_damage_is_named(url: str, archive: Path) -> None:
    store = copied(archive, url)
    store.remove("latent/c/0/0/0")
    store.replace("status/c/1", b"another")
    found = {problem.object: problem.what for problem in verify_archive(url)}
    assert found["latent/c/0/0/0"] == "is missing"
    assert "were committed" in found["status/c/1"]


def test_merging_takes_parts_from_anywhere(url: str, tmp_path: Path) -> None:
    parts = [make_archive(tmp_path / name / "a.zarr", prefix=name) for name in ("left", "right")]
    copied(parts[0], url)
    merged = merge_archives([url, parts[1]], url.replace("films.zarr", "both.zarr"))
    assert isinstance(merged.store, ObjectStore)
    assert verify_archive(merged.store.where) == []
    here = merge_archives(parts, tmp_path / "both.zarr")
    assert merged.attributes["content"] == here.attributes["content"]


def test_a_removed_archive_leaves_its_neighbours(url: str, archive: Path) -> None:
    copied(archive, url)
    copied(archive, url.replace("films.zarr", "films.zarr.old.zarr"))
    remove_archive(url)
    assert stored(url) == {}
    assert verify_archive(url.replace("films.zarr", "films.zarr.old.zarr")) == []
    ObjectStore(url).put_if_absent("cat.png", b"a photograph")
    with pytest.raises(ArchiveError, match="not a latentray archive"):
        remove_archive(url)


def test_a_store_that_fails_stalls_repeats_and_loses_gives_the_same_archive(
    endpoint: str, url: str, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults(fail=0.05, stall=0.01, repeat=0.05, lose=0.05, seed=7)
    monkeypatch.setattr("engine.archive.store_client.FIRST_WAIT", 0.01)
    with flaky(endpoint, faults) as proxy:
        for name, value in environment(proxy, timeout=0.5).items():
            monkeypatch.setenv(name, value)
        where = url.replace("films.zarr", "through-faults.zarr")  # stores are opened once a process and URL
        fill(where, tmp_path)
        finalise(where)
        assert verify_archive(where)[0].is_note
        np.testing.assert_array_equal(open_archive(archive).latent.values, open_archive(where).latent.values)
    assert min(faults.counts[name] for name in ("fail", "repeat", "lose")) > 0
    assert read_root(where).attributes["content"] == read_root(archive).attributes["content"]


@pytest.mark.parametrize(
    ("place", "what"),
    [
        (f"s3://{BUCKET}/nothing/here.zarr", "there is no archive: s3://"),
        ("s3://no-such-bucket/films.zarr", "there is no such bucket"),
        ("gopher://films/films.zarr", "archives cannot lie behind this kind of URL"),
    ],
)
def test_a_bad_place_is_one_clear_line(url: str, place: str, what: str) -> None:
    with pytest.raises(ArchiveError, match=what) as caught:
        read_root(place)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_store_that_goes_away_says_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("engine.archive.store_client.FIRST_WAIT", 0.001)
    monkeypatch.setattr("engine.archive.store_client.LONGEST_WAIT", 0.001)
    with pytest.raises(ArchiveError, match="cannot read the archive: the store cannot be reached: s3://") as caught:
        read_root(url.replace("films.zarr", "gone.zarr"))
    assert SECRET not in str(caught.value)


def test_stores_travel_to_other_processes_without_secrets(url: str) -> None:
    data = pickle.dumps(ObjectStore(url))
    assert SECRET.encode() not in data
    assert pickle.loads(data).where == url
    assert isinstance(open_store(Path("films.zarr")), FolderStore)


@pytest.mark.parametrize("seconds", ["0", "soon", "-3"])
def test_a_bad_timeout_is_refused(monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    monkeypatch.setenv("LATENTRAY_STORE_TIMEOUT", seconds)
    with pytest.raises(ArchiveError, match=f"must be a number of seconds: {seconds}"):
        ObjectStore(f"s3://{BUCKET}/{uuid.uuid4().hex}/films.zarr")


def test_credentials_of_a_profile_let_one_in(url: str, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied(archive, url)
    profile = tmp_path / "credentials"
    profile.write_text(f"[films]\naws_access_key_id = tester\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    monkeypatch.setenv("AWS_PROFILE", "films")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    opened.cache_clear()
    try:
        assert verify_archive(url, level=1) == []
    finally:
        opened.cache_clear()
