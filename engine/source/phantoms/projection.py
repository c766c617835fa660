"""The geometry of the X-ray room: from a point in the patient to a point on the film, and back at a known depth.

Patient coordinates are centimetres: x to the patient's left (right on the film), y down from the first thoracic vertebra, z to the front.
The detector plane has the same axes; film coordinates run from 0 to 1 across and down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
MARGIN = 1.16  # the upright canvas is this much wider than the film, so that a tilted film still finds tissue in its corners


@dataclass(frozen=True, kw_only=True)
class Projection:
    """A cone beam: source, patient turned by `yaw`, detector, and the film cut out of the detector plane.

    `field` is the width of the film in cm; `centre` the point of the detector plane in the film's middle; `tilt` turns the film;
    `source_distance` and `detector_z` in cm: the detector touches the front of a PA patient and the back of an AP one.
    """

    field: float
    centre: tuple[float, float]
    tilt: float
    yaw: float
    source_distance: float
    detector_z: float

    def magnification(self, z: Any) -> Any:
        """How much larger than life a thing at depth z appears on the detector plane."""
        return self.source_distance / (self.source_distance - np.abs(z - self.detector_z))

    def to_film(self, points: Array) -> Array:
        """Patient points [..., 3] in cm -> film points [..., 2] (0 to 1 inside the film)."""
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        depth = z * math.cos(self.yaw) - x * math.sin(self.yaw)
        larger = self.magnification(depth)
        across = (x * math.cos(self.yaw) + z * math.sin(self.yaw)) * larger - self.centre[0]
        down = (y - BEAM_Y) * larger + BEAM_Y - self.centre[1]
        cos, sin = math.cos(self.tilt) / self.field, math.sin(self.tilt) / self.field
        return np.stack([across * cos + down * sin + 0.5, down * cos - across * sin + 0.5], axis=-1)

    def flat_to_film(self, x: Any, y: Any, z: float) -> Array:
        """Points of the plane at depth z, as `axes` cuts it, -> film points [..., 2]. The exact inverse of the canvas and its warp."""
        larger = float(self.magnification(z))
        across = (x * math.cos(self.yaw) + z * math.sin(self.yaw)) * larger - self.centre[0]
        down = (y - BEAM_Y) * larger + BEAM_Y - self.centre[1]
        cos, sin = math.cos(self.tilt) / self.field, math.sin(self.tilt) / self.field
        return np.stack([across * cos + down * sin + 0.5, down * cos - across * sin + 0.5], axis=-1)

    def axes(self, pixels: int, z: float) -> tuple[Array, Array]:
        """Where the upright canvas of `pixels` squared cuts depth z: x as a row [1, pixels], y as a column [pixels, 1], in cm, float32."""
        plane = ((np.arange(pixels) + 0.5) / pixels - 0.5) * self.field * MARGIN
        larger = float(self.magnification(z))
        x = ((plane + self.centre[0]) / larger - z * math.sin(self.yaw)) / math.cos(self.yaw)
        y = (plane + self.centre[1] - BEAM_Y) / larger + BEAM_Y
        return x.astype(np.float32)[None, :], y.astype(np.float32)[:, None]

    def canvas_to_film(self, pixels: int, size: int) -> Array:
        """The matrix [2, 3] by which cv2.warpAffine with WARP_INVERSE_MAP lays the upright canvas on a film of `size` pixels."""
        scale = pixels / (MARGIN * size)
        cos, sin = math.cos(self.tilt) * scale, math.sin(self.tilt) * scale
        half = (size - 1) / 2
        middle = (pixels - 1) / 2
        return np.array([[cos, -sin, middle - cos * half + sin * half], [sin, cos, middle - sin * half - cos * half]])

    def plane_area(self, pixels: int) -> float:
        """Area in cm2 of one of `pixels` squared film pixels on the detector plane."""
        return (self.field / pixels) ** 2


BEAM_Y = 10.0  # the central ray enters at this height, about the middle of the lungs
