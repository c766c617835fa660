"""Both ways into a cluster, with token authentication: `ray job submit --working-dir .` and the bare script of a checkout."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Head:
    """A Ray head in a process of its own, started in a checkout; `env` carries its token."""

    dashboard: str
    env: dict[str, str]

    def submit(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", self.dashboard, *words]
        deadline = time.monotonic() + 120
        while True:
            done = subprocess.run(command, check=False, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=240)
            if "No available agent" not in done.stderr or time.monotonic() > deadline:  # the dashboard answers before its agent does
                return done
            time.sleep(2)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head of two cores that only answers to its token."""
    port, dashboard, client, agent = free_ports(4)
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(secrets.token_hex(32))
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus", "2", "--port", str(port)]
    command += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard), "--ray-client-server-port", str(client)]
    command += ["--dashboard-agent-listen-port", str(agent)]  # the one it takes by itself may belong to a Ray that was just killed
    log = tmp_path_factory.mktemp("head") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_for(dashboard, process, log)
        yield Head(f"http://127.0.0.1:{dashboard}", env)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    pytest.fail(f"the head did not come up: {log.read_text()}")


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
