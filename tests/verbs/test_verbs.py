"""The command line as a user meets it: data on stdout, one line for a bad request, the exit codes that are promised."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from engine.cli import main


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    try:
        code = main([str(word) for word in words])
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def last_json(out: str) -> dict:
    return json.loads(out.strip().splitlines()[-1])


@pytest.fixture
def encoded(small_films: Path, small_codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    archive = tmp_path / "films.zarr"
    words = ["encode", small_films, "--archive", archive, "--codec", small_codec, "--workers", "0", "--film-size", "64", "--quiet"]
    assert run(capsys, *words)[0] == 0
    return archive


def test_encode_prints_what_came_of_it(small_films: Path, small_codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "encode",
        small_films,
        "--archive",
        tmp_path / "a.zarr",
        "--codec",
        small_codec,
        "--workers",
        "0",
        "--film-size",
        "64",
        "--json",
    ]
    code, out, err = run(capsys, *words)
    summary = last_json(out)
    assert code == 0
    assert (summary["rows"], summary["ok"], summary["failed"], summary["encoded_now"]) == (40, 40, 0, 40)
    assert "40 of 40 films" in err
    code, out, _ = run(capsys, *words)
    assert (code, last_json(out)["encoded_now"]) == (0, 0)


def test_status_has_the_promised_keys(encoded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "status", encoded, "--json")
    status = last_json(out)
    keys = ["rows", "ok", "failed", "pending", "shards", "shards_done", "codec", "latent_shape", "bytes", "failed_by_reason"]
    assert code == 0
    assert list(status) == [*keys, "seconds_per_film", "workers", "images_per_second", "seconds_left"]
    assert (status["rows"], status["pending"], status["latent_shape"]) == (40, 0, [1, 8])
    assert list(status["seconds_per_film"]) == ["decode", "encode", "metrics", "archive"]
    assert (status["workers"], status["seconds_left"]) == (1, 0.0)
    assert status["images_per_second"] == pytest.approx(1 / sum(status["seconds_per_film"].values()))
    assert "seconds a film of a worker: decode" in run(capsys, "status", encoded)[1]


def test_verify_tells_whole_from_damaged(encoded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for level in "1234":
        assert run(capsys, "verify", encoded, "--level", level)[0] == 0
    victim = next(path for path in (encoded / "latent" / "c").rglob("*") if path.is_file())
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 4
    victim.write_bytes(data)
    code, out, _ = run(capsys, "verify", encoded, "--level", "2")
    assert code == 1
    assert str(victim.relative_to(encoded)) in out


def test_failures_metrics_reconstruct(encoded: Path, small_films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "failures", encoded)[0] == 0
    code, out, _ = run(capsys, "metrics", encoded, "--source", small_films, "--csv", tmp_path / "m.csv", "--json")
    methods = last_json(out)["methods"]
    assert code == 0
    assert methods["as stored"]["films"] == 40
    assert methods["as stored"]["psnr"] > methods["one gray"]["psnr"]
    assert len((tmp_path / "m.csv").read_text().splitlines()) == 1 + 4 * 40
    code, out, _ = run(capsys, "reconstruct", encoded, "--out", tmp_path / "out", "--rows", "0:5", "--json")
    assert (code, last_json(out)["films"], len(list((tmp_path / "out").iterdir()))) == (0, 5, 5)


def test_a_damaged_object_is_one_line_for_every_reader(
    encoded: Path, small_films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("latent", "status"):
        for victim in [path for path in (encoded / name / "c").rglob("*") if path.is_file()]:
            data = bytearray(victim.read_bytes())
            data[len(data) // 2] ^= 4
            victim.write_bytes(data)
        readers = (["reconstruct", "--out", tmp_path / "o"], ["metrics", "--source", small_films])
        for verb, *words in readers if name == "latent" else (*readers, ["report", "--source", small_films, "--out", tmp_path / "p.html"]):
            code, _, err = run(capsys, verb, encoded, *words)
            assert (code, len(err.strip().splitlines())) == (2, 1), err
            assert "latentray verify" in err


def test_hashed_ids_are_found_by_their_key(
    small_films: Path, small_codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_bytes(b"a key of sixteen bytes")
    words = ["--codec", small_codec, "--workers", "0", "--film-size", "64", "--quiet", "--limit", "4", "--hash-ids", tmp_path / "key"]
    assert run(capsys, "encode", small_films, "--archive", tmp_path / "h.zarr", *words)[0] == 0
    assert run(capsys, "metrics", tmp_path / "h.zarr", "--source", small_films)[0] == 2
    code, out, _ = run(capsys, "metrics", tmp_path / "h.zarr", "--source", small_films, "--hash-ids", tmp_path / "key", "--json")
    assert (code, last_json(out)["methods"]["as stored"]["films"]) == (0, 4)


def test_too_many_failures_is_exit_one(small_films: Path, small_codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    films = tmp_path / "films"
    films.mkdir()
    for index in range(8):
        shutil.copy(small_films / f"film-{index:03d}.png", films)
    (films / "letter.png").write_text("no film")
    words = ["encode", films, "--codec", small_codec, "--workers", "0", "--film-size", "64", "--quiet", "--archive"]
    code, out, err = run(capsys, *words, tmp_path / "a.zarr")
    assert code == 1
    assert "1 decode: " in out
    assert "too many films failed: 1 of 9" in err
    assert run(capsys, *words, tmp_path / "a.zarr", "--max-failed-fraction", "0.2")[0] == 0


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (["--refine-steps", "-1"], 2, "refine.steps must be 0 or more: -1"),
        (["--refine-steps", "many"], 2, "invalid int value"),
        (["--loss", "lpips=1", "--refine-steps", "1", "--weights", "no-such-folder"], 2, "no such folder of weights: "),
        (["--loss", "lpips=1", "--refine-steps", "1", "--weights", "tests"], 2, "alexnet-owt-7be5be79"),
        (["--loss", "mse=1,moco=0.1", "--refine-steps", "1"], 2, "loss term moco needs films of 224 pixels or more a side, not: 32"),
        (["--loss", "mse=1,beauty=1", "--refine-steps", "1"], 2, "unknown term"),
        (["--refine-optimiser", "magic"], 2, "invalid choice"),
        (["--refine-steps", "1", "--lpips-size", "-4"], 2, "refine.lpips_size must be 0 or more: -4"),
        (["--backend", "tensorrt"], 2, "tensorrt"),
        (["--fidelity", "exact"], 2, "fidelity must be none, bytes=N, psnr=DB, max-error=K or lossless: exact"),
        (["--resume", "--overwrite"], 2, "exclude each other"),
        (["--shard-rows", "0"], 2, "shard-rows must be 1 or more: 0"),
        (["--hash-ids", "no-such-key"], 2, "cannot be read"),
        (["--dtype", "f4"], 3, "dtype"),
        (["--limit", "3"], 3, "plan"),
        (["--stepps", "1"], 2, "unrecognized arguments"),
    ],
)
def test_a_bad_request_is_one_clear_line(
    encoded: Path, small_films: Path, small_codec: Path, capsys: pytest.CaptureFixture[str], change: list[str], code: int, said: str
) -> None:
    words = ["encode", small_films, "--archive", encoded, "--codec", small_codec, "--workers", "0", "--film-size", "64", "--quiet", *change]
    got, out, err = run(capsys, *words)
    assert (got, out) == (code, "")
    assert len(err.strip().splitlines()) == 1, err
    assert said in err


@pytest.mark.parametrize(
    "words", [["status"], ["verify"], ["failures"], ["reconstruct", "--out", "x"], ["metrics", "--source", "phantom:1"], ["gc"]]
)
def test_no_archive_is_one_clear_line(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, words[0], tmp_path / "none.zarr", *words[1:])
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert "none.zarr" in err


@pytest.mark.parametrize(
    ("backend", "said"),
    [("cudagraphs", "needs a CUDA device"), ("tensorrt", "install latentray[tensorrt]")],
    ids=["cudagraphs", "tensorrt"],
)
def test_a_backend_that_cannot_run_here_is_refused_before_anything_is_written(
    small_films: Path, small_codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], backend: str, said: str
) -> None:
    if backend == "cudagraphs" and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    if backend == "tensorrt" and find_spec("torch_tensorrt"):
        pytest.skip("this machine has torch-tensorrt")
    archive = tmp_path / "a.zarr"
    code, out, err = run(
        capsys, "encode", small_films, "--archive", archive, "--codec", small_codec, "--workers", "0", "--backend", backend
    )
    assert (code, out, len(err.strip().splitlines())) == (2, "", 1), err
    assert said in err
    assert not archive.exists()


def test_every_verb_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    verbs = ["encode", "status", "verify", "failures", "reconstruct", "metrics", "merge", "gc", "phantom", "train", "bench", "report"]
    for verb in (*verbs, "calibrate"):
        assert f"\n  {verb}" in out
        assert run(capsys, verb, "--help")[0] == 0
    assert run(capsys)[0] == 2
    assert run(capsys, "destroy")[0] == 2
