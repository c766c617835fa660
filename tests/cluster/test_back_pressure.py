"""A store that is slow holds the whole run up: films are opened no further ahead than batches are kept."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.decode.stretch import depth_for
from engine.encode_dataset import encode_dataset
from tests.faults.nodes import Openings
from tests.s3_server import BUCKET, Faults, environment, flaky, s3_server

pytestmark = [pytest.mark.xdist_group("s3"), pytest.mark.slow]

SLOW = 0.1  # seconds of a put
SHARD_ROWS, BATCH, THREADS = 10, 2, 1
SETTINGS = {"workers": 0, "quiet": True, "shard_rows": SHARD_ROWS, "batch_size": BATCH, "threads": THREADS, "metrics": "mse"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as found:
        yield found


def new_archive() -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/films.zarr"


def test_films_are_opened_no_further_ahead_than_batches_are_kept(
    endpoint: str, small_films: Path, small_codec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openings, opened, ahead = Openings(small_films), 0, []

    def heard(method: str, path: str) -> None:
        nonlocal opened
        if method == "PUT" and (found := re.search(r"/shards/commit/c/(\d+)", path)):
            opened += openings.count()
            ahead.append(opened - SHARD_ROWS * (int(found[1]) + 1))  # shards come in order: one process does them

    with flaky(endpoint, Faults(put_seconds=SLOW, heard=heard)) as slow:
        for name, value in environment(slow).items():
            monkeypatch.setenv(name, value)
        summary = encode_dataset(str(small_films), new_archive(), str(small_codec), film_size=64, **SETTINGS)
    openings.close()
    assert (summary.ok, len(ahead)) == (40, 4)
    most = (1 + depth_for(THREADS, BATCH)) * BATCH  # the batch that waits, and those begun behind it
    assert max(ahead) <= most < SHARD_ROWS
    assert ahead[0] == most  # it had time enough for more
