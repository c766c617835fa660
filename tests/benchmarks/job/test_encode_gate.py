"""No speed is printed of codes that are not the job's, and a command that is missing or fails is a row that says so."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.commands import StepFailed
from benchmarks.inputs import Options
from benchmarks.job.convnext_codec import save_convnext_codec
from benchmarks.job.encode import workers_of
from benchmarks.job.encode_scene import REFERENCE, Scene, SceneBench, differences
from benchmarks.job.medvae_command import COMMAND, VARIABLE, medvae_rows, read_nifti
from engine import encode_dataset
from engine.encode.codec import load_codec, save_codec


def other_codec(codec: Path, out: Path, *, scale: float) -> Path:
    """The same films for codes that are `scale` times as long."""
    loaded = load_codec(codec)
    (name,) = {loaded.spec.generator.weights}
    state = {key: value / scale if key == "scale" else value for key, value in loaded.generator.network.state_dict().items()}
    save_codec(out, loaded.spec, weights={name: state})
    return out


def nifti(array: np.ndarray[tuple[int, ...], np.dtype[np.float32]], *, kind: int = 16) -> bytes:
    header = bytearray(352)
    struct.pack_into("<8h", header, 40, array.ndim, *array.shape, *(1,) * (7 - array.ndim))
    struct.pack_into("<h", header, 70, kind)
    struct.pack_into("<f", header, 108, 352.0)
    return gzip.compress(bytes(header) + array.tobytes(order="F"))


def test_a_nifti_file_is_read_with_its_first_index_fastest(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    (tmp_path / "code.nii.gz").write_bytes(nifti(array))
    assert np.array_equal(read_nifti(tmp_path / "code.nii.gz"), array)
    (tmp_path / "other.nii.gz").write_bytes(nifti(array, kind=4))
    with pytest.raises(StepFailed, match=r"must hold float32 \(type 16\): 4"):
        read_nifti(tmp_path / "other.nii.gz")


def test_without_the_command_its_row_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    (row,) = medvae_rows(Options(quick=True), tmp_path, [])
    assert COMMAND in row.step
    assert "pip install medvae" in row.unavailable


def test_a_command_whose_package_does_not_run_fails_with_its_reason(
    small_films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    shutil.copy(shutil.which("false") or "/bin/false", tmp_path / "bin" / COMMAND)
    os.symlink(sys.executable, tmp_path / "bin" / "python")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "bin" / COMMAND))
    (row,) = medvae_rows(Options(quick=True), tmp_path, sorted(small_films.iterdir())[:2])
    assert row.failed.startswith("python exited with 1: ModuleNotFoundError")


def test_codes_that_are_not_the_references_stop_the_step(small_films: Path, small_codec: Path, tmp_path: Path) -> None:
    scene = Scene(label="PCA", codec=str(small_codec), files=sorted(small_films.iterdir())[:4], turns=1)
    bench = SceneBench(tmp_path / "scene", scene)
    films = str(tmp_path / "scene" / "films.csv")
    for name, codec in (
        (REFERENCE, small_codec),
        ("same.zarr", small_codec),
        ("other.zarr", other_codec(small_codec, tmp_path / "o", scale=1.5)),
    ):
        encode_dataset(films, str(tmp_path / "scene" / name), str(codec), workers=0, quiet=True, metrics="none")
    assert bench._codes_off("same.zarr") == 0
    with pytest.raises(StepFailed, match=r"other\.zarr differ from the reference by this part of their length: 0\.[1-9]"):
        bench._codes_off("other.zarr")


def test_a_step_of_the_grid_is_forgiven_and_nothing_more() -> None:
    expected = torch.tensor([[[1.0, -0.5, 0.25]]])
    beside = expected + torch.tensor([0.25, -0.25, 0.0])
    off, forgiven = differences(beside, expected, 0.25)
    assert (off > 0.2, forgiven) == (True, 0)
    assert differences(beside, expected, 0.0) == (off, off)
    assert differences(beside + 0.25, expected, 0.25)[1] > 0.2
    assert differences(expected * torch.nan, expected, 0.25)[1] == float("inf")


def test_the_random_codec_is_the_same_every_time_and_encodes(tmp_path: Path) -> None:
    first, second = (save_convnext_codec(tmp_path / name, tiny=True) for name in ("a", "b"))
    codec = load_codec(first)
    assert codec.digest == load_codec(second).digest
    assert codec.encode(torch.zeros(2, 1, 64, 64)).shape == (2, *codec.code_shape)
    assert codec.generate(torch.ones(1, *codec.code_shape)).shape == (1, 1, 64, 64)


def test_each_number_of_workers_once() -> None:
    sizes = [
        workers_of(replace(Options(), quick=quick, nightly=nightly)) for quick, nightly in ((True, False), (False, True), (False, False))
    ]
    assert sizes[0] == [0]
    assert all(found == sorted(set(found)) and found[0] == 0 for found in sizes)
    assert set(sizes[1]) <= set(sizes[2]) >= {0, 1, 2}
