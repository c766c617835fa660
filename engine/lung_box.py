"""Where the lungs are on a frontal film, as one box around both: a plain search for two dark fields, with no learnt weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

FINDER = "dark-fields-1"  # in the fingerprint of archives; another one where boxes would be others
Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in pixels; x1 and y1 lie just outside."""

SIDE = 96  # pixels at which fields are looked for
LEVELS = 48  # gray levels that are tried as the border between a field and what surrounds it
PIECE = 0.008  # least area of a dark region that counts, as a share of the film: below it is bowel gas, or a gap between ribs
LEAST, MOST = 0.025, 0.30  # plausible area of one field, as a share of the film
FILL = 0.35  # least part of the box around a field that is dark; noise is scattered
RECESS = 0.22  # how far lungs reach below what is seen of them, behind the diaphragm, as a share of the height that is seen
DETAIL = 0.1  # lungs are sought on the film, and on what is left of it without its coarse shades: blurred by this share of it
EDGE = 0.02  # a lung's outer edge fades into the wall of the chest, as a share of the film


def find_lungs(film: np.ndarray[Any, Any]) -> Box | None:
    """The box around both lungs of a film [S, S] float or u1, air dark, any range; None where no two such fields are seen.

    A lung field is what is dark on one side of the film and reaches none of its edges, in one piece or several. Gray levels are tried from
    dark to bright, and of each side the largest field is kept: at a darker level less than all of the lung is seen, and at a brighter
    one it has run out into the air around the body. The box is a little wider (EDGE), and goes on downwards (RECESS), since lungs reach
    behind the diaphragm. Lungs that the film's edge cuts off are not found.
    """
    height, width = film.shape
    small = cv2.resize(film.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), SIDE / 64)
    fields: list[tuple[float, Box]] = [(0.0, (0, 0, 0, 0))] * 2
    for film_or_detail in (small, small - cv2.GaussianBlur(small, (0, 0), SIDE * DETAIL)):
        for level in np.quantile(film_or_detail, np.linspace(0.05, 0.75, LEVELS)):
            for side, field in enumerate(_fields(film_or_detail < level)):
                fields[side] = max(fields[side], field)
    if not all(_plausible(area, box) for area, box in fields):
        return None
    x0, y0, x1, y1 = around([box for _, box in fields])
    left, right, lower = max(0, x0 - EDGE * SIDE), min(SIDE, x1 + EDGE * SIDE), min(SIDE, y1 + RECESS * (y1 - y0))
    across, down = width / SIDE, height / SIDE
    return round(left * across), round(y0 * down), round(right * across), round(lower * down)


def whole(film: np.ndarray[Any, Any]) -> Box:
    """The box of a film on which no lungs were found: all of it."""
    return 0, 0, film.shape[1], film.shape[0]


def around(boxes: Sequence[Box]) -> Box:
    """The least box that holds them all."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def _plausible(area: float, box: Box) -> bool:
    x0, y0, x1, y1 = box
    return LEAST <= area <= MOST and area * SIDE**2 >= FILL * (x1 - x0) * (y1 - y0)


def _fields(dark: np.ndarray[Any, Any]) -> list[tuple[float, Box]]:
    """Of the left and the right half of the film: area of the dark regions that reach no edge, as a share of it, and their box."""
    _, _, stats, centres = cv2.connectedComponentsWithStats(dark.astype(np.uint8), connectivity=4)
    sides: list[list[tuple[float, Box]]] = [[], []]
    for (left, top, across, down, area), (x, _) in zip(stats[1:].tolist(), centres[1:].tolist(), strict=True):
        share, is_inside = area / SIDE**2, left > 0 and top > 0 and left + across < SIDE and top + down < SIDE
        if is_inside and PIECE <= share <= MOST:
            sides[int(x > SIDE / 2)].append((share, (left, top, left + across, top + down)))
    return [(sum(share for share, _ in side), around([box for _, box in side])) if side else (0.0, (0, 0, 0, 0)) for side in sides]
