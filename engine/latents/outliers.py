"""What a generator cannot draw on a film: bright thin lines that the film has and its reconstruction lacks, as one score and one place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from engine.errors import ConfigError
from engine.pictures import Image

SIDE = 512  # pixels of the films that are compared; larger ones are reduced: a wire of 1.5 mm is then 2 pixels wide
MARGIN = 1 / 6  # of a film's width, at its left and at its right, where radiographers put letters and workstations print words
LENGTH = 16 / 512  # of a film's side, over which a line is followed
APART = 3 / 512  # of a film's side, from the middle of a line to what must be darker beside it
WIDTH = 0.7  # pixels, standard deviation of a line's profile
DIRECTIONS = 16
STRONGEST = 5e-4  # share of the pixels between the margins that decide the score
FOLLOWED = 0.5  # of the score, down to which a line is followed for its box

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Outlier:
    """`score`: how much the strongest lines stand out of a film's others; 0 where nothing is left.

    `box`: x0 y0 x1 y1 around the strongest, x1 and y1 just outside, in pixels of the images compared; all 0 where nothing is left.
    """

    score: float
    box: Box


def check_margin(margin: float) -> None:
    """Raises ConfigError unless something of a film is left between its margins."""
    if not 0 <= margin <= 0.45:
        raise ConfigError(f"margin must be 0 to 0.45 of a film's width: {margin:g}")


def judge(film: Image, reconstruction: Image, *, margin: float = MARGIN) -> Outlier:
    """The score and place of one film [S, S] float32 in [0, 1] beside its reconstruction.

    The mean over the film of what `lines_missed` finds is the film's own unit, since ribs, vessels and grain are lines too, and sharper on
    some films than on others. The score is the STRONGEST quantile between the margins in that unit; the box is around the line
    that most of those pixels lie on. It needs no other film and no label. The idea that a residual shows what is foreign to a generator's
    films is Weber et al. 2022, section 3.1, who leave open how residuals are ranked.
    """
    missed = lines_missed(film, reconstruction)
    edge = round(margin * film.shape[1])
    inside = missed[:, edge : film.shape[1] - edge]
    level = float(np.quantile(inside, 1 - STRONGEST))
    drawn = missed[missed > 0]
    if level <= 0:
        return Outlier(0.0, (0, 0, 0, 0))
    x0, y0, x1, y1 = _strongest_part(inside, level)
    return Outlier(level / float(drawn.mean(dtype=np.float64)), (x0 + edge, y0, x1 + edge, y1))


def lines_missed(film: Image, reconstruction: Image) -> Image:
    """How much of a bright thin line goes through each pixel of the film and of film minus reconstruction alike: [S, S] float32, 0 or more.

    The lesser of both. A line that the reconstruction has is not in the residual; and beside a step of the film that the reconstruction has
    blurred, the residual has a line that the film has not.
    """
    return np.minimum(lines(film - reconstruction), lines(film))


def lines(image: Image) -> Image:
    """How much brighter a short straight line through each pixel is than the brighter of its two parallels: [S, S] float32, 0 or more.

    The greatest over DIRECTIONS directions. The brighter of the two, not their mean, so that the edge of something broad is no line.
    """
    side = image.shape[0]
    found = np.zeros(image.shape, np.float32)
    for direction in range(DIRECTIONS):
        angle = np.pi * direction / DIRECTIONS
        along = cv2.filter2D(image, cv2.CV_32F, _line_kernel(angle, max(LENGTH * side, 2.0)), borderType=cv2.BORDER_REFLECT_101)
        across = max(APART * side, 1.5) * np.array([-np.sin(angle), np.cos(angle)])
        beside = np.maximum(_moved(along, across), _moved(along, -across))
        np.maximum(found, along - beside, out=found)
    return found


@lru_cache(maxsize=4 * DIRECTIONS)
def _line_kernel(angle: float, length: float) -> Image:
    """Weights of a line of this direction (radians) and length (pixels), which add to 1."""
    reach = int(np.ceil(1.2 * length))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    weights = np.exp(-0.5 * (along / (length / 2)) ** 2 - 0.5 * (across / WIDTH) ** 2)
    kernel: Image = (weights / weights.sum()).astype(np.float32)
    return kernel


def _moved(image: Image, by: Image) -> Image:
    shift = np.array([[1, 0, by[0]], [0, 1, by[1]]], np.float32)
    return cv2.warpAffine(image, shift, image.shape[::-1], borderMode=cv2.BORDER_REPLICATE)


def _strongest_part(strength: Image, level: float) -> Box:
    """The box around a line: of what is joined at FOLLOWED of `level` or above, the part that holds most of what is at `level`."""
    reach = 2 * max(round(APART * len(strength)), 1) + 1
    followed = cv2.morphologyEx((strength >= FOLLOWED * level).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((reach, reach), np.uint8))
    parts, stats = cv2.connectedComponentsWithStats(followed, connectivity=8)[1:3]
    most = int(np.bincount(parts.ravel(), weights=np.where(strength >= level, strength, 0).ravel())[1:].argmax()) + 1
    x0, y0, across, down = (int(stats[most, which]) for which in (cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP, cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT))
    return x0, y0, x0 + across, y0 + down
