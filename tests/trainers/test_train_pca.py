"""`latentray train pca` from files to a codec: quality, bad films, few films, and what a user can ask wrongly."""

import json

import imagecodecs
import numpy as np
import pytest
import torch

from engine.cli import run_verb
from engine.encode.codec import load_codec
from engine.errors import CodecError, ConfigError, SourceError
from trainers import train
from trainers.presets.pca import PcaConfig
from trainers.tasks.pca import fit_pca

SMALL = {"components": 6, "resolution": 16, "batch_size": 4}


def film(seed):
    """A smooth 8-bit film of 40x40 that eight numbers describe."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:40, 0:40] / 40
    waves = sum(rng.uniform(-0.12, 0.12) * np.cos(np.pi * (i * x + j * y)) for i in range(3) for j in range(3) if i + j)
    return np.clip(np.rint(255 * (0.5 + waves)), 0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Twenty films."""
    folder = tmp_path / "patient-name"
    folder.mkdir()
    for seed in range(20):
        (folder / f"film{seed:02}.png").write_bytes(imagecodecs.png_encode(film(seed)))
    return folder


def test_makes_a_codec_that_rebuilds_its_films(folder, tmp_path):
    report = fit_pca(str(folder), tmp_path / "pca", PcaConfig(**SMALL))
    codec = load_codec(tmp_path / "pca")
    assert (report.films, report.failed, report.components, report.is_exact) == (20, 0, 6, True)
    assert report.digest == codec.digest
    assert codec.code_shape == (1, 6)
    assert codec.recipe.resolution == 16
    assert report.explained_variance > 0.85
    assert report.psnr > 27
    assert report.psnr_films == 20
    assert list(report.explained_variance_by_components) == [1, 2, 4, 6]
    (line,) = (tmp_path / "pca" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["psnr"] == report.psnr


def test_codes_are_whitened(folder, tmp_path):
    fit_pca(str(folder), tmp_path / "pca", PcaConfig(**SMALL))
    codec = load_codec(tmp_path / "pca")
    pixels = [torch.from_numpy(film(seed)).float().reshape(1, 1, 40, 40) / 127.5 - 1 for seed in range(20)]
    codes = codec.encode(torch.nn.functional.interpolate(torch.cat(pixels), size=(16, 16), mode="area"))[:, 0]
    torch.testing.assert_close(codes.mean(0), torch.zeros(6), atol=0.05, rtol=0)
    torch.testing.assert_close(codes.std(0), torch.ones(6), atol=0.05, rtol=0)


def test_the_same_films_give_the_same_codec(folder, tmp_path):
    cfg = PcaConfig(**SMALL)
    first = fit_pca(str(folder), tmp_path / "pca", cfg)
    assert fit_pca(str(folder), tmp_path / "pca", cfg).digest == first.digest
    assert fit_pca(str(folder), tmp_path / "other", cfg).digest == first.digest


def test_more_components_rebuild_better(folder, tmp_path):
    few = fit_pca(str(folder), tmp_path / "few", PcaConfig(**SMALL))
    many = fit_pca(str(folder), tmp_path / "many", PcaConfig(**SMALL | {"components": 12}))
    assert many.psnr > few.psnr + 5


def test_unreadable_films_are_named_and_left_out(folder, tmp_path, caplog):
    without = fit_pca(str(folder), tmp_path / "without", PcaConfig(**SMALL))
    whole = (folder / "film00.png").read_bytes()
    (folder / "film03a.png").write_bytes(whole[: len(whole) // 2])
    (folder / "film05a.png").write_bytes(b"")
    report = fit_pca(str(folder), tmp_path / "with", PcaConfig(**SMALL))
    assert (report.films, report.failed) == (20, 2)
    assert report.failed_fraction == pytest.approx(2 / 22)
    named = [record.getMessage() for record in caplog.records if record.name == "trainers.films"]
    assert [name for name in ("film03a", "film05a") if any(name in line for line in named)] == ["film03a", "film05a"]
    latents = torch.randn(2, 1, 6)
    assert torch.equal(load_codec(tmp_path / "with").generate(latents), load_codec(tmp_path / "without").generate(latents))
    assert report.psnr == without.psnr


def test_no_path_is_kept(folder, tmp_path):
    fit_pca(str(folder), tmp_path / "pca", PcaConfig(**SMALL))
    kept = (tmp_path / "pca" / "codec.json").read_text() + (tmp_path / "pca" / "metrics.jsonl").read_text()
    assert "patient" not in kept
    assert str(tmp_path) not in kept
    assert json.loads((tmp_path / "pca" / "codec.json").read_text())["provenance"]["data"]["kind"] == "folder"


def test_a_small_buffer_streams_with_little_loss(folder, tmp_path):
    for seed in range(20, 120):
        (folder / f"film{seed:03}.png").write_bytes(imagecodecs.png_encode(film(seed)))
    exact = fit_pca(str(folder), tmp_path / "exact", PcaConfig(**SMALL))
    streamed = fit_pca(str(folder), tmp_path / "streamed", PcaConfig(**SMALL, buffer_bytes=1))
    assert exact.is_exact
    assert not streamed.is_exact
    assert abs(streamed.psnr - exact.psnr) < 0.1


def test_fewer_films_than_components(folder, tmp_path, caplog):
    report = fit_pca(str(folder), tmp_path / "pca", PcaConfig(**SMALL, images=4))
    assert (report.films, report.components) == (4, 3)
    assert "4 films have 3 directions" in caplog.text
    assert load_codec(tmp_path / "pca").code_shape == (1, 3)


@pytest.mark.parametrize(("names", "message"), [(["a"], "at least two films"), (["a", "b"], "all alike")])
def test_too_few_different_films(tmp_path, names, message):
    folder = tmp_path / "films"
    folder.mkdir()
    for name in names:
        (folder / f"{name}.png").write_bytes(imagecodecs.png_encode(film(0)))
    with pytest.raises(ConfigError, match=message):
        fit_pca(str(folder), tmp_path / "pca", PcaConfig(**SMALL))
    assert not (tmp_path / "pca").exists()


def test_not_one_readable_film(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no film")
    with pytest.raises(SourceError, match="not one film"):
        fit_pca(str(folder), tmp_path / "pca", PcaConfig(**SMALL))


def test_a_directory_of_other_things_is_refused_before_the_work(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CodecError, match=r"notes\.txt"):
        fit_pca("/no/such/source", tmp_path, PcaConfig(**SMALL))


def verb(*argv):
    return run_verb("train", train, [str(word) for word in argv])


def options(folder, out, *more):
    return ("pca", "--data", folder, "--out", out, "--components", 6, "--resolution", 16, *more)


def test_the_verb_prints_a_line_or_json(folder, tmp_path, capsys):
    assert verb(*options(folder, tmp_path / "pca")) == 0
    assert "6 components of 20 films" in capsys.readouterr().out
    assert verb(*options(folder, tmp_path / "pca", "--json", "--images", 12, "--storage", "float32", "--seed", 3)) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["films"], told["components"]) == (12, 6)
    assert told["digest"] == load_codec(tmp_path / "pca").digest


def test_presets(folder, tmp_path, capsys):
    assert verb("pca", "--data", folder, "--out", tmp_path / "pca", "--preset", "cpu-small", "--components", 5, "--json") == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["components"], told["resolution"]) == (5, 128)


def test_too_many_unreadable_films_are_exit_1(folder, tmp_path, capsys):
    (folder / "bad.png").write_bytes(b"")
    (folder / "worse.png").write_bytes(b"")
    assert verb(*options(folder, tmp_path / "pca")) == 1
    assert "could not be read: 2" in capsys.readouterr().err
    assert verb(*options(folder, tmp_path / "pca", "--max-failed-fraction", 0.1)) == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("cyclegan",), "there is no such one: cyclegan"),
        (("--components", 0), "components must be 1 or more: 0"),
        (("--resolution", 4), "resolution must be 8 to 1024: 4"),
        (("--preset", "huge"), "presets of pca are default, cpu-small: huge"),
        (("--max-failed-fraction", 2), "max-failed-fraction must be 0 to 1: 2"),
        (("--images", -1), "images must be 0 or more: -1"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_wrong_requests_are_one_line_and_exit_2(folder, tmp_path, capsys, changed, message):
    words = (
        ["pca", "--data", folder, "--out", tmp_path / "pca", *changed] if len(changed) > 1 else [*changed, "--data", folder, "--out", "x"]
    )
    assert verb(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "pca").exists()


def test_a_place_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CodecError, match="cannot be written"):
        fit_pca(str(folder), tmp_path / "file" / "pca", PcaConfig(**SMALL))
