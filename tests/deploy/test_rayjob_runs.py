"""The command of deploy/rayjob.yaml on a head of this machine: it encodes, and given again it goes on where a lost one stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.deploy.script import loaded
from tests.ray_head import ROOT, Head, ray_head

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head of two cores that only answers to its token."""
    with ray_head(tmp_path_factory.mktemp("head")) as running:
        yield running


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "films.zarr"


def entrypoint(films: Path, archive: Path, codec: Path) -> list[str]:
    """The words of the file, with places of this machine for those under /data and one worker; small films need small settings."""
    job = next(yaml.safe_load_all((ROOT / "deploy/rayjob.yaml").read_text()))
    places = {"/data/films": str(films), "/data/films.zarr": str(archive), "/data/pca": str(codec), "4": "1"}
    words = [places.get(word, word) for word in job["spec"]["entrypoint"].split()]
    assert not any(word.startswith("/data") for word in words)
    return [*words, "--film-size", "64", "--shard-rows", "20", "--json", "--quiet"]


def summary(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, object] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"archive"')))
    return found


def rows(archive: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in archive.glob("latent/c/*/*") if path.is_file()}


def test_the_command_runs_and_resumes(head: Head, archive: Path, small_films: Path, small_codec: Path) -> None:
    from engine.archive.verify import verify_archive

    words = entrypoint(small_films, archive, small_codec)
    first = summary(head.submit("--", *words))
    assert (first["ok"], first["encoded_now"]) == (40, 40)
    assert verify_archive(archive, level=3) == []
    before = rows(archive)
    (record,) = (archive / "shards/commit/c").glob("1")
    record.unlink()  # as if the cluster had been lost before the second shard was true
    second = summary(head.submit("--", *words))
    assert (second["ok"], second["encoded_now"]) == (40, 20)
    assert verify_archive(archive, level=3) == []
    assert rows(archive) == before


def test_the_node_is_seen_to_be_well(head: Head) -> None:
    health = loaded("deploy/health_check.py")
    is_well, said = health.agent_answer(f"http://127.0.0.1:{head.agent}/api/healthz")
    assert is_well, said


def test_a_job_waits_for_its_nodes(head: Head) -> None:
    command = [sys.executable, "deploy/wait_for_nodes.py", head.address, "2", "--seconds", "0"]
    done = subprocess.run(command, cwd=ROOT, env=head.env, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "1 of 2 nodes are there")
