"""Training processes on Ray: they end with the weights of one process, and what goes wrong reaches the caller as it was raised."""

import pytest
import torch
from safetensors.torch import load_file

from engine.cli import run_verb
from tests.trainers.small_films import write_films
from trainers import train
from trainers.checkpoint import checkpoints

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A folder of 12 films of 64x64."""
    return write_films(tmp_path_factory.mktemp("films"), 12)


def run(*argv):
    threads = torch.get_num_threads()
    try:
        return run_verb("train", train, ["pggan", "--preset", "cpu-small", "--threads", "1", "--precision", "fp32", *argv])
    finally:
        torch.set_num_threads(threads)


def test_two_processes_on_ray_are_as_one(local_ray, films, tmp_path, capfd):
    same = ("--data", films, "--images", "32")
    assert run(*same, "--out", str(tmp_path / "ray"), "--workers", "2") == 0
    assert "32 images" in capfd.readouterr().out
    assert run(*same, "--out", str(tmp_path / "one"), "--set", "part_size=[8]") == 0
    two, one = (load_file(checkpoints(tmp_path / name / "checkpoints")[-1]) for name in ("ray", "one"))
    assert all(torch.equal(value, one[name]) for name, value in two.items())
    assert run(*same, "--out", str(tmp_path / "ray"), "--workers", "2", "--resume", "--seed", "9") == 3
    assert "seed was 0, is 9" in capfd.readouterr().err


def test_more_processes_than_cores_are_refused(local_ray, films, tmp_path, capfd):
    assert run("--data", films, "--images", "32", "--out", str(tmp_path / "many"), "--workers", "64") == 2
    assert "fewer cores" in capfd.readouterr().err
