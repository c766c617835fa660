"""How coarsely codes are stored: found on films, kept in the codec, used by a job, and told by the fingerprint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import metrics
from engine.archive.reader import fingerprint_parts, open_archive
from engine.cli import run_verb
from engine.code_step import MOST_LOSS_DB, find_step, record_step, round_to_step
from engine.encode.codec import Codec, load_codec
from engine.encode.codec_spec import read_spec
from engine.errors import CodecError
from engine.source.phantom import render_phantom
from engine.verbs import calibrate, encode

SIDE = 32


@pytest.fixture(scope="module")
def films() -> torch.Tensor:
    pixels = [render_phantom(5, index, size=SIDE).pixels.astype(np.float32) / 127.5 - 1 for index in range(12)]
    return torch.from_numpy(np.stack(pixels)).unsqueeze(1)


def loss(codec: Codec, films: torch.Tensor, step: float) -> float:
    codes = codec.encode(films)
    psnr = [metrics.psnr(metrics.to_unit(codec.generate(some)), metrics.to_unit(films)) for some in (codes, round_to_step(codes, step))]
    return float((psnr[0] - psnr[1]).mean())


def test_rounding_gives_multiples_and_zero_changes_nothing() -> None:
    codes = torch.tensor([-0.4, 0.124, 0.126, 0.375, float("nan"), float("inf")])
    torch.testing.assert_close(round_to_step(codes, 0.25), torch.tensor([-0.5, 0, 0.25, 0.5, torch.nan, torch.inf]), equal_nan=True)
    assert round_to_step(codes, 0) is codes


def test_the_step_is_the_coarsest_that_loses_little(small_codec: Path, films: torch.Tensor) -> None:
    codec = load_codec(small_codec)
    step = find_step(codec, films)
    assert step > 0
    assert np.log2(step) == int(np.log2(step))
    assert loss(codec, films, step) < MOST_LOSS_DB
    assert loss(codec, films, 4 * step) > MOST_LOSS_DB  # one doubling may be kept for refined codes, two are not


def test_without_films_codes_stay_as_they_are(small_codec: Path, films: torch.Tensor) -> None:
    assert find_step(load_codec(small_codec), films[:0]) == 0


def test_the_codec_keeps_its_step_and_those_from_before_have_none(small_codec: Path, films: torch.Tensor, tmp_path: Path) -> None:
    folder = tmp_path / "codec"
    folder.mkdir()
    for file in small_codec.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    document = json.loads((folder / "codec.json").read_text())
    document["code"].pop("step", None)
    (folder / "codec.json").write_text(json.dumps(document))
    without = load_codec(folder)
    assert without.spec.code.step == 0
    assert "step" not in json.loads(without.spec.to_bytes())["code"]
    step = record_step(folder, films)
    assert (load_codec(folder).spec.code.step, load_codec(folder).digest != without.digest) == (step, True)
    assert record_step(folder, films) == step
    with pytest.raises(CodecError, match="the shipped codec stays as it is"):
        record_step("demo", films)


@pytest.mark.parametrize("step", [0.3, -0.25, 2.0**-30, 2.0**16])
def test_a_step_that_is_none_is_refused(small_codec: Path, step: float) -> None:
    document = json.loads((small_codec / "codec.json").read_text())
    document["code"]["step"] = step
    with pytest.raises(CodecError, match=r"code.step must be 0 or a power of two"):
        read_spec(json.dumps(document).encode())


def run_encode(codec: Path, archive: Path, *words: str) -> np.ndarray:
    source = f"phantom:6?seed=9&size={SIDE}"
    assert (
        run_verb("encode", encode, [source, "--archive", str(archive), "--codec", str(codec), "--film-size", "32", "--quiet", *words]) == 0
    )
    return open_archive(archive)["latent"].to_numpy()


def test_an_archive_holds_multiples_of_the_step_and_says_so(small_codec: Path, tmp_path: Path) -> None:
    plain = run_encode(small_codec, tmp_path / "plain.zarr", "--code-step", "0")
    rounded = run_encode(small_codec, tmp_path / "rounded.zarr", "--code-step", "0.5")
    whole = run_encode(small_codec, tmp_path / "whole.zarr", "--dtype", "f4")
    assert (plain.dtype, rounded.dtype, whole.dtype) == (np.float16, np.float16, np.float32)
    assert (rounded * 2 == np.round(rounded * 2)).all()
    np.testing.assert_allclose(rounded, whole, atol=0.25 + 1e-3)
    np.testing.assert_array_equal(plain, whole.astype(np.float16))
    assert fingerprint_parts(tmp_path / "rounded.zarr")["latent"]["step"] == 0.5
    assert "step" not in fingerprint_parts(tmp_path / "plain.zarr")["latent"]
    measured = [float(open_archive(tmp_path / name)["mse"].mean()) for name in ("plain.zarr", "rounded.zarr")]
    assert measured[0] < measured[1]  # quality is that of the code as it is stored


def test_refined_codes_are_stored_more_finely(small_codec: Path, tmp_path: Path) -> None:
    step = load_codec(small_codec).spec.code.step
    assert step > 0  # the trainer measured it
    run_encode(small_codec, tmp_path / "encoder.zarr")
    run_encode(small_codec, tmp_path / "refined.zarr", "--refine-steps", "2")
    assert fingerprint_parts(tmp_path / "encoder.zarr")["latent"]["step"] == step
    assert fingerprint_parts(tmp_path / "refined.zarr")["latent"]["step"] == step / 4


def test_calibrate_finds_the_step_on_films(small_codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "codec"
    folder.mkdir()
    for file in small_codec.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    assert run_verb("calibrate", calibrate, [str(folder), "--rounding", f"phantom:8?seed=5&size={SIDE}", "--json"]) == 0
    step = json.loads(capsys.readouterr().out)["code_step"]
    assert step == load_codec(folder).spec.code.step > 0
    stored = run_encode(folder, tmp_path / "films.zarr")
    assert (stored / step == np.round(stored / step)).all()
    assert len(np.unique(stored)) < stored.size
