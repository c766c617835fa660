"""One shard through the stages: refinement in slots, and whose fault it is when something raises."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine import encode_dataset, open_archive
from engine.archive.verify import verify_archive
from engine.config import EngineConfig, RefineConfig
from engine.encode.codec import load_codec, save_codec
from engine.encode.codec_spec import CodecSpec, CodeSpec, NetworkSpec, WeightsFile
from engine.flow import Flow, build_flow
from engine.networks.coarse import fit_heads, heads_to_tensors
from engine.networks.registry import build_network
from engine.recipe import PixelRecipe
from engine.records import ImageRef, PixelBatch, Shard, SourceInfo, Status
from engine.refine.gradient_step import Found, GradientStep
from engine.rows import RowTable
from engine.stage_clock import StageClock

GENERATOR = NetworkSpec(network="pggan", settings={"channels": [12, 12, 12, 8], "code_size": 8}, weights="generator.safetensors")
BATCH, FILMS = 4, 11


@pytest.fixture(scope="module")
def deep_codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A progressive generator with random weights, its coarse heads and a mean code; no encoder."""
    torch.manual_seed(0)
    network = build_network("generator", GENERATOR.network, GENERATOR.settings).requires_grad_(False)
    codes = torch.randn(2, 16, 1, 8, generator=torch.Generator().manual_seed(0))
    heads = fit_heads(network.coarse_activations, network, iter(codes))  # type: ignore[arg-type]
    spec = CodecSpec(
        name="deep",
        encoder=None,
        generator=GENERATOR,
        code=CodeSpec(dims=("layer", "channel"), shape=(1, 8), gauge="sphere", mean=WeightsFile(weights="mean.safetensors")),
        recipe=PixelRecipe(resolution=32),
        coarse=WeightsFile(weights="heads.safetensors"),
    )
    weights = {
        "generator.safetensors": network.state_dict(),
        "mean.safetensors": {"mean": torch.randn(1, 8)},
        "heads.safetensors": heads_to_tensors(heads),
    }
    folder = tmp_path_factory.mktemp("codecs") / "deep"
    save_codec(folder, spec, weights=weights)
    return folder


@pytest.fixture(params=["pca", "deep"])
def flow(request: pytest.FixtureRequest, small_codec: Path, deep_codec: Path) -> Iterator[Flow]:
    """A flow that refines, for the films below; it writes no archive."""
    codec = small_codec if request.param == "pca" else deep_codec
    cfg = EngineConfig(archive="none", codec=str(codec), batch_size=BATCH, film_size=32, refine=RefineConfig(steps=12))
    flow = build_flow(cfg, write=False)
    yield flow
    flow.close()


def batches() -> list[PixelBatch]:
    """Eleven films that any codec can come nearer to: blurred noise, the fifth as bright as a film can be."""
    draw = torch.Generator().manual_seed(0)
    films = torch.nn.functional.interpolate(torch.rand(FILMS, 1, 4, 4, generator=draw) * 2 - 1, size=(32, 32), mode="bilinear")
    films[5] = 1
    refs = [ImageRef(row, f"film-{row}", "nowhere") for row in range(FILMS)]
    info = SourceInfo(sha256=bytes(range(32)), height=32, width=32, bits=8)
    starts = range(0, FILMS, BATCH)
    pieces = [(refs[at : at + BATCH], films[at : at + BATCH]) for at in starts]
    return [PixelBatch(refs=some, pixels=pixels, films=pixels, infos=[info] * len(some)) for some, pixels in pieces]


def run(flow: Flow, films: list[PixelBatch] | Iterator[PixelBatch]) -> RowTable:
    refs = tuple(ref for batch in batches() for ref in batch.refs)
    rows = RowTable(Shard(index=0, refs=refs, digest=""), flow._codec.code_shape, "f4")
    flow._run(films, refs, rows, StageClock(), flow.refiner)
    rows.finish()
    return rows


def with_gradient(flow: Flow, bend: Callable[[GradientStep], GradientStep], *, level: int = -1) -> Flow:
    """The flow with another gradient at one level of its refinement."""
    assert flow.refiner is not None
    stages = list(flow.refiner.stages)
    stages[level] = replace(stages[level], gradient=bend(stages[level].gradient))
    flow.refiner = replace(flow.refiner, stages=tuple(stages))
    return flow


def raises_at(is_bad: Callable[[Tensor], bool], error: Exception) -> Callable[[GradientStep], GradientStep]:
    """A gradient that raises where one of the targets is a bad one."""

    def bend(right: GradientStep) -> GradientStep:
        def step(latents: Tensor, features: tuple[Tensor, ...]) -> Found:
            if any(is_bad(target) for target in features[0]):
                raise error
            return right(latents, features)

        return step

    return bend


def is_white(target: Tensor) -> bool:
    return bool((target == 1).all())


def test_every_film_is_refined_to_a_better_code(flow: Flow) -> None:
    rows = run(flow, batches()).columns
    assert rows["status"].tolist() == [Status.OK] * FILMS
    assert (rows["mse"] <= rows["mse_initial"]).all()
    assert (rows["mse"] < rows["mse_initial"])[rows["steps"] > 0].all()
    if flow._codec.has_encoder:
        assert (rows["steps"] > 0).any()  # least squares leave little to gain: only films that leave the range
    else:
        assert (rows["steps"] > 0).all()
        assert rows["mse"].mean() < 0.9 * rows["mse_initial"].mean()


