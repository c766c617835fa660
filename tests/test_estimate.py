"""What a run would cost: operations add up, one step stands for all of them, and bytes and rows are those of the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine import encode_dataset
from engine.calibrate import calibrate_codec
from engine.config import RefineConfig
from engine.encode.codec import load_codec
from engine.encode.cost import codec_cost
from engine.estimate import estimate
from engine.job import job_config
from engine.refine.build_objective import loss_gflop
from engine.workload import film_gigaflops, film_work
from tests.small_pggan import make_pggan_codec


@pytest.fixture
def codec(tmp_path: Path) -> Path:
    folder = make_pggan_codec(tmp_path / "codec")
    calibrate_codec(folder, films=16)
    return folder


def estimated(films: Path, archive: Path, codec: Path, **settings: Any) -> dict[str, Any]:
    return estimate(job_config(str(films), str(archive), str(codec), **{"film_size": 64, "batch_size": 4, **settings}))


def test_many_steps_are_told_from_one(small_films: Path, codec: Path, tmp_path: Path) -> None:
    found = estimated(small_films, tmp_path / "a.zarr", codec, refine_steps=60_000, workers=2, limit=10)  # would take hours
    parts = {part["part"]: part for part in found["parts"]}
    assert list(parts) == ["decode", "encode", "refine 32x32", "refine 64x64", "metrics"]
    assert (parts["refine 32x32"]["steps"], parts["refine 64x64"]["steps"]) == (48_000, 12_000)
    for name in ("refine 32x32", "refine 64x64"):
        part = parts[name]
        assert part["seconds"] == pytest.approx((part["steps"] + 1) * part["seconds_per_step"], rel=0.05)
        assert part["gflop_per_second"] == pytest.approx(part["gflop"] / part["seconds"])
        assert (part["backend"], part["precision"]) == ("eager", "fp32")
    assert found["gflop_per_film"] == pytest.approx(sum(part["gflop"] for part in parts.values()))
    assert found["seconds_per_film"] == pytest.approx(sum(part["seconds"] for part in parts.values()))
    assert found["seconds"] == pytest.approx(10 * found["seconds_per_film"] / 2)
    assert (found["workers"], found["backend"], found["seconds_to_start"] > 0) == (2, "eager", True)
    assert not (tmp_path / "a.zarr").exists()


def test_without_refinement_it_is_the_three_stages(small_films: Path, small_codec: Path, tmp_path: Path) -> None:
    found = estimated(small_films, tmp_path / "a.zarr", small_codec, limit=6)
    assert [part["part"] for part in found["parts"]] == ["decode", "encode", "metrics"]
    assert all(part["seconds"] > 0 for part in found["parts"])
    assert (found["rows"], found["pending"], found["bytes"]) == (6, 6, 6 * found["bytes_per_film"])
    assert found["parts"][0]["gflop_per_second"] is None


def test_what_is_done_already_costs_nothing(small_films: Path, small_codec: Path, tmp_path: Path) -> None:
    settings = {"film_size": 64, "limit": 6, "shard_rows": 2}
    encode_dataset(str(small_films), str(tmp_path / "a.zarr"), str(small_codec), **settings, workers=0, quiet=True)
    (tmp_path / "a.zarr" / "shards" / "commit" / "c" / "1").unlink()
    found = estimated(small_films, tmp_path / "a.zarr", small_codec, **settings)
    assert (found["rows"], found["pending"]) == (6, 2)
    assert found["seconds"] == pytest.approx(2 * found["seconds_per_film"])


def test_films_that_cannot_be_read_are_no_reason_to_stop(small_codec: Path, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "letter.png").write_text("no film")
    assert estimated(tmp_path / "films", tmp_path / "a.zarr", small_codec)["rows"] == 1


def test_operations_are_counted_by_level_and_term(codec: Path) -> None:
    loaded = load_codec(codec)
    cost = codec_cost(loaded)
    plain = film_work(loaded, RefineConfig(steps=100))
    assert [(level.resolution, level.steps) for level in plain.refine] == [(32, 80), (64, 20)]
    assert plain.refine[0].gflop == pytest.approx(81 * cost.gradient[32])
    assert plain.refine[1].gflop == pytest.approx(22 * cost.gradient[64])  # the start is weighed at full size
    assert film_gigaflops(loaded, RefineConfig(steps=100)) == plain.gflop == pytest.approx(sum(level.gflop for level in plain.refine))
    assert film_work(loaded, RefineConfig(steps=100), metrics=True).metrics == 2 * cost.generate
    whole = film_work(loaded, RefineConfig(steps=100, coarse=False))
    assert [(level.resolution, level.gflop) for level in whole.refine] == [(64, pytest.approx(101 * cost.gradient[64]))]
    assert film_work(loaded, RefineConfig()).gflop == cost.encode == 0


def test_terms_that_a_coarse_level_leaves_out_cost_nothing_there(codec: Path) -> None:
    loss, loaded = (("mse", 1.0), ("lpips", 0.8)), load_codec(codec)
    loaded.coarse = {16: loaded.coarse[16]}
    coarse, full = film_work(loaded, RefineConfig(steps=100, loss=loss, lpips_size=32)).refine
    assert full.loss == loss_gflop(loss, 64, lpips_size=32)
    assert coarse.loss == {name: value for name, value in loss_gflop(loss, 16).items() if name in coarse.loss}
    assert "lpips" in full.loss
    assert "lpips" not in coarse.loss
    assert full.gflop > film_work(loaded, RefineConfig(steps=100)).refine[1].gflop
