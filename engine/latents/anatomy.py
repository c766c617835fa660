"""What a frontal film measures, by plain image processing: how wide the heart is, how large the lungs, how dark they are."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from engine.lung_box import Box, find_lungs
from engine.pictures import Image

# All as shares of the box around the lungs. Chosen on 150 phantoms: the heart's width correlates with the true one by 0.93 where nothing
# hides its border, and is 0.86 of it.
MIDDLE = (0.35, 0.65)  # where the midline is sought, across
ROWS = (0.45, 0.75)  # where the heart is widest, down
FIELDS = (0.08, 0.40)  # where a lung is dark beside it, from the outside in
EDGE = 0.4  # of the way from the dark of a lung to the bright of the midline: where the heart begins
WIDEST = 70  # percentile of the widths of these rows


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """Lengths in pixels of the film, the area as a share of it; gray in [0, 1]. `lung_gray`: the median of what is dark within the box."""

    heart_width: float
    thorax_width: float
    lung_area: float
    lung_gray: float

    @property
    def ratio(self) -> float:
        """Heart over chest."""
        return self.heart_width / self.thorax_width


def measure(film: Image, box: Box | None = None) -> Anatomy | None:
    """A film [S, S] in [0, 1], air dark; None where no two lungs are seen, or no border of a heart between them.

    `box`: where its lungs are, such as those of the film that it was edited from; left out, they are looked for. A finding beside the
    heart counts as heart: of films with opacities or effusions the width says little.
    """
    box = find_lungs(film * 2 - 1) if box is None else box
    if box is None:
        return None
    x0, y0, x1, y1 = box
    inner = cv2.GaussianBlur(film.astype(np.float32), (0, 0), max(film.shape[0] / 100, 0.5))[y0:y1, x0:x1]
    widths = _widths(inner)
    if len(widths) < 5:
        return None
    dark, bright = np.percentile(inner, [20, 90])
    lung = inner < (dark + bright) / 2
    return Anatomy(
        heart_width=float(np.percentile(widths, WIDEST)),
        thorax_width=float(x1 - x0),
        lung_area=float(lung.sum() / film.size),
        lung_gray=float(np.median(inner[lung])),
    )


def _widths(inner: Image) -> list[int]:
    """Of each row of the heart: pixels from the midline to where the lung is dark, to both sides; rows that never get dark are left out."""
    height, width = inner.shape
    band = cv2.GaussianBlur(inner[int(height * 0.3) : int(height * 0.6)].mean(axis=0)[None], (0, 0), max(width / 20, 0.5))[0]
    first, last = (int(width * share) for share in MIDDLE)
    middle, near, outer, inside = first + int(np.argmax(band[first:last])), max(1, width // 40), *(int(width * share) for share in FIELDS)
    found = []
    for row in inner[int(height * ROWS[0]) : int(height * ROWS[1])]:
        top = row[max(0, middle - near) : middle + near + 1].mean()
        left, right = row[:middle][::-1], row[middle:]
        fields = row[outer:inside], row[width - inside : width - outer]
        borders = [
            np.flatnonzero(side <= np.percentile(field, 15) * (1 - EDGE) + top * EDGE)
            for side, field in zip((left, right), fields, strict=True)
        ]
        if all(len(border) for border in borders):
            reach = [int(border[0]) for border in borders]
            if reach[0] < middle - 0.05 * width and reach[1] < width * 0.95 - middle:
                found.append(sum(reach) + 1)
    return found
