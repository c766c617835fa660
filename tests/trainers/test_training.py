"""`latentray train` as a user meets it: stop and resume, two processes, signals, and what can be asked wrongly."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from engine.cli import run_verb
from engine.encode.codec import load_codec
from engine.errors import ConfigError
from tests.trainers.small_films import write_films
from tests.trainers.steps import make_codec
from trainers import train
from trainers.catalogue import settings_of
from trainers.checkpoint import checkpoints, read_checkpoint
from trainers.film_request import FilmsRequest
from trainers.training import Request

SMALL = ("--threads", "1", "--checkpoint-images", "64")


def run(*argv):
    """The verb in this process, on one thread as `--threads 1` leaves it."""
    threads = torch.get_num_threads()
    try:
        return run_verb("train", train, list(argv))
    finally:
        torch.set_num_threads(threads)


def state(out):
    """Every tensor of the last checkpoint."""
    return load_file(checkpoints(out / "checkpoints")[-1])


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A folder of 24 films of 64x64."""
    return write_films(tmp_path_factory.mktemp("films"), 24)


@pytest.fixture(scope="module")
def gan(films, tmp_path_factory):
    """The directory of a short pggan run, in the middle of a fade."""
    out = tmp_path_factory.mktemp("runs") / "gan"
    assert run("pggan", "--preset", "cpu-small", "--data", films, "--out", str(out), "--images", "160", *SMALL) == 0
    return out


@pytest.mark.parametrize("images", [200, 224])
def test_pggan_stopped_and_resumed_mid_fade_equals_one_run(films, tmp_path, images):
    again = ("pggan", "--preset", "cpu-small", "--data", films, *SMALL)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(*again, "--out", str(whole), "--images", str(images)) == 0
    assert run(*again, "--out", str(parts), "--images", "130") == 0
    assert run(*again, "--out", str(parts), "--images", str(images), "--resume") == 0
    one, other = state(whole), state(parts)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert list(load_codec(whole).spec.files().items()) == list(load_codec(parts).spec.files().items())


LEVELS = [{"resolution": 32, "images": 32, "batch": 8}, {"resolution": 64, "images": 64, "batch": 8, "fade": 32}]


@pytest.mark.parametrize(
    "task",
    [
        ["encoder-bootstrap", "--codec", "{gan}"],
        ["encoder-finetune", "--codec", "{gan}", "--data", "{films}"],
        ["codec-finetune", "--codec", "{gan}", "--data", "{films}"],
        ["codec-finetune", "--data", "{films}", "--augment", "flip", "--set", f"levels={json.dumps(LEVELS)}"],
        ["codec-finetune", "--data", "{films}", "--set", f"levels={json.dumps(LEVELS)}", "--set", "adversarial=0.1"],
    ],
    ids=["bootstrap", "finetune", "codec-from-generator", "codec", "codec-with-critic"],
)
def test_every_task_stopped_and_resumed_equals_one_run(films, gan, tmp_path, task):
    """For codecs the stop is in the middle of a fade."""
    again = [*(word.replace("{gan}", str(gan)).replace("{films}", films) for word in task), "--preset", "cpu-small", *SMALL]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(*again, "--out", str(whole), "--images", "72") == 0
    assert run(*again, "--out", str(parts), "--images", "45") == 0
    assert run(*again, "--out", str(parts), "--images", "72", "--resume") == 0
    one, other = state(whole), state(parts)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert list(load_codec(whole).spec.files().items()) == list(load_codec(parts).spec.files().items())


