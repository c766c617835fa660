"""The same job with networks: a progressive GAN generator, with a ConvNeXt encoder and without one. Weights are random."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import encode_dataset, open_archive
from engine.archive.verify import verify_archive
from engine.audit import audit_rows
from engine.config import EngineConfig
from engine.encode.codec import save_codec
from engine.encode.codec_spec import CodecSpec, CodeSpec, NetworkSpec, WeightsFile
from engine.errors import CodecError, ConfigError
from engine.flow import build_flow
from engine.job import plan_beside
from engine.networks.registry import build_network
from engine.recipe import PixelRecipe
from engine.records import ImageRef

CODE_SIZE = 24
GENERATOR = NetworkSpec(network="pggan", settings={"channels": [24, 24, 16, 8], "code_size": CODE_SIZE}, weights="generator.safetensors")
ENCODER = NetworkSpec(
    network="convnext", settings={"depths": [1, 1], "widths": [8, 16], "code_size": CODE_SIZE}, weights="encoder.safetensors"
)
SPEC = CodecSpec(
    name="random",
    encoder=ENCODER,
    generator=GENERATOR,
    code=CodeSpec(dims=("layer", "channel"), shape=(1, CODE_SIZE), gauge="sphere", mean=WeightsFile(weights="mean.safetensors")),
    recipe=PixelRecipe(resolution=32),
    loss="mse=1",
    licence="CC0-1.0",
    provenance={"weights": "random"},
)


def saved(folder: Path, spec: CodecSpec) -> Path:
    torch.manual_seed(4)
    weights = {"generator.safetensors": build_network("generator", GENERATOR.network, GENERATOR.settings).state_dict()}
    weights["mean.safetensors"] = {"mean": torch.randn(1, CODE_SIZE)}
    if spec.encoder is not None:
        weights["encoder.safetensors"] = build_network("encoder", ENCODER.network, ENCODER.settings).state_dict()
    save_codec(folder, spec, weights=weights)
    return folder


def encode(films: Path, archive: Path, codec: Path, **settings: object) -> None:
    encode_dataset(str(films), str(archive), str(codec), **{"workers": 0, "film_size": 64, "quiet": True, "limit": 12, **settings})


def test_refined_codes_stay_on_the_sphere_and_are_no_worse(small_films: Path, tmp_path: Path) -> None:
    codec = saved(tmp_path / "codec", SPEC)
    encode(small_films, tmp_path / "films.zarr", codec, refine_steps=12, dtype="f4")
    dataset = open_archive(tmp_path / "films.zarr")
    norms = np.linalg.norm(dataset["latent"].to_numpy().reshape(12, -1), axis=1)
    np.testing.assert_allclose(norms, np.sqrt(CODE_SIZE), rtol=1e-5)
    assert (dataset["steps"] > 0).all()
    # the loss is the error at 32x32, the figures are at 64x64: what one gains the other may lose a little of
    assert float((dataset["mse"] - dataset["mse_initial"]).max()) < 1e-3
    assert float(dataset["mse"].mean()) < 0.9 * float(dataset["mse_initial"].mean())
    assert verify_archive(tmp_path / "films.zarr", level=3) == []
    assert audit_rows(tmp_path / "films.zarr", plan_beside(tmp_path / "films.zarr")) == []


def test_a_film_has_the_same_code_in_any_batch(small_films: Path, tmp_path: Path) -> None:
    codec = saved(tmp_path / "codec", SPEC)
    for size in (1, 5, 12):
        encode(
            small_films,
            tmp_path / f"{size}.zarr",
            codec,
            refine_steps=6,
            refine_lr=0.1,
            optimiser="adam",
            dtype="f4",
            batch_size=size,
            shard_rows=12,
        )
    alone, few, all_at_once = (open_archive(tmp_path / f"{size}.zarr")["latent"].to_numpy() for size in (1, 5, 12))
    np.testing.assert_allclose(few, alone, atol=2e-3)
    np.testing.assert_allclose(all_at_once, alone, atol=2e-3)


def test_a_refined_code_has_the_same_bits_in_batches_of_whole_fours(small_films: Path, tmp_path: Path) -> None:
    """A rounding can turn a leaky ReLU's slope, and L-BFGS makes much of that: so there had better be none (`descent.ROWS_AT_ONCE`)."""
    codec = saved(tmp_path / "codec", SPEC)
    for size in (4, 12):
        encode(small_films, tmp_path / f"{size}.zarr", codec, refine_steps=9, dtype="f4", batch_size=size, shard_rows=12)
    few, all_at_once = (open_archive(tmp_path / f"{size}.zarr")["latent"].to_numpy() for size in (4, 12))
    np.testing.assert_array_equal(few, all_at_once)


def test_without_an_encoder_refinement_starts_from_the_mean_code(small_films: Path, tmp_path: Path) -> None:
    codec = saved(tmp_path / "codec", replace(SPEC, encoder=None))
    with pytest.raises(CodecError, match="--refine-steps 1 or more"):
        encode(small_films, tmp_path / "films.zarr", codec)
    assert not (tmp_path / "films.zarr").exists()
    encode(small_films, tmp_path / "films.zarr", codec, refine_steps=25)
    dataset = open_archive(tmp_path / "films.zarr")
    assert float(dataset["mse"].mean()) < 0.8 * float(dataset["mse_initial"].mean())


def test_a_loss_that_cannot_be_computed_matters_only_to_refinement(small_films: Path, tmp_path: Path) -> None:
    codec = saved(tmp_path / "codec", replace(SPEC, loss="mse=1,lpips=0.8"))
    settings = {"perceptual_weights": str(tmp_path)}  # where there are none
    with pytest.raises(ConfigError, match=r"loss term.* alexnet"):
        encode(small_films, tmp_path / "films.zarr", codec, refine_steps=1, **settings)
    with pytest.raises(ConfigError, match="moco needs films of 224 pixels"):
        encode(small_films, tmp_path / "films.zarr", codec, loss="moco=1", **settings)  # asked for, so it must not be ignored
    encode(small_films, tmp_path / "films.zarr", codec)
    assert open_archive(tmp_path / "films.zarr").sizes["sample"] == 12


def test_a_rehearsal_takes_any_films_and_none(small_films: Path, tmp_path: Path) -> None:
    codec = saved(tmp_path / "codec", SPEC)
    films = sorted(small_films.iterdir())
    refs = [ImageRef(row, films[row].stem, str(films[row])) for row in (2, 7, 30)]
    flow = build_flow(EngineConfig(archive="none", codec=str(codec), film_size=64), write=False)
    assert flow.rehearse([]) == {"decode": pytest.approx(0, abs=1)}
    assert flow.rehearse(refs)["encode"] > 0
    flow.close()
