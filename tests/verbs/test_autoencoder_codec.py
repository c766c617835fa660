"""A published autoencoder from its file to an archive of maps and back to films, by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from engine import open_archive
from engine.cli import main
from engine.encode.codec import load_codec
from tests.networks import kl_layouts
from tests.networks.kl_layouts import Diffusers, Documented, Sizes, film, projection, state_of
from tests.networks.published_layouts import SegalGenerator

SIZES = Sizes(widths=(32, 32, 32), blocks=1, code=3)


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    try:
        code = main([str(word) for word in words])
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def medvae_file(tmp_path: Path) -> Path:
    torch.save({"state_dict": state_of(SIZES) | projection(SIZES.code)}, tmp_path / "vae_4x_3c_2D.ckpt")
    return tmp_path / "vae_4x_3c_2D.ckpt"


def test_medvae_encodes_verifies_and_reconstructs(
    medvae_file: Path, small_films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codec, archive, films = tmp_path / "codec", tmp_path / "maps.zarr", tmp_path / "films"
    sizes = ("--resolution", "64", "--strip-rows", "16")
    code, out, err = run(capsys, "import-checkpoint", medvae_file, "--out", codec, "--licence", "MIT", *sizes)
    assert (code, err) == (0, "")
    assert "medvae: codec autoencoder_kl" in out
    assert "codec medvae-4x3-64" in out
    assert "no encoder" not in out
    assert "calibrate" not in out
    words = ("--workers", "0", "--limit", "5", "--film-size", "64", "--dtype", "f4", "--backend", "eager", "--quiet")
    assert run(capsys, "encode", small_films, "--archive", archive, "--codec", codec, *words)[0] == 0
    assert run(capsys, "verify", archive, "--level", "4")[0] == 0
    dataset = open_archive(archive)
    assert dataset["latent"].dims == ("sample", "channel", "y", "x")
    assert dataset["latent"].shape == (5, 3, 16, 16)
    assert np.isfinite(dataset["psnr"]).all()
    assert run(capsys, "reconstruct", archive, "--out", films)[0] == 0
    rebuilt = np.asarray(Image.open(films / f"{dataset['sample_id'].values[0]}.png"))
    with torch.no_grad():
        wanted = Documented(state_of(SIZES), SIZES).films(torch.from_numpy(dataset["latent"].values[:1]))
    gray = (wanted[0, 0].clamp(-1, 1) + 1) / 2 * 255
    assert np.abs(rebuilt - gray.numpy()).max() <= 0.51  # rounded to whole grays
    assert gray.std() > 10


def test_medvaes_films_are_stretched(medvae_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The package scales a film to [0, 1] from its darkest to its brightest, then takes (x - 0.5) / 0.5."""
    assert run(capsys, "import-checkpoint", medvae_file, "--out", tmp_path / "codec", "--resolution", "32")[0] == 0
    (tmp_path / "films").mkdir()
    dull = np.random.default_rng(3).integers(40, 90, (32, 32), dtype=np.uint8)
    Image.fromarray(dull).save(tmp_path / "films" / "dull.png")
    words = ("--workers", "0", "--film-size", "32", "--dtype", "f4", "--backend", "eager", "--quiet")
    assert run(capsys, "encode", tmp_path / "films", "--archive", tmp_path / "a.zarr", "--codec", tmp_path / "codec", *words)[0] == 0
    unit = (dull - 40.0) / (89.0 - 40.0)
    assert (dull.min(), dull.max()) == (40, 89)
    pixels = torch.from_numpy((unit - 0.5) / 0.5)[None, None]
    with torch.no_grad():
        wanted = Documented(state_of(SIZES), SIZES).mean(pixels)
    np.testing.assert_allclose(open_archive(tmp_path / "a.zarr")["latent"].values, wanted.numpy(), atol=1e-5)


def test_diffusers_become_a_codec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = state_of(kl_layouts.DIFFUSERS, Diffusers)
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(kl_layouts.DIFFUSERS_CONFIG))
    words = ("--out", tmp_path / "codec", "--resolution", "32", "--name", "vae", "--json")
    code, out, err = run(capsys, "import-checkpoint", tmp_path / "diffusion_pytorch_model.safetensors", *words)
    report = json.loads(out.splitlines()[-1])
    assert (code, err) == (0, "")
    assert (report["role"], report["layout"], report["written"], report["has_encoder"]) == ("codec", "diffusers", "vae", True)
    codec = load_codec(tmp_path / "codec")
    assert (codec.code_dims, codec.code_shape, codec.gauge, codec.recipe.intensity) == (("channel", "y", "x"), (4, 8, 8), "none", "full")
    assert report["values"] == sum(p.numel() for net in (codec.encoder, codec.generator) if net is not None for p in net.parameters())
    assert torch.equal(codec.mean_latents(2), torch.zeros(2, 4, 8, 8))
    documented = Documented(state, kl_layouts.DIFFUSERS, Diffusers)
    with torch.no_grad():
        means = documented.mean(film().expand(-1, 3, -1, -1))
        torch.testing.assert_close(codec.encode(film()), ((means - 0.1) * 0.7).float(), rtol=0, atol=1e-5)
    assert codec.spec.provenance["imported"]["autoencoder"]["sample_size"] == 32
    assert run(capsys, "import-checkpoint", tmp_path / "diffusion_pytorch_model.safetensors", *words)[0] == 0
    assert load_codec(tmp_path / "codec").digest == codec.digest


def test_maps_are_refined(medvae_file: Path, small_films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "import-checkpoint", medvae_file, "--out", tmp_path / "codec", "--resolution", "32", "--strip-rows", "8")[0] == 0
    words = ("--workers", "0", "--limit", "2", "--film-size", "32", "--refine-steps", "3", "--backend", "eager", "--quiet")
    assert run(capsys, "encode", small_films, "--archive", tmp_path / "a.zarr", "--codec", tmp_path / "codec", *words)[0] == 0
    dataset = open_archive(tmp_path / "a.zarr")
    assert (dataset["mse"] < dataset["mse_initial"]).all()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--resolution", "30"), "autoencoder_kl.resolution must be a multiple of 4, up to 16384: 30"),
        (("--strip-rows", "-1"), "autoencoder_kl.strip_rows must be 0 (all rows at once) to 16384: -1"),
        (("--codec", "other"), "--codec is for a file with an encoder; this one holds the network autoencoder_kl: "),
    ],
    ids=["resolution", "strips", "codec"],
)
def test_a_bad_request_is_one_clear_line(
    words: tuple[str, ...], says: str, medvae_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "import-checkpoint", medvae_file, "--out", tmp_path / "codec", *words)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert says in err
    assert not (tmp_path / "codec").exists()


def test_sizes_are_for_autoencoders_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": SegalGenerator().state_dict()}, tmp_path / "g.pt")
    for option in ("--resolution", "--strip-rows"):
        code, _, err = run(capsys, "import-checkpoint", tmp_path / "g.pt", "--out", tmp_path / "codec", option, "16")
        assert (code, len(err.splitlines())) == (2, 1)
        assert f"{option} is for an autoencoder, whose films may have any size; this is the network pggan: " in err
