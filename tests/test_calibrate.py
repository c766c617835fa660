"""Coarse heads in a codec directory: fitted, stored, found again, and refused where a generator has no levels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.calibrate import calibrate_codec, fit_codec_heads
from engine.cli import run_verb
from engine.encode.codec import load_codec, save_codec
from engine.errors import CodecError, ConfigError
from engine.verbs import calibrate
from tests.small_pggan import CODE_SIZE, make_pggan_codec


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_heads_are_added_and_all_else_stays(tmp_path: Path) -> None:
    folder = make_pggan_codec(tmp_path / "codec")
    before, former = files(folder), load_codec(folder)
    found = calibrate_codec(folder, films=32, seed=3)
    after, codec = files(folder), load_codec(folder)
    assert set(after) - set(before) == {next(name for name in after if name.startswith("coarse-"))}
    assert {name: data for name, data in after.items() if name in before and name != "codec.json"}.items() <= before.items()
    assert (found.former_digest, found.digest) == (former.digest, codec.digest)
    assert sorted(codec.coarse) == sorted(found.explained) == [4, 8, 16, 32]
    assert codec.metric is not None
    assert codec.metric.shape == (min(64, CODE_SIZE), CODE_SIZE)
    assert sorted(found.gflop) == [4, 8, 16, 32, 64]
    assert sorted(found.gflop.values()) == list(found.gflop.values())
    assert codec.spec.provenance == {"weights": "random", "coarse": {"films": 32, "seed": 3}}
    latents = codec.project(torch.randn(3, 1, CODE_SIZE))
    torch.testing.assert_close(codec.generate(latents), former.generate(latents))


def test_a_fitted_head_beats_one_gray(tmp_path: Path) -> None:
    codec = load_codec(make_pggan_codec(tmp_path / "codec"))
    heads = fit_codec_heads(codec, films=32)
    assert not codec.coarse
    assert all(0 < head.explained < 1 for head in heads.values())
    assert heads[32].explained > heads[8].explained


def test_the_same_seed_gives_the_same_codec_and_another_replaces_it(tmp_path: Path) -> None:
    folder = make_pggan_codec(tmp_path / "codec")
    first = calibrate_codec(folder, films=16)
    kept = files(folder)
    assert calibrate_codec(folder, films=16).digest == first.digest
    assert files(folder) == kept
    assert calibrate_codec(folder, films=16, seed=1).digest != first.digest
    assert len(files(folder)) == len(kept)  # the former heads went


def test_a_generator_without_levels_is_one_clear_line(small_codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(small_codec)
    assert run_verb("calibrate", calibrate, [str(small_codec)]) == 2
    printed = capsys.readouterr()
    assert (printed.out, len(printed.err.strip().splitlines())) == ("", 1)
    assert "no levels" in printed.err
    assert files(small_codec) == before


def test_requests_that_make_no_sense(tmp_path: Path) -> None:
    folder = make_pggan_codec(tmp_path / "codec", resolution=8)
    before = files(folder)
    with pytest.raises(ConfigError, match="films must be 1 or more: 0"):
        calibrate_codec(folder, films=0)
    with pytest.raises(CodecError, match="too few to fit"):
        calibrate_codec(folder, films=1)
    with pytest.raises(CodecError, match="shipped codec"):
        calibrate_codec("demo")
    with pytest.raises(CodecError, match="no such codec directory"):
        calibrate_codec(tmp_path / "none")
    assert files(folder) == before


def test_the_verb_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_pggan_codec(tmp_path / "codec")
    assert run_verb("calibrate", calibrate, [str(folder), "--films", "16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["resolution", "4x4", "8x8", "16x16", "32x32", "64x64"]
    assert "archives that were begun with it are not continued" in lines[-1]
    assert run_verb("calibrate", calibrate, [str(folder), "--films", "16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["digest"] == found["former_digest"] == load_codec(folder).digest


def test_weights_keep_the_type_they_are_stored_in(tmp_path: Path) -> None:
    whole = make_pggan_codec(tmp_path / "whole")
    spec = load_codec(whole).spec
    halves = {name: {key: value.half() for key, value in load_file(whole / name).items()} for name in spec.files()}
    save_codec(tmp_path / "half", spec, weights=halves)
    calibrate_codec(tmp_path / "half", films=8)
    stored = load_file(tmp_path / "half" / load_codec(tmp_path / "half").spec.generator.weights)
    assert {value.dtype for value in stored.values()} == {torch.float16}
