"""What `bench encode` compares with does the same work: a plain script, and the published loop in fixed batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks.inputs import line_up
from benchmarks.job.conversion_loop import convert
from benchmarks.job.encode_scene import differences
from benchmarks.job.encode_turns import DECODE, ENCODE, LOOP, MODEL, PLAIN, measure_quality, take_measurements
from benchmarks.job.plain_script import Films, PlainScript, paths_of
from benchmarks.refinement.published_loop import PublishedLoop
from engine import encode_dataset, open_archive
from engine.archive.reader import fingerprint_parts
from engine.code_step import round_to_step
from engine.encode.codec import load_codec


@pytest.fixture(scope="module")
def paths(small_films: Path) -> list[str]:
    return [str(path) for path in sorted(small_films.iterdir())[:6]]


def stored(archive: Path) -> Tensor:
    return torch.from_numpy(open_archive(archive)["latent"].to_numpy().astype(np.float32))


def test_its_films_are_those_of_the_recipe_to_a_gray_level(paths: list[str]) -> None:
    with Image.open(paths[0]) as image:
        samples = np.asarray(image, dtype=np.float64)
    expected = samples.reshape(32, 2, 32, 2).mean((1, 3)) / 127.5 - 1
    film = Films(paths, 32)[0]
    assert film.shape == (1, 32, 32)
    assert np.abs(film[0].numpy() - expected).max() <= 1 / 127.5 + 1e-6


def test_films_that_are_no_squares_are_padded_with_black(tmp_path: Path) -> None:
    Image.fromarray(np.full((32, 64), 255, dtype=np.uint8)).save(tmp_path / "wide.png")
    film = Films([str(tmp_path / "wide.png")], 32)[0][0]
    assert film[0].eq(-1).all()
    assert film[16].eq(1).all()


def test_the_script_saves_the_jobs_codes(paths: list[str], small_codec: Path, tmp_path: Path) -> None:
    manifest = line_up([Path(path) for path in paths], tmp_path / "films", count=6)
    summary = encode_dataset(str(manifest), str(tmp_path / "films.zarr"), str(small_codec), workers=0, quiet=True)
    script = PlainScript(paths_of(str(manifest)), load_codec(small_codec), batch_size=4, workers=0)
    codes = script.run(tmp_path / "codes.pt")
    assert torch.equal(torch.load(tmp_path / "codes.pt", weights_only=True), codes)
    step = float(fingerprint_parts(tmp_path / "films.zarr")["latent"].get("step", 0))
    assert differences(round_to_step(codes, step), stored(tmp_path / "films.zarr"), step)[1] < 0.02
    quality = measure_quality(source=str(manifest), codec=str(small_codec), codes=str(tmp_path / "codes.pt"))
    assert quality == pytest.approx({"PSNR dB": summary.psnr, "SSIM": summary.ssim}, rel=0.01)


def test_the_loop_keeps_the_last_codes_of_each_fixed_batch(paths: list[str], small_codec: Path, tmp_path: Path) -> None:
    codec = load_codec(small_codec)
    codes = convert(paths, codec, tmp_path / "codes.pt", batch_size=4, steps=5)
    assert torch.equal(torch.load(tmp_path / "codes.pt", weights_only=True), codes)
    films = torch.stack([Films(paths, 32)[at] for at in (4, 5)])  # the last batch is a partial one
    with torch.no_grad():
        start = codec.encode(films)
    loop = PublishedLoop(codec.generator, films, start, steps=5)
    for _ in range(5):
        loop.step()
    assert not torch.equal(codes[4:], start)
    torch.testing.assert_close(codes[4:], loop.codes.detach())


@pytest.mark.parametrize(("steps", "beside"), [(0, [DECODE, MODEL]), (2, [DECODE, LOOP])])
def test_turns_of_a_job_and_what_stands_beside_it(
    small_films: Path, small_codec: Path, tmp_path: Path, steps: int, beside: list[str]
) -> None:
    films = line_up(sorted(small_films.iterdir())[:8], tmp_path / "films", count=24)
    settings = {"turns": 3, "workers": 0, "shard_rows": 4, "batch_size": 4, "steps": steps}
    found = take_measurements(source=str(films), archive=str(tmp_path / "a.zarr"), codec=str(small_codec), beside=beside, **settings)
    assert {name: len(rates) for name, rates in found["rates"].items()} == dict.fromkeys([*beside, ENCODE], 2)
    assert set(found["busy"]) == {"read", "decode", "encode", "write"} | ({"refine"} if steps else set())
    assert all(0 < share <= 100 for share in found["busy"].values())
    assert (found["settings"]["films_a_turn"], found["settings"]["backend"]) == (8, "eager")
    assert len(stored(tmp_path / "a.zarr")) == 24
    assert (tmp_path / f"{LOOP}.pt").exists() == bool(steps)
    assert not (tmp_path / f"{PLAIN}.pt").exists()
