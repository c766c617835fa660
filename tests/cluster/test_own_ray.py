"""A Ray that latentray starts by itself: no dashboard, no client server, a token; and what of it answers to strangers all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]

# Joins as a verb does, and tells what the processes of this Ray listen on and what they answer to a stranger's request.
LOOK = """
import http.client, json, os, urllib.request, urllib.error
from pathlib import Path
from engine.cluster.worker import connect

connect(None)
import ray

def parent(pid):
    return int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])

def listening():
    sockets = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                address, _, port = words[1].partition(":")
                sockets[words[9]] = int(port, 16)
    ours, session = {}, ray._private.worker._global_node.get_session_dir_path()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split(chr(0))
            is_ours = any(session in word for word in words) or parent(process.name) == raylet(session)
            targets = [os.readlink(each) for each in (process / "fd").iterdir()] if is_ours else []
        except OSError:
            continue
        for target in targets:
            if target[8:-1] in sockets:
                ours[sockets[target[8:-1]]] = Path(words[0]).name or words[0]
    return ours

def raylet(session):
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split(chr(0))
        except OSError:
            continue
        if words[0].endswith("/raylet") and any(session in word for word in words):
            return int(process.name)

def answer(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            text = reply.read(200)
            return "metrics" if text.startswith(b"# HELP") else f"{reply.status} {text}"
    except urllib.error.HTTPError as error:
        return str(error.code)
    except (OSError, http.client.HTTPException):
        return ""  # it speaks something else, or not on this interface

@ray.remote
def worker():
    return os.getpid()

ray.get(worker.remote())
ports = listening()
paths = ("/api/job_agent/jobs/", "/api/jobs/", "/logs", "/api/version", "/nodes")
told = {"mode": os.environ.get("RAY_AUTH_MODE"), "dashboard": ray._private.worker._global_node.webui_url, "ports": ports}
told["answers"] = {str(port): {path: answer(port, path) for path in paths} for port in ports}
ray.shutdown()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"RAY_USAGE_STATS_ENABLED": "0", "HOME": str(tmp_path_factory.mktemp("home"))}  # where nobody has made a token yet
    done = subprocess.run([sys.executable, "-c", LOOK], cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    token = (Path(env["HOME"]) / ".ray" / "auth_token").stat()
    return found | {"token": (token.st_size, token.st_mode & 0o777)}


def test_it_asks_for_a_token(told: dict[str, object]) -> None:
    assert told["mode"] == "token"
    assert told["token"] == (64, 0o600)  # which nobody else may read


def test_it_has_neither_dashboard_nor_client_server(told: dict[str, object]) -> None:
    assert not told["dashboard"]
    ports = told["ports"]
    assert isinstance(ports, dict)
    assert len(ports) >= 4  # GCS, raylet, agents, workers: so that the next line says something
    assert not {"8265", "10001"} & set(ports)


def test_a_stranger_is_told_nothing_but_that_it_is_not_known(told: dict[str, object]) -> None:
    answers = told["answers"]
    assert isinstance(answers, dict)
    codes = {code for of_port in answers.values() for code in of_port.values()}
    assert "401" in codes  # the agent's job door is there, and shut
    assert codes <= {"", "401", "404", "metrics"}  # load and names of processes are not guarded: SECURITY.md says so