def test_two_processes_are_as_one(films, tmp_path):
    """The same images in the same parts: the weights of two processes are those of one that takes its steps in two parts, bit for bit."""
    argv = ["pggan", "--preset", "cpu-small", "--data", films, "--images", "64", "--precision", "fp32", *SMALL]
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "29613",
        "-m",
        "engine.cli",
        "train",
    ]
    subprocess.run([*torchrun, *argv, "--out", str(tmp_path / "two")], check=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert run(*argv, "--out", str(tmp_path / "one"), "--set", "part_size=[8]") == 0
    assert run(*argv, "--out", str(tmp_path / "whole")) == 0
    two, one, whole = (state(tmp_path / name) for name in ("two", "one", "whole"))
    assert all(torch.equal(value, one[name]) for name, value in two.items())
    # the whole step at once sums in another order: within rounding after one step, which Adam then magnifies
    for name, value in whole.items():
        assert torch.linalg.vector_norm(two[name] - value) <= 0.05 * torch.linalg.vector_norm(value) + 1e-6, name


def test_sigterm_saves_and_ends_well(films, tmp_path):
    argv = ["train", "pggan", "--preset", "cpu-small", "--data", films, "--out", str(tmp_path), "--images", "100000", "--threads", "1"]
    log = tmp_path / "metrics.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.cli", *argv, "--log-images", "16", "--json"], stdout=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while not (log.exists() and log.read_text().count("\n") >= 2):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        told = json.loads(process.communicate(timeout=120)[0].splitlines()[-1])
    finally:
        process.kill()
    assert process.returncode == 0
    assert told["is_stopped"] is True
    assert checkpoints(tmp_path / "checkpoints")[-1].stem == f"images-{told['images']:012d}"
    assert load_codec(tmp_path).recipe.resolution == 32


def test_what_a_run_leaves(gan):
    codec = load_codec(gan)
    about = codec.spec.provenance
    assert (about["task"], about["preset"], about["images"], about["seed"]) == ("pggan", "cpu-small", 160, 0)
    assert about["data"]["train"] + about["data"]["validation"] == 24
    assert "/" not in json.dumps(about["data"])
    rows = [json.loads(line) for line in (gan / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["swd_mean"] > 0
    assert list((gan / "samples").glob("*.png"))
    assert list((gan / "events").iterdir())


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["styleganx"], 2, "there is no such one: styleganx"),
        (["pggan"], 2, "pggan needs --data"),
        (["encoder-bootstrap"], 2, "encoder-bootstrap needs --codec"),
        (["pggan", "--data", "{films}", "--codec", "x"], 2, "pggan takes no --codec: x"),
        (["pggan", "--data", "{films}", "--preset", "huge"], 2, "presets of pggan are "),
        (["pggan", "--data", "{films}", "--set", "depth=3"], 2, "there is no such one: depth"),
        (["pggan", "--data", "{films}", "--set", "ema=high"], 2, "ema must be of type float: high"),
        (["pggan", "--data", "{films}", "--set", "ema"], 2, "--set must read like NAME=VALUE: ema"),
        (["pggan", "--data", "{films}", "--resume"], 2, "nothing to resume"),
        (["pggan", "--data", "{films}", "--device", "tpu"], 2, "device must be auto, cpu or cuda: tpu"),
        (["pggan", "--data", "{films}", "--images", "-3"], 2, "images must be 0 or more: -3"),
        (["pggan", "--data", "{films}", "--augment", "much"], 2, "augment must be one of"),
        (["pggan", "--data", "nowhere.csv"], 2, "nowhere.csv"),
    ],
)
def test_bad_requests_get_one_line(films, tmp_path, capfd, argv, code, says):
    argv = [word.format(films=films) for word in argv]
    assert run(*argv, "--out", str(tmp_path / "out"), *(() if "--preset" in argv else ("--preset", "cpu-small"))) == code
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("latentray train: ")]
    assert says in line


def test_a_run_is_not_overwritten_or_changed_by_accident(gan, films, capfd):
    before = {file.name: file.read_bytes() for file in checkpoints(gan / "checkpoints")}
    same = ("pggan", "--preset", "cpu-small", "--data", films, "--out", str(gan), *SMALL)
    assert run(*same, "--images", "200") == 2
    assert run(*same, "--images", "200", "--resume", "--set", "ema=0.99") == 3
    assert run(*same, "--images", "200", "--resume", "--seed", "1") == 3
    assert run("codec-finetune", "--preset", "cpu-small", "--data", films, "--out", str(gan), "--resume") == 2
    lines = capfd.readouterr().err
    assert "--resume goes on with it, --overwrite begins anew" in lines
    assert "ema was 0.999, is 0.99" in lines
    assert "seed was 0, is 1" in lines
    assert {file.name: file.read_bytes() for file in checkpoints(gan / "checkpoints")} == before


