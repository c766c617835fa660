"""Both ways into a cluster, with token authentication: `ray job submit --working-dir .` and the bare script of a checkout."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ray_head import ROOT, Head, ray_head

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head of two cores that only answers to its token."""
    with ray_head(tmp_path_factory.mktemp("head")) as running:
        yield running


def settings(films: Path, archive: Path, codec: Path) -> list[str]:
    words = [str(films), "--archive", str(archive), "--codec", str(codec), "--film-size", "64", "--shard-rows", "8", "--workers", "2"]
    return [*words, "--json", "--quiet"]


def check(done: subprocess.CompletedProcess[str], archive: Path) -> None:
    from engine.archive.reader import archive_status
    from engine.archive.verify import verify_archive

    assert done.returncode == 0, done.stdout + done.stderr
    assert any(json.loads(line)["ok"] == 40 for line in done.stdout.splitlines() if line.startswith('{"archive"')), done.stdout
    assert archive_status(archive)["ok"] == 40
    assert verify_archive(archive, level=3) == []


def test_submitted_with_its_working_directory(head: Head, small_films: Path, small_codec: Path, tmp_path: Path) -> None:
    archive = tmp_path / "films.zarr"
    package = tmp_path / "checkout"  # what a user has who cloned the project, without what the tests and builds left in it
    shutil.copytree(ROOT, package, ignore=shutil.ignore_patterns(".venv", ".git", "runs", ".*cache*", "__pycache__"))
    words = ["--working-dir", str(package), "--", "python", "engine/encode_dataset.py", *settings(small_films, archive, small_codec)]
    check(head.submit(*words), archive)


def test_submitted_as_a_bare_script_of_the_checkout(head: Head, small_films: Path, small_codec: Path, tmp_path: Path) -> None:
    archive = tmp_path / "films.zarr"
    check(head.submit("--", "engine/encode_dataset.py", *settings(small_films, archive, small_codec)), archive)


def test_without_the_token_no_one_gets_in(head: Head) -> None:
    env = head.env | {"RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    done = Head(head.dashboard, env).submit("--", "true")
    assert done.returncode != 0
    assert "succeeded" not in done.stdout.lower()
