"""Measures of films, against the truth of phantoms."""

from __future__ import annotations

import numpy as np

from engine.latents.anatomy import measure
from engine.source.phantom import draw_labels, render_phantom

BESIDE = ("opacity", "effusion_left", "effusion_right", "pneumothorax")


def test_the_heart_is_as_wide_as_it_is() -> None:
    clear = [index for index in range(70) if not any(draw_labels(77, index)[name] for name in BESIDE)]
    phantoms = [render_phantom(77, index, size=128) for index in clear]
    found = [measure(phantom.pixels / 255) for phantom in phantoms]
    hearts = np.array([each.heart_width for each in found if each])
    truth = np.array([phantom.labels["heart_width"] for phantom, each in zip(phantoms, found, strict=True) if each], dtype=float)
    assert len(hearts) >= 0.9 * len(clear)
    assert np.corrcoef(hearts, truth)[0, 1] > 0.85
    assert 0.8 < np.median(hearts / truth) < 0.95


def test_a_wider_heart_is_measured_wider_and_lungs_stay() -> None:
    film = np.full((128, 128), 0.8, np.float32)
    film[20:108, 22:54], film[20:108, 74:106] = 0.2, 0.2
    wide = film.copy()
    wide[60:90, 44:84] = 0.8  # the heart
    narrow, wider = measure(film), measure(wide)
    assert narrow is not None
    assert wider is not None
    assert 17 <= narrow.heart_width <= 23
    assert 36 <= wider.heart_width <= 43
    assert abs(narrow.thorax_width - wider.thorax_width) <= 2
    assert 0.8 < wider.lung_area / narrow.lung_area < 1
    assert narrow.lung_gray == np.float32(0.2)
    assert narrow.ratio == narrow.heart_width / narrow.thorax_width


def test_where_no_lungs_are_nothing_is_measured() -> None:
    assert measure(np.full((64, 64), 0.5, np.float32)) is None
    assert measure(np.random.default_rng(0).random((64, 64)).astype(np.float32)) is None