@pytest.mark.parametrize("level", [0, -1])
def test_a_film_on_which_the_gradient_raises_fails_alone(flow: Flow, level: int, caplog: pytest.LogCaptureFixture) -> None:
    expected = run(flow, batches()).columns
    with caplog.at_level(logging.WARNING):
        rows = run(with_gradient(flow, raises_at(is_white, ValueError("too bright")), level=level), batches())
    assert "tried one by one" in caplog.text
    good = np.arange(FILMS) != 5
    assert rows.columns["status"].tolist() == [Status.ENCODE_ERROR if row == 5 else Status.OK for row in range(FILMS)]
    assert np.isnan(rows.columns["latent"][5]).all()
    np.testing.assert_array_equal(rows.columns["latent"][good], expected["latent"][good])
    (failure,) = rows.finish().failures
    assert (failure.row, failure.reason) == (5, "the codec raised ValueError")


def test_a_gradient_that_always_raises_is_not_the_films_fault(flow: Flow) -> None:
    with pytest.raises(ValueError, match="broken"):
        run(with_gradient(flow, raises_at(lambda target: True, ValueError("broken"))), batches())


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), torch.AcceleratorError("an illegal memory access")])
def test_a_fault_of_the_machine_is_never_a_films(flow: Flow, error: Exception) -> None:
    with pytest.raises(type(error)):
        run(with_gradient(flow, raises_at(is_white, error)), batches())


def test_an_error_of_the_source_is_not_blamed_on_refinement(flow: Flow, caplog: pytest.LogCaptureFixture) -> None:
    def films() -> Iterator[PixelBatch]:
        yield batches()[0]
        raise OSError("the disk")

    with caplog.at_level(logging.WARNING), pytest.raises(OSError, match="the disk"):
        run(flow, films())
    assert caplog.text == ""


def test_a_film_with_pixels_that_are_no_numbers_diverges_and_the_others_do_not_notice(flow: Flow) -> None:
    expected = run(flow, batches()).columns
    spoilt = batches()
    spoilt[1].pixels[1, 0, 3, 3] = torch.nan
    rows = run(flow, spoilt)
    good = np.arange(FILMS) != 5
    np.testing.assert_array_equal(rows.columns["latent"][good], expected["latent"][good])
    np.testing.assert_array_equal(rows.columns["steps"][good], expected["steps"][good])
    (failure,) = rows.finish().failures
    if flow._codec.has_encoder:  # which makes codes of it that are no numbers either
        assert (failure.row, failure.status) == (5, Status.NONFINITE)
    else:
        assert (failure.row, failure.status) == (5, Status.REFINE_DIVERGED)
        assert rows.columns["steps"][5] == 0
        np.testing.assert_array_equal(rows.columns["latent"][5], load_codec(flow._cfg.codec).mean_latents(1)[0].numpy())


def test_no_more_films_wait_than_there_are_slots(flow: Flow) -> None:
    assert flow.refiner is not None
    taken = 0

    def films() -> Iterator[PixelBatch]:
        nonlocal taken
        for batch in batches():
            taken += len(batch.refs)
            yield batch

    rows = RowTable(Shard(index=0, refs=tuple(ref for batch in batches() for ref in batch.refs), digest=""), flow._codec.code_shape, "f4")
    refs = {ref.row: ref for batch in batches() for ref in batch.refs}
    coded = flow._encoded(films(), refs, rows, StageClock())
    first = next(flow._refined(coded, flow.refiner, rows, StageClock()))
    assert len(first.refs) == BATCH
    assert taken <= BATCH * (1 + len(flow.refiner.stages))


def test_the_record_says_how_refinement_was_made(flow: Flow) -> None:
    assert flow.refiner is not None
    levels = ["16", "32"] if len(flow.refiner.stages) > 1 else ["32"]
    found = flow.made_by()["parity"]["refine"]
    assert sorted(found) == levels
    assert all((figures["backend"], figures["precision"]) == ("eager", "fp32") for figures in found.values())


@pytest.mark.parametrize("kind", ["pca", "deep"])
def test_a_refined_archive_is_the_same_after_an_interruption(
    kind: str, small_films: Path, small_codec: Path, deep_codec: Path, tmp_path: Path
) -> None:
    codec = small_codec if kind == "pca" else deep_codec
    settings = {"workers": 0, "film_size": 64, "quiet": True, "shard_rows": 8, "limit": 20, "refine_steps": 12, "batch_size": 4}
    archive = tmp_path / "films.zarr"
    assert encode_dataset(str(small_films), str(archive), str(codec), **settings).ok == 20
    dataset = open_archive(archive)
    latents, steps = dataset["latent"].to_numpy(), dataset["steps"].to_numpy()
    assert (steps > 0).any()
    assert float((dataset["mse"] - dataset["mse_initial"]).mean()) < 0
    (archive / "shards" / "commit" / "c" / "1").unlink()  # as if it had been killed before this shard
    assert encode_dataset(str(small_films), str(archive), str(codec), **settings).encoded_now == 8
    again = open_archive(archive)
    np.testing.assert_array_equal(again["latent"].to_numpy(), latents)
    np.testing.assert_array_equal(again["steps"].to_numpy(), steps)
    assert verify_archive(archive, level=3) == []
