"""Who stands before the detector: the numbers that describe one body and how it was filmed, drawn once per film.

Lengths in cm, in the patient coordinates of projection.py. A number here is a habit of human bodies, not a measurement of one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from numpy.random import Generator

from engine.source.phantoms.chance import Stream, about, between, happens, stream
from engine.source.phantoms.projection import Projection

Sex = Literal["F", "M"]
View = Literal["PA", "AP"]


@dataclass(frozen=True, kw_only=True)
class Ellipsoid:
    """A rounded solid seen from the front: centre, half-axes on the film, turn in radians (clockwise), depth through its middle."""

    x: float
    y: float
    across: float
    along: float
    turn: float
    depth: float


@dataclass(frozen=True, kw_only=True)
class Body:
    """The anatomy of one patient. `scale` is 1 for a man of middle height; `girth` 0 is lean, 1 is obese."""

    sex: Sex
    age: int
    scale: float
    girth: float
    half_width: float  # of the rib cage inside, where it is widest
    half_depth: float
    apex: float  # y of the lungs' tops
    dome_right: float  # y of the diaphragm's tops
    dome_left: float
    dome_height: float  # from the top of a dome to the costophrenic angle
    slope: float  # how steeply ribs descend, 1 is usual
    curve: float  # sideways bend of the spine in cm
    shoulder: float  # y of the shoulder joints
    arm_angle: float  # of the upper arms away from the body, radians
    blade_shift: float  # of the shoulder blades outwards, cm: rolled forward for a PA film
    breast: float  # thickness in cm, 0 for none
    gas: float  # radius of the stomach bubble, 0 for none
    markings: float  # how full the lung vessels are, 1 is usual
    bone: float  # mineral, 1 is usual
    aorta: float  # radius of the knob
    heart: tuple[Ellipsoid, ...]

    @property
    def dome(self) -> float:
        """The higher dome's y."""
        return min(self.dome_right, self.dome_left)


@dataclass(frozen=True, kw_only=True)
class Patient:
    """A body, the way it was placed, and in which view."""

    body: Body
    view: View
    supine: bool
    projection: Projection


def draw_patient(seed: int, index: int) -> Patient:
    """The patient of film `index` in series `seed`; takes microseconds and touches no pixels."""
    rng = stream(seed, index, Stream.PATIENT)
    view: View = "AP" if happens(rng, 0.4) else "PA"
    supine = happens(rng, 0.6) and view == "AP"
    body = _draw_body(rng, view)
    return Patient(body=body, view=view, supine=supine, projection=_draw_projection(rng, body, view))


def _draw_body(rng: Generator, view: View) -> Body:
    sex: Sex = "F" if happens(rng, 0.47) else "M"
    age = int(between(rng, 19, 92))
    female = sex == "F"
    scale = about(rng, 0.94 if female else 1.02, 0.045)
    girth = min(max(about(rng, 0.38, 0.27), 0.0), 1.0)
    breath = about(rng, 0.0 if view == "PA" else -1.6, 1.1)  # cm of diaphragm, down is deeper
    dome = 22.0 * scale + breath - 1.2 * girth
    half_width = scale * about(rng, 13.0, 0.7) + 0.8 * girth
    lift = about(rng, 1.1, 0.7)
    ageing = max(age - 45, 0) / 45
    half_depth = scale * about(rng, 9.4, 0.7) + 1.1 * girth + 0.6 * ageing
    ratio = about(rng, 0.47 + 0.02 * ageing + 0.015 * girth, 0.055)
    return Body(
        sex=sex,
        age=age,
        scale=scale,
        girth=girth,
        half_width=half_width,
        half_depth=half_depth,
        apex=about(rng, -1.2, 0.6) * scale,
        dome_right=dome,
        dome_left=dome + lift,
        dome_height=about(rng, 5.4, 0.8) * scale,
        slope=about(rng, 1.0, 0.12) - (0.1 if view == "AP" else 0.0),
        curve=about(rng, 0.0, 0.5 + 0.4 * ageing),
        shoulder=about(rng, 1.2 if view == "PA" else 0.2, 0.8),
        arm_angle=about(rng, 0.33 if view == "PA" else 0.16, 0.1),
        blade_shift=about(rng, 2.2 if view == "PA" else -0.6, 0.8),
        breast=max(about(rng, 1.8 + 2.6 * girth, 0.9), 0.5) if female else max(about(rng, 2.4 * girth - 1.0, 0.4), 0.0),
        gas=max(about(rng, 0.8, 0.8), 0.0),
        markings=about(rng, 1.0 if view == "PA" else 1.15, 0.15),
        bone=about(rng, 1.0 if not female else 0.92 - 0.15 * ageing, 0.1),
        aorta=about(rng, 1.75 + 0.5 * ageing, 0.2),
        heart=_draw_heart(rng, ratio, half_width, dome + lift),
    )


def _draw_heart(rng: Generator, ratio: float, half_width: float, floor: float) -> tuple[Ellipsoid, ...]:
    """Chambers that together are `ratio` of the rib cage wide: right atrium, both ventricles and the outflow towards the great vessels."""
    width = 2 * half_width * ratio
    right = width * about(rng, 0.34, 0.03)
    left = width - right
    k = width / 12.5
    low = floor - about(rng, 2.9, 0.5)  # the height at which the heart is widest; its underside rests on the diaphragm
    turn = about(rng, 0.80, 0.12)
    atrium = Ellipsoid(x=-right + 4.1 * k, y=low - 1.6, across=4.1 * k, along=about(rng, 5.2, 0.3) * k, turn=0.0, depth=9.0 * k)
    long, short = 6.4 * k, about(rng, 4.9, 0.25) * k
    reach = half_extent(long, short, turn)
    ventricle = Ellipsoid(x=left - reach, y=low - 1.0, across=long, along=short, turn=turn, depth=10.5 * k)
    middle = Ellipsoid(x=0.1 * left, y=low + 0.6, across=0.31 * width + 1.2, along=4.2 * k, turn=0.12, depth=10.0 * k)
    shoulder = Ellipsoid(x=0.36 * left, y=low - 4.6 * k, across=3.2 * k, along=4.8 * k, turn=-0.45, depth=8.0 * k)
    outflow = Ellipsoid(x=0.8, y=low - 6.6 * k, across=3.4 * k, along=4.2 * k, turn=about(rng, -0.2, 0.1), depth=7.0 * k)
    return (atrium, ventricle, middle, shoulder, outflow)


def half_extent(across: float, along: float, turn: float) -> float:
    """Half the width of an ellipse with these half-axes, turned by `turn`."""
    return math.hypot(across * math.cos(turn), along * math.sin(turn))


def _draw_projection(rng: Generator, body: Body, view: View) -> Projection:
    """Fits the film to the body as a radiographer would, with a radiographer's errors."""
    front = body.half_depth + 2.5
    slack = about(rng, 1.0, 0.05) * (1.0 if view == "PA" else 1.07)
    field = max(2.5 * body.half_width + 3.4, 1.12 * (body.dome_left + body.dome_height - body.apex) + 2.5) * slack
    middle = (body.apex + body.dome_left + body.dome_height) / 2
    return Projection(
        field=field,
        centre=(about(rng, 0.0, 0.7), middle + about(rng, -0.3, 1.2)),
        tilt=about(rng, 0.0, 0.018 if view == "PA" else 0.045),
        yaw=about(rng, 0.0, 0.025 if view == "PA" else 0.06),
        source_distance=183.0 if view == "PA" else between(rng, 100, 130),
        detector_z=front if view == "PA" else -front,
    )
