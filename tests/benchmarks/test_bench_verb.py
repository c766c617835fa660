"""`latentray bench`: its requests, and every benchmark once for real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import run as bench
from benchmarks.refinement import slots
from benchmarks.registry import BENCHMARKS, ON_GPU, asked, load
from benchmarks.report import Row
from benchmarks.results_file import read_results
from benchmarks.rounds import joined
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
    assert (head["size"], list(head["seconds"]), head["settings"]["films"]) == ("quick", [name], "phantom:8?seed=3&size=128")
    assert rows == json.loads(lines[-1])["rows"]
    return code, lines, rows


def test_without_names_the_benchmarks_are_listed(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb("bench", bench, ["--json"]) == 0
    listed = json.loads(capsys.readouterr().out.splitlines()[-1])["benchmarks"]
    assert [each["name"] for each in listed] == list(BENCHMARKS)
    assert all(each["question"].endswith("?") or "? " in each["question"] for each in listed)
    by_name = {each["name"]: each for each in listed}
    assert by_name["slots"] == {"name": "slots", "question": slots.QUESTION, "bar": slots.BAR, "lacking": ""}
    assert "needs a trained classifier" in by_name["class-optimisation"]["lacking"]
    assert not (workplace / "runs").exists()
    assert run_verb("bench", bench, ["--nightly"]) == 0
    text = capsys.readouterr().out
    assert "gan-train: What does a classifier learn" in text
    assert "here: not in the nightly run, an hour: latentray bench gan-train" in text


def test_every_benchmark_says_what_the_registry_asks_of_it() -> None:
    for name in (*BENCHMARKS, *ON_GPU):
        question, timed, _ = asked(name)
        assert question, name
        assert timed, name
        assert callable(getattr(load(name), "main" if name in ON_GPU else "rows")), name
        seeds = getattr(load(name), "SEEDS", {})
        assert all(isinstance(seed, int) for seed in seeds.values()), name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["decode", "speed"], f"benchmarks are {', '.join(BENCHMARKS)}; there is no such one: speed"),
        (["decode", "--rounds", "0"], "--rounds must be 1 or more: 0"),
        (["--compare", "a.jsonl", "b.jsonl"], "no such file of results: a.jsonl"),
    ],
)
def test_a_bad_request_is_one_line(words: list[str], message: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb("bench", bench, words) == 2
    assert capsys.readouterr().err == f"latentray bench: {message}\n"


def test_what_cannot_run_here_stays_a_row_with_its_reason(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_verb(
        "bench", bench, ["class-optimisation", "gan-train", "--nightly", "--films", "phantom:2?size=64", "--out", "none", "--json"]
    )
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    rows = json.loads(lines[-1])["rows"]
    assert [row["unavailable"].partition(",")[0] for row in rows] == ["not in the nightly run"] * 2
    assert "median" not in rows[0]
    assert any(line.split()[:1] == ["all"] and line.endswith(" s") for line in lines)


def test_a_codec_that_is_none_is_refused_alone_and_a_row_among_others(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--quick", "--films", "phantom:2?size=64", "--codec", "no-such-codec", "--out", "refused", "--json"]
    assert run_verb("bench", bench, ["directions", *words]) == 1  # `encode` was run, and failed
    assert run_verb("bench", bench, ["systems", *words]) == 2
    assert "no-such-codec" in capsys.readouterr().err.splitlines()[-1]
    assert len(list(Path("refused").glob("*/*.jsonl"))) == 1
    assert run_verb("bench", bench, ["systems", "kernels", *words]) == 1
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["benchmark"] for row in rows if row["failed"]] == ["systems"]


def test_rounds_are_joined_row_by_row() -> None:
    rate = Row(benchmark="b", step="s", unit="films/s", values=(1.0, 2.0), ratio=2.0, figures={"command s": 3.0})
    films = Row(benchmark="b", step="f", unit="dB", values=(20.0, 30.0), value_of="film")
    again = replace(rate, values=(4.0, 5.0), ratio=4.0, figures={"command s": 5.0})
    broken = Row(benchmark="b", step="s", failed="codes differ")
    joined_rate, joined_films = joined([[rate, films], [again, films]])
    assert (joined_rate.values, joined_rate.blocks, joined_rate.ratio) == ((1.0, 2.0, 4.0, 5.0), (2, 2), 3.0)
    assert joined_rate.figures == {"command s": 4.0}
    assert joined_films == films
    assert joined([[rate], [broken]]) == [broken]
    assert joined([[rate]]) == [rate]


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU they are timed, for minutes")
def test_twice_runs_twice_and_compares(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = workplace / "twice"
    words = ["kernels", "--quick", "--twice", "--rounds", "2", "--films", "phantom:2?size=64", "--out", str(out)]
    assert run_verb("bench", bench, words) == 0
    first, second = (read_results(path) for path in sorted(out.glob("*/*.jsonl")))
    measured = [row for row in first.rows if row.values]
    assert {row.blocks for row in measured} == {(1, 1)}
    assert first.head.rounds == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{len(first.rows)} of {len(first.rows)} steps that are in both: same"
    assert run_verb("bench", bench, ["--compare", str(first.path), str(second.path)]) == 0
    assert capsys.readouterr().out.splitlines()[-5:] == lines[-5:]


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
def test_encode_runs(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, rows = run_quickly("encode", workplace, capsys)
    assert code == 0
    assert "checks: passed" in lines
    by_step = {str(row["step"]): row for row in rows}
    deep = ["decode only", "model only", "encode --workers 0", "plain script"]
    steps = [*(f"PCA: {step}" for step in deep), *(f"PCA, 20 steps: {step}" for step in (deep[0], deep[2], "published loop"))]
    assert list(by_step)[:-1] == [*steps, *(f"convnext-tiny-64: {step}" for step in deep)]
    assert rows[-1]["step"] == "AutoencoderKL 4x 256x256: medvae_inference"
    job, script = by_step["PCA: encode --workers 0"], by_step["PCA: plain script"]
    assert 0 < job["ratio"] < 1.5
    assert 0 < job["figures"]["decode busy %"] <= 100
    assert job["quality"]["PSNR dB"] == pytest.approx(script["quality"]["PSNR dB"], abs=0.1)
    assert job["settings"]["decoder"] in ("cpu", "dali")


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
