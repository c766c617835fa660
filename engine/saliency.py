"""Where on a film disease is seen: the parts of a residue map that stand out, as Tang et al. 2021 define their saliency maps (figure 1)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from engine.lung_box import Box

STEPS = 127  # of the stored residue, from 0 to 1 in the unit of films, which is 2 from black to white


def to_steps(residue: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A residue map, float in [-1, 1], as it is stored: i1, rounded to 1/127, which is one gray of 8 bits. What lies beyond is cut."""
    return np.asarray(np.rint(np.clip(residue, -1, 1) * STEPS), dtype=np.int8)


def saliency(stored: np.ndarray[Any, Any], box: Box, *, floor: float = 0.0) -> np.ndarray[Any, Any]:
    """A stored residue map i1 [R, R] -> u1 [R, R]: 0 outside the salient parts, and in them |residue| with 255 for its greatest there.

    |residue| is binarised with Otsu's threshold, taken from the pixels in the box (the paper says "adaptive" and no more); pieces,
    joined over corners too, that overlap with the box are kept whole. `floor`, in the unit of films: pixels below it are never
    salient; the paper has no such floor, and without it noise is salient on a film that has nothing else. Empty where no pixel stands out.
    """
    size = np.abs(stored.astype(np.int16)).astype(np.uint8)
    threshold = otsu(inside(size, box))
    if threshold is None:
        return np.zeros_like(size)
    salient = (size > threshold) & (size >= floor * STEPS)
    count, pieces = cv2.connectedComponents(salient.astype(np.uint8), connectivity=8)
    kept = np.zeros(count, dtype=bool)
    kept[np.unique(inside(pieces, box))] = True
    kept[0] = False  # what is not salient
    chosen = np.where(kept[pieces], size, 0)
    greatest = int(chosen.max())
    return np.rint(chosen * 255.0 / greatest).astype(np.uint8) if greatest else chosen.astype(np.uint8)


def otsu(values: np.ndarray[Any, Any]) -> int | None:
    """The value of u1 up to which all belong to the lower class: the one that sets two classes furthest apart (Otsu 1979, equation 18).

    None where all are equal. The lowest where several do.
    """
    counts = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below = np.cumsum(counts)
    above = below[-1] - below
    total = np.cumsum(counts * np.arange(256))
    splits = (below > 0) & (above > 0)
    if not splits.any():
        return None
    apart = np.zeros(256)
    means = total[splits] / below[splits], (total[-1] - total[splits]) / above[splits]
    apart[splits] = below[splits] * above[splits] * (means[0] - means[1]) ** 2
    return int(apart.argmax())


def inside(film: np.ndarray[Any, Any], box: Box) -> np.ndarray[Any, Any]:
    """The part of a map [R, R] that lies in a box."""
    x0, y0, x1, y1 = box
    return film[y0:y1, x0:x1]
