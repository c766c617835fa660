"""Soft tissue and air: how many cm of each the beam meets, on an upright canvas, from closed forms of the body's solids.

Each solid is a chord: the length of a ray inside it. Air is what the lungs hold after heart, vessels and diaphragm took their share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.source.phantoms.patient import Body, Ellipsoid, Patient
from engine.source.phantoms.projection import Array

HEART_Z = 2.5
LUNG_Z = 0.0
SPINE_HALF = 1.8  # half-width of what the spine and its muscles keep free of lung


@dataclass(frozen=True)
class Torso:
    """Maps [canvas, canvas] float32 in cm on the upright canvas. `body` all that is not air outside; `air` by side of the patient;
    `room` the lungs' space before heart and diaphragm, by side; `heart` the chord of the heart alone; `thorax` bool, the space of both
    lungs down to the lowest recess; `other_air` windpipe and stomach."""

    body: Array
    air: dict[str, Array]
    room: dict[str, Array]
    heart: Array
    thorax: Array
    other_air: Array


def chord(distance_squared: Array) -> Array:
    """Relative length of a ray through a unit ball at a squared distance from its middle; 0 outside."""
    share: Array = np.sqrt(np.maximum(1 - distance_squared, 0))
    return share


def ellipsoid_chord(solid: Ellipsoid, x: Array, y: Array) -> Array:
    """Chord in cm of one ellipsoid on a canvas given by its axes x [1, n] and y [n, 1]."""
    cos, sin = np.float32(np.cos(solid.turn)), np.float32(np.sin(solid.turn))
    dx, dy = x - np.float32(solid.x), y - np.float32(solid.y)
    u = (dx * cos + dy * sin) / np.float32(solid.across)
    v = (dy * cos - dx * sin) / np.float32(solid.along)
    return np.float32(solid.depth) * chord(u * u + v * v)


def capsule_chord(x: Array, y: Array, start: tuple[float, float], end: tuple[float, float], radii: tuple[float, float]) -> Array:
    """Chord in cm of a round limb from `start` to `end` whose radius goes from the first to the second."""
    ax, ay = np.float32(start[0]), np.float32(start[1])
    bx, by = np.float32(end[0] - start[0]), np.float32(end[1] - start[1])
    t = np.clip(((x - ax) * bx + (y - ay) * by) / (bx * bx + by * by), 0, 1)
    dx, dy = x - ax - t * bx, y - ay - t * by
    radius = np.float32(radii[0]) + t * np.float32(radii[1] - radii[0])
    return 2 * np.sqrt(np.maximum(radius * radius - dx * dx - dy * dy, 0))


def union(*chords: Array) -> Array:
    """Chord of solids that grow together: the larger one, with a soft seam where they meet."""
    total = np.zeros_like(chords[0])
    for one in chords:
        squared = one * one
        total += squared * squared
    return np.sqrt(np.sqrt(total))


def lung_borders(body: Body, y: Array) -> tuple[Array, Array, Array]:
    """Medial and lateral border and half-depth of a lung at heights y [n, 1], in cm from the midline, as if nothing were in its way."""
    tip = 0.34 * body.half_width
    t = np.clip((y - body.apex) / (0.72 * (body.dome - body.apex)), 0, 1)
    near = np.clip((y - body.apex) / 4.2, 0, 1)
    lateral = tip + (body.half_width - tip) * (1 - (1 - t) ** 2.4) ** 0.57
    medial = tip - (tip - SPINE_HALF) * np.sqrt(1 - (1 - near) ** 2)
    below = np.clip((y - body.dome - 1) / 8, 0, 1)
    depth = body.half_depth * (0.12 + 0.88 * np.sqrt(1 - (1 - t) ** 2))
    return medial, lateral - 0.5 * below, depth


def thorax_floor(body: Body) -> float:
    """The height at which the deepest recess of the lungs ends."""
    return max(body.dome_right, body.dome_left) + body.dome_height


def lung_chord(body: Body, x: Array, y: Array, side: int) -> Array:
    """The lung's room along the ray, in cm, for side -1 (patient's right) or +1: round towards the ribs, steep towards the spine."""
    medial, lateral, depth = (part.astype(np.float32) for part in lung_borders(body, y))
    half = np.maximum((lateral - medial) / 2, np.float32(1e-3))
    u = (side * x - (lateral + medial) / 2) / half
    u2 = u * u
    squared = np.where(u < 0, u2 * u2, u2)
    inside = (y > body.apex).astype(np.float32)
    length: Array = 2 * depth * inside * chord(squared)
    return length


def dome_share(body: Body, x: Array, y: Array, room: Array, side: int) -> Array:
    """How much of the room lies above the diaphragm, in cm: the dome falls away to the front a little and to the back a lot."""
    top = body.dome_right if side < 0 else body.dome_left
    middle, half = 0.46 * body.half_width, 0.57 * body.half_width
    v = np.minimum(np.abs(side * x - middle) / half, 1.0)
    fall = np.where(side * x > middle, 1.25, 0.45) * body.dome_height * (1 - np.sqrt(1 - 0.97 * v * v))
    under = np.maximum(y - top - fall, 0).astype(np.float32)
    behind = np.sqrt(under / np.float32(0.05))  # half-chord of the dome: a parabola in depth
    before = np.sqrt(under / np.float32(0.20))
    half_room = room / 2
    crest = np.float32(1.5)
    posterior = np.clip(half_room + crest - behind, 0, room)
    above: Array = posterior + np.maximum(half_room - crest - before, 0)
    return above


def heart_chord(body: Body, x: Array, y: Array) -> Array:
    """Chord of the heart: its chambers grown together."""
    return union(*(ellipsoid_chord(chamber, x, y) for chamber in body.heart))


def mediastinum_chord(body: Body, x: Array, y: Array) -> Array:
    """Great vessels and hila: what stands beside the spine above the heart."""
    knob = body.aorta
    top = body.apex - 3
    reach = 1.9 + 0.9 * knob
    parts = (
        capsule_chord(x, y, (-0.9, top), (-2.1, 11.0), (1.5, 1.7)),  # superior vena cava
        capsule_chord(x, y, (1.0, top), (1.9, 7.0), (1.6, 1.6)),  # left subclavian, oesophagus
        ellipsoid_chord(Ellipsoid(x=reach - knob, y=6.6, across=knob * 1.1, along=knob * 1.15, turn=0.0, depth=2.6 * knob), x, y),
        capsule_chord(x, y, (reach - knob, 6.6), (1.2, 22.0), (0.82 * knob, 1.1)),  # descending aorta
        ellipsoid_chord(Ellipsoid(x=2.2, y=10.2, across=2.2, along=1.9, turn=0.5, depth=5.0), x, y),  # pulmonary trunk
    )
    return union(*parts)


def hila_chord(x: Array, y: Array) -> Array:
    """The roots of the lungs: soft knots of vessels, the left one higher."""
    right = np.exp(-(((x + 4.0) / 1.2) ** 2) - ((y - 11.6) / 1.9) ** 2)
    left = np.exp(-(((x - 4.2) / 1.1) ** 2) - ((y - 10.4) / 1.7) ** 2)
    return np.float32(2.4) * (right + left)


def trunk_chord(body: Body, x: Array, y: Array) -> Array:
    """Neck, shoulders and trunk as one solid of rounded cross-section."""
    wall = 2.2 + 3.2 * body.girth
    neck = 5.4 + 1.6 * body.girth
    shoulder = body.half_width + 3.8 + 1.2 * body.girth
    heights = np.array([-20, -8, -5.5, -4, body.shoulder - 2.2, body.shoulder, body.shoulder + 4, 9, 13, 22, 40])
    waist = body.half_width + wall
    widths = np.array(
        [neck, neck, neck + 0.6, neck + 2.4, shoulder - 3.5, shoulder, shoulder - 0.2, waist + 1.6, waist, waist, waist - 1 + body.girth]
    )
    deep = body.half_depth + 1.6 + 1.8 * body.girth
    depths = np.array([5.6, 5.8, 5.9, 6, 7.0, 0.72 * deep, 0.88 * deep, 0.97 * deep, deep, deep, deep * (0.98 + 0.15 * body.girth)])
    half = _smooth(y, heights, widths)
    depth = _smooth(y, heights, depths)
    u = np.abs(x) / half
    return 2 * depth * np.sqrt(np.maximum(1 - u * u * u, 0))


def _smooth(y: Array, heights: Array, values: Array) -> Array:
    """Piecewise linear through the given heights, rounded over about 3 cm; y and the result are [n, 1]."""
    fine = np.interp(y[:, 0], heights, values)
    step = float(y[1, 0] - y[0, 0])
    half = max(int(1.6 / step), 1)
    kernel = np.hanning(2 * half + 3)[1:-1]
    padded = np.pad(fine, half, mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid").astype(np.float32)[:, None]


def arm_chord(body: Body, x: Array, y: Array, side: int) -> Array:
    """The upper arm, hanging from the shoulder."""
    thick = 3.9 + 1.6 * body.girth
    start = (side * (body.half_width + 2.6), body.shoulder + 2.0)
    end = (side * (body.half_width + 4.6 + 30 * np.sin(body.arm_angle)), body.shoulder + 32.0)
    return capsule_chord(x, y, start, end, (thick + 0.4, thick))


def breast_chord(body: Body, x: Array, y: Array, side: int) -> Array:
    """A breast on the front wall: thin above, a clear fold below."""
    middle = 0.62 * body.half_width
    low = 14.5 * body.scale + 2.2 * body.girth
    half = 5.2 + 0.28 * body.breast
    dx = (side * x - middle) / half
    dy = (y - low) / np.where(y > low, 0.82 * half, 1.5 * half).astype(np.float32)
    inside = np.maximum(1 - dx * dx - dy * dy, 0)
    return np.float32(body.breast) * np.where(y > low, np.sqrt(inside * np.sqrt(inside)), inside)


def build_torso(patient: Patient, pixels: int) -> Torso:
    """All soft-tissue maps of a patient on the upright canvas of `pixels` squared."""
    body, projection = patient.body, patient.projection
    x, y = projection.axes(pixels, LUNG_Z)
    heart = heart_chord(body, *projection.axes(pixels, HEART_Z))
    centre = union(heart, mediastinum_chord(body, x, y))
    hila = hila_chord(x, y)
    room = {"right": lung_chord(body, x, y, -1), "left": lung_chord(body, x, y, 1)}
    air = {}
    for name, side in (("right", -1), ("left", 1)):
        above = dome_share(body, x, y, room[name], side)
        air[name] = np.maximum(above - 1.05 * centre - hila, 0)
    solid = trunk_chord(body, x, y)
    for side in (-1, 1):
        solid = union(solid, arm_chord(body, x, y, side))
    for side in (-1, 1):
        if body.breast > 0:
            solid = solid + breast_chord(body, *projection.axes(pixels, body.half_depth + 1), side)
    thorax = (room["left"] + room["right"] > 0) & (y <= thorax_floor(body))
    return Torso(body=solid, air=air, room=room, heart=heart, thorax=thorax, other_air=other_air_chord(body, x, y))


def other_air_chord(body: Body, x: Array, y: Array) -> Array:
    """Air outside the lungs: windpipe, main bronchi, and the stomach's bubble under the left dome."""
    carina = 8.4
    tube = capsule_chord(x, y, (0.0, -20.0), (-0.35, carina), (1.0, 0.95))
    right = capsule_chord(x, y, (-0.35, carina), (-3.2, carina + 3.0), (0.75, 0.55))
    left = capsule_chord(x, y, (-0.35, carina), (3.6, carina + 3.2), (0.65, 0.5))
    airways = union(tube, right, left)
    if body.gas <= 0.3:
        return airways
    bubble = Ellipsoid(
        x=0.42 * body.half_width, y=body.dome_left + 0.9 + body.gas, across=1.6 * body.gas, along=body.gas, turn=-0.1, depth=2.4 * body.gas
    )
    return airways + ellipsoid_chord(bubble, x, y)
