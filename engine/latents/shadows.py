"""What an edit adds to a lung, measured by plain gray levels: fluid at the base, a patch that one side alone has, the breasts' shadow."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from engine.lung_box import Box, find_lungs
from engine.pictures import Image

# Places are cells of the box around the lungs, which is laid on CELLS by CELLS of them; those of the film's left lung, and its mirror
# image's for the other one. Chosen on 400 phantoms (seed 901) and judged on 199 of 200 others (seed 902; one has no box), areas under the
# curve: fluid 0.98 for an effusion (correlation with its area 0.88), breast 0.89 for women (with its thickness 0.71), patch 0.86 for an
# opacity (0.88 where neither effusion nor pneumothorax is).
CELLS = 24
BASE_ROWS, BASE_COLUMNS = slice(14, 22), slice(2, 6)  # the outer half of a lung's base
FLUID_FROM, FLUID_FULL = 0.65, 0.95  # of the way from dark to bright: where a row of it begins to count as fluid, and where it does
FIELD_ROWS, FIELD_COLUMNS = slice(3, 13), slice(3, 6)  # lung that neither heart nor diaphragm hides
FINE, COARSE = 0.8, 2.0  # cells by which it is blurred: a patch is what is left between these two
BREAST_COLUMNS, UPPER_ROWS, BREAST_ROWS = slice(3, 8), slice(3, 6), slice(9, 13)  # above the breasts, and where they are thickest
DARK, BRIGHT = 20, 90  # percentiles of the gray within the box


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where the lungs of a film are, and the gray levels that count as dark and bright there. Films edited from it keep its frame."""

    box: Box
    dark: float
    bright: float

    @staticmethod
    def of(film: Image) -> Frame | None:
        """That of a film [S, S] in [0, 1], air dark; None where no two lungs are seen."""
        box = find_lungs(film * 2 - 1)
        if box is None:
            return None
        x0, y0, x1, y1 = box
        dark, bright = np.percentile(film[y0:y1, x0:x1], [DARK, BRIGHT])
        return Frame(box=box, dark=float(dark), bright=float(bright)) if bright > dark else None


@dataclass(frozen=True, kw_only=True)
class Shadows:
    """Gray is counted from the frame's dark (0) to its bright (1).

    `fluid`: how high a bright column stands in the outer base of the fuller lung, as a share of that base. `patch`: by how much a place of
    one lung is brighter than the same place of the other, at most. `breast`: gray of the middle of both lungs less that of their tops.
    """

    fluid: float
    patch: float
    breast: float


def measure_shadows(film: Image, frame: Frame) -> Shadows:
    """Of a film [S, S] in [0, 1], air dark, in its own frame or in that of the film it was edited from."""
    x0, y0, x1, y1 = frame.box
    cells = cv2.resize(film[y0:y1, x0:x1].astype(np.float32), (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    lung = (cells - frame.dark) / (frame.bright - frame.dark)
    both = lung, lung[:, ::-1]
    patches = cv2.GaussianBlur(lung, (0, 0), FINE) - cv2.GaussianBlur(lung, (0, 0), COARSE)
    return Shadows(
        fluid=max(_fluid(side) for side in both),
        patch=float(np.abs(patches - patches[:, ::-1])[FIELD_ROWS, FIELD_COLUMNS].max()),
        breast=float(np.mean([side[BREAST_ROWS, BREAST_COLUMNS].mean() - side[UPPER_ROWS, BREAST_COLUMNS].mean() for side in both])),
    )


def _fluid(side: Image) -> float:
    rows = side[BASE_ROWS, BASE_COLUMNS].mean(axis=1)
    return float(np.clip((rows - FLUID_FROM) / (FLUID_FULL - FLUID_FROM), 0, 1).mean())
