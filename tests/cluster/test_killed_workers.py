"""Real jobs on a local Ray whose processes are killed: the archive ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from engine.archive.verify import verify_archive

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]


def command(films: Path, archive: Path, codec: Path, *, workers: int) -> list[str]:
    words = [sys.executable, "engine/encode_dataset.py", str(films), "--archive", str(archive), "--codec", str(codec), "--quiet"]
    return [*words, "--workers", str(workers), "--threads", "1", "--film-size", "64", "--shard-rows", "2", "--refine-steps", "30"]


def rows_of(archive: Path) -> dict[str, bytes]:
    """Every object that holds rows; commit records hold times and are left out."""
    keys = [path for path in archive.rglob("*") if path.is_file() and "c" in path.parts and "shards" not in path.parts]
    return {str(path.relative_to(archive)): path.read_bytes() for path in keys}


@pytest.fixture(scope="module")
def undisturbed(small_films: Path, small_codec: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    archive = tmp_path_factory.mktemp("undisturbed") / "films.zarr"
    subprocess.run(command(small_films, archive, small_codec, workers=0), cwd=ROOT, check=True, capture_output=True)
    return rows_of(archive)


def start(words: list[str]) -> subprocess.Popen[bytes]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not is_so() and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
        time.sleep(0.02)
    assert is_so()


def commits(archive: Path) -> int:
    return sum(path.is_file() for path in (archive / "shards" / "commit" / "c").glob("*"))


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Processes of the job's session that Ray has named after the actor."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name = (entry / "cmdline").read_bytes()
                session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
            except OSError:
                continue
            if name.startswith(b"ray::ShardWorker") and session == process.pid:
                found.append(int(entry.name))
    return found


def test_a_killed_worker_leaves_no_trace(small_films: Path, small_codec: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    archive = tmp_path / "films.zarr"
    process = start(command(small_films, archive, small_codec, workers=2))
    wait_until(lambda: commits(archive) >= 2, process)
    victims = workers_of(process)
    assert len(victims) == 2
    os.kill(victims[0], signal.SIGKILL)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err.decode()
    assert rows_of(archive) == undisturbed
    assert verify_archive(archive, level=3) == []


def test_a_killed_driver_is_continued_by_the_same_command(
    small_films: Path, small_codec: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    archive = tmp_path / "films.zarr"
    process = start(command(small_films, archive, small_codec, workers=2))
    wait_until(lambda: commits(archive) >= 3, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its Ray, so that it is gone before the next one starts
    again = start(command(small_films, archive, small_codec, workers=2))
    _, err = again.communicate(timeout=240)
    assert again.returncode == 0, err.decode()
    assert rows_of(archive) == undisturbed
    assert verify_archive(archive, level=3) == []
