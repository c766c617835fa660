"""The letters that stand on films, as strokes of our own, so that a drawing library's choice of font changes no film."""

from __future__ import annotations

import cv2
import numpy as np

from engine.source.phantoms.projection import Array

# Polylines in a box of width 1 and height 1, y down.
STROKES: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "A": (((0, 1), (0.5, 0), (1, 1)), ((0.2, 0.64), (0.8, 0.64))),
    "B": (((0, 0.5), (0.7, 0.5), (1, 0.62), (1, 0.88), (0.7, 1), (0, 1), (0, 0), (0.65, 0), (0.92, 0.12), (0.92, 0.38), (0.7, 0.5)),),
    "E": (((1, 0), (0, 0), (0, 1), (1, 1)), ((0, 0.5), (0.8, 0.5))),
    "I": (((0.5, 0), (0.5, 1)),),
    "L": (((0, 0), (0, 1), (1, 1)),),
    "N": (((0, 1), (0, 0), (1, 1), (1, 0)),),
    "O": (((0.3, 0), (0.7, 0), (1, 0.25), (1, 0.75), (0.7, 1), (0.3, 1), (0, 0.75), (0, 0.25), (0.3, 0)),),
    "P": (((0, 1), (0, 0), (0.7, 0), (1, 0.13), (1, 0.42), (0.7, 0.55), (0, 0.55)),),
    "R": (((0, 1), (0, 0), (0.7, 0), (1, 0.13), (1, 0.40), (0.7, 0.53), (0, 0.53)), ((0.5, 0.53), (1, 1))),
    "S": (
        (
            (1, 0.12),
            (0.75, 0),
            (0.25, 0),
            (0, 0.14),
            (0, 0.36),
            (0.25, 0.5),
            (0.75, 0.5),
            (1, 0.64),
            (1, 0.86),
            (0.75, 1),
            (0.25, 1),
            (0, 0.88),
        ),
    ),
    "T": (((0, 0), (1, 0)), ((0.5, 0), (0.5, 1))),
    "U": (((0, 0), (0, 0.75), (0.25, 1), (0.75, 1), (1, 0.75), (1, 0)),),
}
WIDTH, GAP = 0.62, 0.30  # of a letter, and between two, relative to the height


def write(sheet: Array, text: str, at: tuple[float, float], *, height: float, stroke: int, gray: int, turn: float = 0.0) -> None:
    """Writes capital letters of STROKES on an 8-bit sheet: `at` is the upper left corner in pixels, `turn` in radians about it."""
    cos, sin = np.cos(turn), np.sin(turn)
    for place, letter in enumerate(text):
        for line in STROKES[letter]:
            points = np.array(line) * np.array([WIDTH, 1.0]) + np.array([place * (WIDTH + GAP), 0.0])
            points = height * points @ np.array([[cos, sin], [-sin, cos]]) + np.array(at)
            cv2.polylines(sheet, [np.round(points * 16).astype(np.int32).reshape(-1, 1, 2)], False, (gray,), stroke, cv2.LINE_AA, 4)