def test_unreadable_films_are_named_and_skipped_within_a_limit(tmp_path, capfd, caplog):
    folder = tmp_path / "films"
    folder.mkdir()
    write_films(folder, 20)
    (folder / "broken.png").write_bytes(b"no film")
    same = ("pggan", "--preset", "cpu-small", "--data", str(folder), "--images", "16", "--threads", "1")
    assert run(*same, "--out", str(tmp_path / "strict"), "--max-failed-fraction", "0.01") == 2
    assert run(*same, "--out", str(tmp_path / "lenient")) == 0
    assert "too many films cannot be read" in capfd.readouterr().err
    assert "broken.png" in caplog.text
    assert load_codec(tmp_path / "lenient").spec.provenance["data"]["failed"] == 1


def test_dry_run_says_what_it_takes_and_writes_nothing(films, tmp_path, capfd):
    out = tmp_path / "out"
    assert run("pggan", "--preset", "cpu-small", "--data", films, "--out", str(out), "--dry-run", "--json", "--threads", "1") == 0
    told = json.loads(capfd.readouterr().out)
    assert not out.exists()
    assert told["parameters"]["generator"] > 100_000
    assert sum(stage["images"] for stage in told["stages"]) == told["images"] == 20_000
    assert [stage["resolution"] for stage in told["stages"]] == [32, 64]
    assert told["seconds"] == pytest.approx(sum(stage["seconds"] for stage in told["stages"]), abs=0.2)
    assert told["gflop_per_image"]["64"] > told["gflop_per_image"]["32"] > 0


def test_settings_are_replaced_together():
    """A tuple for every level and the number of levels belong to one another: neither can be changed alone."""
    cfg = settings_of("pggan", "cpu-small", {"channels": [8, 8], "fade_images": [0, 16], "stable_images": [16, 16], "images": 32})
    assert (cfg.channels, cfg.fade_images) == ((8, 8), (0, 16))
    with pytest.raises(ConfigError, match="fade_images"):
        settings_of("pggan", "cpu-small", {"channels": [8, 8], "stable_images": [16, 16]})


@pytest.mark.parametrize(
    ("source", "there"),
    [
        ("films", "{here}/films"),
        ("films/*.png", "{here}/films/*.png"),
        ("/data/films.csv", "/data/films.csv"),
        ("s3://bucket/films", "s3://bucket/films"),
        ("phantom:8?seed=1", "phantom:8?seed=1"),
    ],
)
def test_a_process_elsewhere_finds_the_films(tmp_path, monkeypatch, source, there):
    monkeypatch.chdir(tmp_path)
    request = Request(task="pggan", out="run", films=FilmsRequest(source=source)).located()
    assert request.films.source == there.format(here=tmp_path)
    assert request.out == str(tmp_path / "run")
    assert Request.from_json(json.loads(json.dumps(request.to_json()))) == request


def test_a_loss_that_looks_through_other_weights_is_another_setting(films, tmp_path, capfd):
    make_codec(tmp_path / "codec")
    argv = [
        "encoder-finetune",
        "--codec",
        str(tmp_path / "codec"),
        "--data",
        films,
        "--preset",
        "cpu-small",
        *SMALL,
        "--out",
        str(tmp_path / "run"),
    ]
    perceptual = ["--set", "loss=mse=1,lpips=0.1", "--set", "perceptual_weights=random"]
    assert run(*argv, *perceptual, "--images", "16") == 0
    settings = read_checkpoint(checkpoints(tmp_path / "run" / "checkpoints")[-1]).about["settings"]
    assert settings["perceptual_weights"] == {"lpips": {"net": "alex", "features": "random:0", "heads": "random:0"}}
    assert run(*argv, *perceptual[:2], "--set", f"perceptual_weights={tmp_path}", "--images", "24", "--resume") == 2
    assert "name their folder with --set perceptual_weights=DIR" in capfd.readouterr().err
