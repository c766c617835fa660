"""The codec that is shipped: its size, what it says of itself, and that it does on films that it never saw what its figures promise."""

from pathlib import Path

import numpy as np
import pytest
import torch

import engine
from engine import metrics
from engine.encode.codec import load_codec
from engine.source.phantom import render_phantom

FOLDER = Path(engine.__file__).parent / "codecs" / "demo"
UNSEEN_SEED = 77


@pytest.fixture(scope="module")
def demo():
    return load_codec("demo")


def test_is_small_and_whole(demo):
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 16_000_000
    assert {file.name for file in FOLDER.iterdir()} == {"codec.json", *demo.spec.files()}
    assert demo.recipe.resolution == 1024
    assert demo.has_encoder
    assert demo.gauge == "sphere"
    assert demo.coarse
    assert demo.metric is not None


def test_says_how_it_was_made(demo):
    about = demo.spec.provenance
    assert (about["task"], about["preset"]) == ("codec-finetune", "demo")
    assert about["data"]["kind"] == "phantom"
    assert about["images"] > 0
    assert about["seconds"] > 0


@pytest.mark.slow
def test_rebuilds_films_that_training_never_saw(demo):
    films = [render_phantom(UNSEEN_SEED, index).pixels.astype(np.float32) / 127.5 - 1 for index in range(6)]
    pixels = torch.from_numpy(np.stack(films)).unsqueeze(1)
    with torch.no_grad():
        rebuilt = demo.generate(demo.encode(pixels))
    assert metrics.psnr(metrics.to_unit(rebuilt), metrics.to_unit(pixels)).mean() > 22.3
    assert metrics.ssim(metrics.to_unit(rebuilt), metrics.to_unit(pixels)).mean() > 0.81
    mean = demo.generate(demo.mean_latents(1)).expand_as(pixels)
    gained = metrics.psnr(metrics.to_unit(rebuilt), metrics.to_unit(pixels)) - metrics.psnr(metrics.to_unit(mean), metrics.to_unit(pixels))
    assert (gained > 0).all()
