"""Shadows on films, against the truth of phantoms."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from engine.classify.roc import auc
from engine.latents.shadows import Frame, measure_shadows
from engine.source.phantom import draw_labels, render_phantom

FILMS = 32


@pytest.fixture(scope="module")
def measured() -> dict[str, np.ndarray]:
    """Measures and truth of phantoms whose lungs are found."""
    found = []
    for index in range(FILMS):
        film = render_phantom(903, index, size=128).pixels.astype(np.float32) / 255
        frame, truth = Frame.of(film), draw_labels(903, index)
        if frame:
            effusion, is_hidden = truth["effusion_left"] or truth["effusion_right"], truth["pneumothorax"] != ""
            known = {
                "effusion": effusion,
                "opacity": truth["opacity"] != "",
                "sex": truth["sex"] == "F",
                "clear": not effusion and not is_hidden,
            }
            found.append(asdict(measure_shadows(film, frame)) | known)
    return {name: np.array([each[name] for each in found]) for name in found[0]}


def test_measures_tell_phantoms_with_a_finding_from_those_without(measured: dict[str, np.ndarray]) -> None:
    assert len(measured["sex"]) >= 0.95 * FILMS
    assert auc(measured["fluid"], measured["effusion"]) > 0.9
    assert auc(measured["breast"], measured["sex"]) > 0.8
    clear = measured["clear"]
    assert auc(measured["patch"][clear], measured["opacity"][clear]) > 0.75


def chest() -> np.ndarray:
    """Two dark fields in a bright body."""
    film = np.full((128, 128), 0.8, np.float32)
    film[20:108, 22:54], film[20:108, 74:106] = 0.2, 0.2
    return film


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [("fluid", slice(90, 108), slice(22, 54)), ("patch", slice(45, 55), slice(32, 42)), ("breast", slice(62, 78), slice(0, 128))],
)
def test_what_is_painted_on_a_film_is_what_grows(name: str, rows: slice, columns: slice) -> None:
    film = chest()
    frame = Frame.of(film)
    assert frame is not None
    assert (frame.dark, frame.bright) == (pytest.approx(0.2), pytest.approx(0.8))
    before = asdict(measure_shadows(film, frame))
    film[rows, columns] = 0.8
    after = asdict(measure_shadows(film, frame))
    assert after[name] > before[name] + 0.2
    assert max(after, key=lambda each: after[each] - before[each]) == name


def test_a_film_without_lungs_has_no_frame() -> None:
    assert Frame.of(np.full((64, 64), 0.5, np.float32)) is None
