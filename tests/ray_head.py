"""A Ray head in a process of its own, as a user starts one in a checkout: on loopback, and only for who has its token."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


@dataclass(frozen=True)
class Head:
    """What it takes to reach it; `env` carries its token. `agent` is the port that tells how its node is."""

    dashboard: str
    env: dict[str, str]
    address: str = ""
    agent: int = 0

    def submit(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`ray job submit` with these words, to its end."""
        command = [*RAY, "job", "submit", "--address", self.dashboard, *words]
        deadline = time.monotonic() + 120
        while True:
            done = subprocess.run(command, check=False, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=240)
            if "No available agent" not in done.stderr or time.monotonic() > deadline:  # the dashboard answers before its agent does
                return done
            time.sleep(2)


@contextmanager
def ray_head(folder: Path, *, cpus: int = 2) -> Iterator[Head]:
    """A head of so many cores that only answers to its token; its log and token lie in `folder`."""
    port, dashboard, client, agent = free_ports(4)
    token, log = folder / "token", folder / "log"
    token.write_text(secrets.token_hex(32))
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    command = [*RAY, "start", "--head", "--block", "--num-cpus", str(cpus), "--port", str(port)]
    command += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard), "--ray-client-server-port", str(client)]
    command += ["--dashboard-agent-listen-port", str(agent)]  # the one it takes by itself may belong to a Ray that was just killed
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=output, start_new_session=True)
    try:
        _wait_for(dashboard, process, log)
        yield Head(f"http://127.0.0.1:{dashboard}", env, f"127.0.0.1:{port}", agent)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(3)  # it would wait for its workers ten times as long
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    pytest.fail(f"the head did not come up: {log.read_text()}")
