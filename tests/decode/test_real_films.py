"""Real radiographs: all of them decode, and one slice in every classic DICOM transfer syntax is the same slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.config import DecodeConfig
from engine.decode.choose import build_decoder
from engine.decode.formats import open_film, read_film, settle_libraries
from engine.recipe import PixelRecipe
from engine.records import ImageRef

pytestmark = pytest.mark.films
RECIPE = PixelRecipe(resolution=256)
# By how much a lossy syntax may miss, mean and largest, as a share of the window (400 wide): the 12-bit files keep every second value,
# the 8-bit one every 32nd.
LOSSY = {
    "JPEG2000Transfer": (0.001, 0.015),
    "JPEGLSLossy": (0.001, 0.003),
    "JPEGProcess1Transfer": (0.02, 0.17),
    "JPEGProcess2_4": (0.006, 0.08),
    "JPEGProcess6_8": (0.006, 0.08),
    "JPEGProcess10_12": (0.006, 0.08),
}


def test_all_films_decode(films: Path) -> None:
    refs = [ImageRef(row, path.name, str(path)) for row, path in enumerate(sorted((films / "films").iterdir()))]
    decoder = build_decoder(RECIPE, DecodeConfig(decoder="cpu"), read=lambda uri: Path(uri).read_bytes(), batch_size=16, film_size=None)
    num_films = 0
    for batch in decoder.batches(refs):
        assert not batch.failures
        assert (batch.pixels.amax(dim=(1, 2, 3)) - batch.pixels.amin(dim=(1, 2, 3)) > 0.5).all()
        num_films += len(batch.refs)
    decoder.close()
    assert num_films == len(refs) == 116


def test_every_dicom_syntax_is_the_same_slice(films: Path) -> None:
    settle_libraries()
    paths = sorted((films / "dicom" / "syntax").iterdir())
    expected = read_film(open_film((films / "dicom" / "syntax" / "CTImage.dcm").read_bytes(), DecodeConfig()), RECIPE).samples
    assert expected.std() > 0.1
    for path in paths:
        film = read_film(open_film(path.read_bytes(), DecodeConfig()), RECIPE).samples
        mean, largest = next((loss for name, loss in LOSSY.items() if name in path.name), (0.0, 0.0))
        difference = np.abs(film - expected)
        assert difference.mean() <= mean, path.name
        assert difference.max() <= largest, path.name
    assert len(paths) == 16
