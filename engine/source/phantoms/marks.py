"""What the radiographer leaves on the film: a lead letter for the side, and words burned in by the workstation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from engine.source.phantoms.chance import about, between, happens
from engine.source.phantoms.letters import write
from engine.source.phantoms.patient import Patient
from engine.source.phantoms.projection import Array

SHEET = 1024  # marks are drawn at this size, whatever the film's, and resized


@dataclass(frozen=True, kw_only=True)
class Marks:
    """`marker` is "L", "R" or ""; `words` the burned-in lines; places in pixels of a film of 1024; `turn` of the letter in radians."""

    marker: str
    marker_at: tuple[float, float]
    marker_height: float
    turn: float
    words: tuple[str, ...]
    words_at: tuple[float, float]


def draw_marks(rng: Generator, patient: Patient) -> Marks:
    """The marks of one film. The letter names the patient's side, so "L" stands on the right of the film."""
    has_marker, on_left = happens(rng, 0.85), happens(rng, 0.6)
    x, y = between(rng, 30, 110), between(rng, 24, 200)
    height = between(rng, 34, 60)
    has_words = happens(rng, 0.85 if patient.view == "AP" else 0.25)
    words = ("PA",) if patient.view == "PA" else (("AP", "SUPINE", "PORTABLE") if patient.supine else ("AP", "PORTABLE"))
    on_right = happens(rng, 0.5)
    return Marks(
        marker=("L" if on_left else "R") if has_marker else "",
        marker_at=(SHEET - x - 40 if on_left else x, y),
        marker_height=height,
        turn=about(rng, 0.0, 0.12),
        words=words if has_words else (),
        words_at=(SHEET - 150 if on_right else 20, between(rng, 260, 860)),
    )


def print_marks(marks: Marks) -> Array:
    """How white letters make each pixel: u1 [SHEET, SHEET], 255 where nothing of the film shows through."""
    sheet = np.zeros((SHEET, SHEET), np.uint8)
    if marks.marker:
        write(sheet, marks.marker, marks.marker_at, height=marks.marker_height, stroke=8, gray=225, turn=marks.turn)
    for line, word in enumerate(marks.words):
        x, y = marks.words_at
        write(sheet, word, (x, y + 40 * line), height=14, stroke=2, gray=250)
    return sheet
