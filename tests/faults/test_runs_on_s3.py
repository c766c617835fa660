"""Whole runs, films and archive with layers in an S3 store, on a server that fails 5 % and stalls 1 % of requests: a disk's bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import encode_dataset
from engine.archive.folder_store import FolderStore
from engine.archive.object_store import ObjectStore
from engine.archive.reader import archive_status
from engine.archive.root import read_root
from engine.archive.store import Store
from engine.archive.store_client import opened
from engine.archive.verify import verify_archive
from engine.errors import FingerprintMismatch
from tests.s3_server import BUCKET, SECRET, Faults, environment, flaky, s3_server

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"film_size": 64, "shard_rows": 8, "fidelity": "lossless", "quiet": True}
FAULTS = {"fail": 0.05, "stall": 0.01, "repeat": 0.02, "lose": 0.02}
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as found:
        yield found


@pytest.fixture
def films_url(endpoint: str, small_films: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The forty films in the bucket."""
    for name, value in environment(endpoint).items():
        monkeypatch.setenv(name, value)
    store = ObjectStore(f"s3://{BUCKET}/forty")
    for path in small_films.iterdir():
        store.put_if_absent(path.name, path.read_bytes())
    return store.where


def rows(store: Store) -> dict[str, bytes]:
    """Every object that holds rows; records hold times, and the root what made them."""
    return {key: store.read(key) for key, _ in store.walk() if not key.startswith("shards/") and key != "zarr.json"}


@pytest.fixture
def undisturbed(films_url: str, small_codec: Path, tmp_path: Path) -> FolderStore:
    """The same films, from the bucket onto a disk."""
    encode_dataset(films_url, str(tmp_path / "films.zarr"), str(small_codec), workers=0, **SETTINGS)
    return FolderStore(tmp_path / "films.zarr")


def assert_equal(url: str, undisturbed: FolderStore) -> None:
    store = ObjectStore(url)
    assert rows(store) == rows(undisturbed)
    assert any(key.startswith("layer/c/") for key in rows(store))
    assert read_root(url).attributes["content"] == read_root(undisturbed.path).attributes["content"]
    assert verify_archive(url) == []
    everything = b"".join(store.read(key) for key, _ in store.walk())
    assert SECRET.encode() not in everything
    assert b"127.0.0.1" not in everything


def test_a_run_through_faults_equals_a_run_on_a_disk(
    endpoint: str, films_url: str, undisturbed: FolderStore, small_codec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, faults = f"s3://{BUCKET}/alone/films.zarr", Faults(**FAULTS, seed=1)
    with flaky(endpoint, faults) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
        monkeypatch.setenv("LATENTRAY_STORE_TIMEOUT", "2")
        opened.cache_clear()
        summary = encode_dataset(films_url, url, str(small_codec), workers=0, **SETTINGS)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    opened.cache_clear()  # a store is opened once a process and URL, and keeps its endpoint
    assert summary.ok == 40
    assert_equal(url, undisturbed)
    assert faults.counts["fail"] > 0
    assert faults.counts["stall"] + faults.counts["lose"] > 0


@pytest.mark.ray
def test_workers_that_write_through_faults_lose_nothing(
    endpoint: str, films_url: str, undisturbed: FolderStore, small_codec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, faults = f"s3://{BUCKET}/together/films.zarr", Faults(**FAULTS, seed=2)
    words = [
        films_url,
        "--archive",
        url,
        "--codec",
        str(small_codec),
        "--workers",
        "2",
        "--film-size",
        "64",
        "--shard-rows",
        "8",
        "--fidelity",
        "lossless",
        "--quiet",
    ]
    with flaky(endpoint, faults) as proxy:
        command, env = [sys.executable, "engine/encode_dataset.py", *words], {**os.environ, **environment(proxy, timeout=2.0)}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert faults.counts["fail"] > 0
    assert_equal(url, undisturbed)


def test_a_run_that_was_stopped_goes_on_in_the_store(films_url: str, small_codec: Path) -> None:
    url = f"s3://{BUCKET}/resumed/films.zarr"
    encode_dataset(films_url, url, str(small_codec), workers=0, **SETTINGS)
    store, before = ObjectStore(url), rows(ObjectStore(url))
    for key in ("shards/commit/c/1", "shards/commit/c/3", "latent/c/3/0/0"):
        store.remove(key)
    store.replace("zarr.json", _unfinished(store.read("zarr.json")))
    assert archive_status(url)["pending"] == 16
    summary = encode_dataset(films_url, url, str(small_codec), workers=0, resume=True, **SETTINGS)
    assert (summary.pending, summary.encoded_now) == (0, 16)
    assert rows(store) == before
    with pytest.raises(FingerprintMismatch, match="archive was made otherwise"):
        encode_dataset(films_url, url, str(small_codec), workers=0, dtype="f4", **SETTINGS)


def _unfinished(root: bytes) -> bytes:
    """The root document as it was before the archive was finalised."""
    from engine.archive.root import sealed

    document = json.loads(root)
    del document["attributes"]["content"]
    return sealed(document)
