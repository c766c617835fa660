"""A region comes back exactly whatever happens to the rest, and costs what its own samples cost."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import ConfigError, LayerError
from engine.fidelity.decode import decode_layer
from engine.fidelity.encode import encode_film
from engine.fidelity.region import Region, mask_region, parse_box
from engine.fidelity.target import Target
from engine.fidelity.way import Way
from tests.fidelity.film_shapes import radiograph

TARGETS = [Target("psnr", 34), Target("bytes", 2500), Target("max-error", 5)]


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, False), (12, True)])
def test_inside_is_exact(target: Target, bits: int, signed: bool) -> None:
    film = radiograph(bits=bits, signed=signed)
    layer = encode_film(film, target, Way("j2k"), region=Region(10, 20, 40, 50))
    back = decode_layer(layer.data).samples
    np.testing.assert_array_equal(back[20:50, 10:40], film.samples[20:50, 10:40])
    assert (back != film.samples).any()
    difference = np.abs(back.astype(np.int64) - film.samples)
    assert difference.max() == layer.max_error
    if target.kind == "psnr":
        assert layer.psnr >= target.value
    if target.kind == "bytes":
        assert len(layer.data) <= target.value
    if target.kind == "max-error":
        assert layer.max_error <= target.value


def test_a_mask_of_any_shape() -> None:
    film = radiograph(256, 256)
    y, x = np.mgrid[0 : film.samples.shape[0], 0 : film.samples.shape[1]]
    mask = (y - 140) ** 2 + (x - 130) ** 2 < 80**2
    region = mask_region(mask)
    layer = encode_film(film, Target("psnr", 34), Way("avif", 10), region=region)
    back = decode_layer(layer.data).samples
    np.testing.assert_array_equal(back[mask], film.samples[mask])
    box = encode_film(film, Target("psnr", 34), Way("avif", 10), region=Region(51, 61, 210, 220))
    assert len(layer.data) < len(box.data)


def test_masks_without_or_full_of_pixels() -> None:
    assert mask_region(np.zeros((4, 5), dtype=bool)) is None
    full = mask_region(np.ones((4, 5), dtype=bool))
    assert full is not None
    assert (full.x0, full.y0, full.x1, full.y1, full.mask) == (0, 0, 5, 4, None)


def test_lossless_needs_no_region() -> None:
    film = radiograph()
    way = Way("jxl", 3)
    assert encode_film(film, Target("lossless"), way, region=Region(0, 0, 9, 9)).data == encode_film(film, Target("lossless"), way).data


def test_a_region_with_a_residual() -> None:
    film = radiograph()
    prediction = radiograph(seed=3).to_gray()
    layer = encode_film(film, Target("psnr", 36), Way("j2k", residual=True), prediction=prediction, region=Region(0, 0, 16, 16))
    back = decode_layer(layer.data, prediction).samples
    np.testing.assert_array_equal(back[:16, :16], film.samples[:16, :16])
    assert layer.kind == "residual"


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "5,0,5,9", "0,9,5,9", "-1,0,5,5", "0,0,5,5.5", "0,0,70000,5"])
def test_boxes_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="a box must"):
        parse_box(text)


def test_a_box_beyond_the_film_fails_that_film() -> None:
    box = parse_box("0,0,81,96")
    with pytest.raises(LayerError, match="within the film of 80x96 pixels: 0,0,81,96"):
        encode_film(radiograph(), Target("psnr", 34), Way("j2k"), region=box)
