"""`latentray bench`: its requests, and every benchmark once for real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import run as bench
from engine.cli import run_verb


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to run in, so that films and codec are made once for all of these tests."""
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def run_quickly(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str], list[dict[str, object]]]:
    """Exit code, printed lines and the rows of the results file."""
    code = run_verb("bench", bench, [name, "--quick", "--films", "phantom:8?seed=3&size=128", "--out", str(folder / "results"), "--json"])
    lines = capsys.readouterr().out.splitlines()
    head, *rows = [json.loads(line) for line in Path(json.loads(lines[-1])["results"]).read_text().splitlines()]
    assert head["quick"] is True
    assert rows == json.loads(lines[-1])["rows"]
    return code, lines, rows


def test_an_unknown_benchmark_is_refused_with_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb("bench", bench, ["decode", "speed"]) == 2
    known = "decode, encode, memory, driver, scale, refine, slots, backends, kernels, train, quality, directions, class-optimisation"
    assert capsys.readouterr().err == f"latentray bench: benchmarks are {known}, systems, gan-train; there is no such one: speed\n"


def test_two_results_are_compared_without_measuring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"benchmark": "encode", "step": "s", "median": 2.0, "unit": "films/s", "ratio": 0.5}
    for name, median in (("a", 2.0), ("b", 3.0)):
        (tmp_path / name).write_text("{}\n" + json.dumps(row | {"median": median}) + "\n")
    assert run_verb("bench", bench, ["--compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["encode:", "s", "2", "3", "films/s", "1.50x", "0.5", "0.5"]


@pytest.mark.slow
def test_decode_runs(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, lines, rows = run_quickly("decode", workplace, capsys)
    assert [row["step"] for row in rows] == ["cpu 256x256", "dali 256x256", "cpu 1024x1024", "dali 1024x1024"]
    assert not rows[0]["failed"]
    assert rows[0]["quality"]["max difference"] < 1e-5
    assert rows[0]["ratio"] == 1.0
    assert any(line.startswith("cpu 256x256") and "films/s" in line for line in lines)
    for row in rows:
        assert not row["failed"] or "needs NVIDIA DALI" in row["failed"]


@pytest.mark.slow
@pytest.mark.ray
def test_encode_runs(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, rows = run_quickly("encode", workplace, capsys)
    assert code == 0
    assert "checks: passed" in lines
    assert [row["step"] for row in rows] == [
        *("decode only, beside --workers 0", "encode --workers 0"),
        *("decode only, beside --workers 2", "encode --workers 2"),
    ]
    for ceiling, job in (rows[:2], rows[2:]):
        assert len(ceiling["values"]) == len(job["values"]) == 2
        assert 0 < job["ratio"] < 1.5
        assert 10 < job["quality"]["PSNR dB"] < 60
        assert job["settings"]["decoder"] == ceiling["settings"]["decoder"]


@pytest.mark.slow
def test_memory_runs(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, rows = run_quickly("memory", workplace, capsys)
    assert code == 0
    assert [row["quality"]["films ok"] for row in rows] == [8, 24]
    assert all(100 < row["median"] < 10_000 for row in rows)
    assert 0.5 < rows[1]["ratio"] < 2


@pytest.mark.ray
def test_driver_runs(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, rows = run_quickly("driver", workplace, capsys)
    assert code == 0
    assert [row["step"] for row in rows] == ["in process", "2 Ray workers"]
    assert all(row["quality"]["receipts"] == 50 and row["median"] > 0 for row in rows)


@pytest.mark.slow
def test_refine_runs(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, rows = run_quickly("refine", workplace, capsys)
    assert code == 0
    by_step = {str(row["step"]): row for row in rows}
    assert {"32x32 published loop", "32x32 + Inductor, one graph", "published loop, its last loss", "+ bf16, Inductor"} <= set(by_step)
    for row in rows:
        assert row["quality"]["to published"] < 1.1
    assert by_step["32x32 + frozen form"]["quality"]["gradient off"] < 1e-4
    assert by_step["+ L-BFGS"]["quality"]["films there"] == 1


def test_slots_run(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, (waiting, shrinking, slots) = run_quickly("slots", workplace, capsys)
    assert code == 0
    assert slots["quality"]["codes differ"] < 1e-5
    assert slots["figures"]["steps"] == waiting["figures"]["steps"]
    assert slots["figures"]["batches"] < waiting["figures"]["batches"] == shrinking["figures"]["batches"]


@pytest.mark.slow
def test_backends_run_and_those_of_a_gpu_are_no_failure(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, rows = run_quickly("backends", workplace, capsys)
    assert code == 0
    for stage in ("encoder", "generator", "gradient"):
        found = {row["step"]: row for row in rows if str(row["step"]).startswith(stage)}
        assert found[f"{stage}: inductor bf16"]["quality"]["gate"] <= 0.2
        assert found[f"{stage}: tensorrt bf16"]["unavailable"] or found[f"{stage}: tensorrt bf16"]["values"]


def test_kernels_without_a_device_state_bytes_and_no_speed(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, rows = run_quickly("kernels", workplace, capsys)
    assert code == 0
    if torch.cuda.is_available():
        return
    assert "needs a CUDA device" in str(rows[-1]["unavailable"])
    assert {row["unit"] for row in rows[:-1]} == {"MB a call"}
    assert all(row["ratio"] > 1 for row in rows[:-1])


@pytest.mark.slow
def test_quality_puts_the_codec_beside_its_floors(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, rows = run_quickly("quality", workplace, capsys)
    assert code == 0
    refined, worse, alone, *floors = rows
    assert [row["step"].partition(", ")[2] for row in (refined, alone)] == ["4 steps", "encoder alone"]
    assert [row["step"] for row in floors] == ["thumbnail of as many bytes", "thumbnail of 1024 bytes", "one gray"]
    assert refined["quality"]["mean PSNR dB"] >= alone["quality"]["mean PSNR dB"] > floors[-1]["quality"]["mean PSNR dB"]
    assert worse["values"] == [0.0]
    assert worse["verdict"] == "at most 0: met"
    assert 0 < refined["ratio"] <= 1
    assert len(refined["values"]) == len(alone["values"])


@pytest.mark.slow
def test_systems_stand_side_by_side_with_their_pictures(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, rows = run_quickly("systems", workplace, capsys)
    assert code == 0
    demo, pca, *floors = rows
    assert [row["step"] for row in (demo, pca)] == ["films: demo", "films: pca-quick"]
    assert [row["step"] for row in floors] == ["films: thumbnail of 32 bytes", "films: thumbnail of 512 bytes"]
    assert (demo["figures"]["training images"], pca["figures"]["training images"]) == (37_600, 24)
    assert demo["figures"]["code bytes"] == 512
    for row in rows:
        assert 10 < row["quality"]["mean PSNR dB"] < 60
        assert "Fréchet" not in row["quality"]  # there is no classifier
    assert {path.name for path in (workplace / "runs" / "systems" / "figures").iterdir()} == {"demo.png", "pca-quick.png"}
