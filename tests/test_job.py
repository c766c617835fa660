"""What is decided before a run: settings by their names, perceptual weights, what is in the fingerprint and what must not be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine import encode_dataset
from engine.calibrate import calibrate_codec
from engine.errors import BackendError, ConfigError, FingerprintMismatch
from engine.flow import build_flow
from engine.job import JobConfig, decide, fingerprint_of, job_config, open_job, with_films
from engine.refine.weight_files import FILES
from tests.small_pggan import make_pggan_codec


@pytest.fixture(autouse=True)
def _no_downloads_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))  # weights that this machine happens to have change nothing


@pytest.fixture
def codec(tmp_path: Path) -> Path:
    return make_pggan_codec(tmp_path / "codec", resolution=32)


def job_of(codec: Path, **settings: object) -> JobConfig:
    return job_config("phantom:3?size=64", str(codec.parent / "films.zarr"), str(codec), **{"refine_steps": 2, **settings})


def refine_parts(job: JobConfig, scratch: Path) -> dict[str, object]:
    scratch.mkdir(exist_ok=True)
    job, codec, plan, _ = decide(job, scratch)
    parts = fingerprint_of(job, codec, plan)
    assert fingerprint_of(replace(job, engine=with_films(job.engine, 1000, 3)), codec, plan) == parts
    assert str(codec.name) in json.dumps(parts)
    assert str(scratch.parent) not in json.dumps(parts), "an archive holds no path"
    refine: dict[str, object] = parts["refine"]
    return refine


def test_flat_settings_find_their_places(codec: Path) -> None:
    job = job_of(codec, refine_optimiser="adam", coarse=False, lpips_net="vgg", lpips_size=16, weights="random", backend="cudagraphs")
    refine = job.engine.refine
    assert (refine.optimiser, refine.coarse, refine.lpips_net, refine.lpips_size) == ("adam", False, "vgg", 16)
    assert (refine.perceptual_weights, job.engine.backend) == ("random", "cudagraphs")
    assert job_of(codec, optimiser="adam", perceptual_weights="download").engine.refine.perceptual_weights == "download"
    assert Path(job_of(codec, weights="some/folder").engine.refine.perceptual_weights).is_absolute()  # workers run elsewhere
    with pytest.raises(ConfigError, match=r"refine\.optimiser must be one of lbfgs, adam: magic"):
        job_of(codec, refine_optimiser="magic")


def test_the_fingerprint_has_what_decides_codes_and_no_more(codec: Path, tmp_path: Path) -> None:
    plain = refine_parts(job_of(codec), tmp_path / "scratch")
    assert set(plain) == {"steps", "lr", "optimiser", "coarse", "loss", "target_mse", "patience"}
    assert refine_parts(job_of(codec, lpips_net="vgg", weights=str(tmp_path)), tmp_path / "scratch") == plain
    assert refine_parts(job_of(codec, refine_optimiser="adam"), tmp_path / "scratch") != plain


def test_perceptual_weights_are_in_the_fingerprint_by_their_digests(codec: Path, tmp_path: Path) -> None:
    for at, folder in enumerate(("here", "there")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / FILES["alex"]).write_bytes(b"weights" * (1 + at))
    settings = {"loss": "mse=1,lpips=0.8", "refine_steps": 2}
    jobs = (job_of(codec, weights=str(tmp_path / each), **settings) for each in ("here", "there"))
    here, there = (refine_parts(job, tmp_path / "scratch") for job in jobs)
    assert here["perceptual"]["lpips"]["features"].startswith("sha256:")  # type: ignore[index]
    assert (here["lpips_net"], here["perceptual"] == there["perceptual"]) == ("alex", False)
    drawn = refine_parts(job_of(codec, weights="random", **settings), tmp_path / "scratch")
    assert drawn["perceptual"] == {"lpips": {"net": "alex", "features": "random:0", "heads": "random:0"}}


@pytest.mark.parametrize(
    ("resolution", "loss", "said"),
    [
        (256, "mse=1,lpips=0.8,moco=0.1", FILES["alex"]),
        (256, "mse=1,moco=0.1", FILES["moco"]),
        (32, "mse=1,moco=0.1", "224 pixels or more"),
    ],
)
def test_a_loss_that_cannot_be_computed_is_refused_before_anything_is_written(
    tmp_path: Path, resolution: int, loss: str, said: str
) -> None:
    codec = make_pggan_codec(tmp_path / "own", resolution=resolution, loss=loss)
    other = make_pggan_codec(tmp_path / "other", resolution=resolution)
    for job in (job_of(codec), job_of(other, loss=loss)):
        (tmp_path / "scratch").mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match=said) as caught:
            decide(job, tmp_path / "scratch")
        assert len(str(caught.value).splitlines()) == 1
        assert not list((tmp_path / "scratch").iterdir())


def test_a_run_without_refinement_goes_on_whatever_refinement_would_have_been(small_films: Path, small_codec: Path, tmp_path: Path) -> None:
    archive = str(tmp_path / "films.zarr")

    def encode(**settings: object) -> int:
        asked = {"workers": 0, "film_size": 64, "quiet": True, "limit": 6, **settings}
        return encode_dataset(str(small_films), archive, str(small_codec), **asked).encoded_now

    assert encode() == 6
    assert encode(refine_optimiser="adam", coarse=False, lpips_net="vgg", weights="random") == 0
    assert encode(refine_steps=2, overwrite=True) == 6
    assert encode(refine_steps=2) == 0
    with pytest.raises(FingerprintMismatch, match="optimiser"):
        encode(refine_steps=2, refine_optimiser="adam")


def test_films_are_dealt_out_among_workers(codec: Path) -> None:
    engine = job_of(codec).engine
    assert [with_films(engine, 10, workers).films for workers in (0, 1, 3)] == [10, 10, 4]


def test_half_precision_that_cannot_hold_a_gradient_is_refused(codec: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs --precision fp32, bf16 or auto.*: fp16"):
        decide(job_of(codec, precision="fp16"), tmp_path)


def test_a_folder_of_weights_that_is_not_there_is_refused_whatever_the_loss(codec: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such folder of weights: .*nowhere"):
        decide(job_of(codec, weights=str(tmp_path / "nowhere")), tmp_path)


def test_a_backend_of_other_machines_is_theirs_to_refuse(codec: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="cudagraphs needs a CUDA device"):
        decide(job_of(codec, backend="cudagraphs"), tmp_path)
    decide(job_of(codec, backend="cudagraphs", address="auto"), tmp_path)


def test_a_worker_that_finds_another_codec_does_no_work(codec: Path) -> None:
    with open_job(job_of(codec)) as (job, _):
        calibrate_codec(codec, films=16)
        with pytest.raises(FingerprintMismatch, match=r"other files than the archive was begun with \(codec\)"):
            build_flow(job.engine)
        build_flow(job.engine, write=False).close()
