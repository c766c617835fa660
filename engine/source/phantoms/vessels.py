"""Lung vessels: trees that leave the hilum, fork and thin out towards the ribs, as clouds of points."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.random import Generator

from engine.source.phantoms.clouds import Cloud, join
from engine.source.phantoms.patient import Body
from engine.source.phantoms.projection import Array
from engine.source.phantoms.torso import lung_borders

STEM = 11  # vessels that leave each hilum, arteries and veins together
LEVELS = 7
THICK_LEVELS = 3  # so many forks from the hilum, vessels are several pixels wide
THINNER = 0.76  # radius of a branch relative to the one it leaves
POINT_SPACING = 0.045  # cm along a vessel: about a pixel at 1024
SPOTS = 4096
THIN = 0.03  # cm: a vessel of this radius needs one point at each step, thicker ones need more
EVEN = (0.7548776662, 0.5698402910)  # multiples of these, modulo 1, fill a square evenly


def build_vessels(body: Body, rng: Generator, pixels: int) -> tuple[Cloud, Cloud]:
    """The vessels of both lungs: the thick ones near the hila, and the thin ones with points enough for a film of `pixels`."""
    trees = [piece for side in (-1, 1) for piece in _tree(body, side, rng, 1024 / pixels)]
    return join([cloud for level, cloud in trees if level < THICK_LEVELS]), join([cloud for level, cloud in trees if level >= THICK_LEVELS])


def _tree(body: Body, side: int, rng: Generator, coarser: float) -> list[tuple[int, Cloud]]:
    hilum = np.array([side * 3.4, 11.4 if side < 0 else 10.4, 0.0])
    count = 2 * STEM
    aim = np.linspace(-1.3, 1.5, count) + 0.1 * rng.standard_normal(count)
    heading = np.stack([side * np.cos(aim), np.sin(aim), 0.4 * rng.standard_normal(count)], axis=-1)
    start = hilum + rng.standard_normal((count, 3)) * np.array([0.5, 1.1, 0.8])
    radius = 0.30 * (0.65 + 0.6 * rng.random(count)) * np.where(aim > 0, 1.15, 0.8)
    pieces = []
    for level in range(LEVELS):
        heading /= np.linalg.norm(heading, axis=-1, keepdims=True)
        heading[:, 2] = np.clip(heading[:, 2], -0.6, 0.6)  # seen end-on, a vessel would be a dot
        length = (3.0 * 0.83**level) * (0.6 + 0.8 * rng.random(len(start)))
        bend = rng.standard_normal((len(start), 3)) * np.array([0.35, 0.35, 0.12])
        end, final = _bent(start, heading, bend, length)
        pieces.append(
            (level, _sample(start, heading, bend, length, radius * np.sqrt(body.markings), coarser if level >= THICK_LEVELS else 1.0))
        )
        start, heading, radius = _fork(end, final, radius, rng)
        keep = _inside(body, start, side)
        start, heading, radius = start[keep], heading[keep], radius[keep]
        if not len(start):
            break
    return pieces


def _bent(start: Array, heading: Array, bend: Array, length: Array) -> tuple[Array, Array]:
    """End and final heading of arcs."""
    return start + length[:, None] * (heading + 0.5 * bend), heading + bend


def _fork(end: Array, heading: Array, radius: Array, rng: Generator) -> tuple[Array, Array, Array]:
    """Two branches from each end, one carrying on and one turning off."""
    away = rng.standard_normal((len(end), 3)) * np.array([1.0, 1.0, 0.35])
    away -= np.sum(away * heading, axis=-1, keepdims=True) * heading
    away /= np.linalg.norm(away, axis=-1, keepdims=True) + 1e-6
    first, second = heading + 0.28 * away, heading - 0.75 * away
    sizes = THINNER * (0.85 + 0.3 * rng.random((2, len(end))))
    return np.concatenate([end, end]), np.concatenate([first, second]), np.concatenate([radius * sizes[0] * 1.05, radius * sizes[1] * 0.9])


def _inside(body: Body, points: Array, side: int) -> Array:
    medial, lateral, depth = lung_borders(body, points[:, 1])
    x = side * points[:, 0]
    low = points[:, 1] < body.dome + body.dome_height
    return (x > medial - 0.5) & (x < lateral - 0.5) & low & (np.abs(points[:, 2]) < depth)


def _sample(start: Array, heading: Array, bend: Array, length: Array, radius: Array, coarser: float) -> Cloud:
    """Points spread evenly through the bodies of bent vessels, more of them where a vessel is thick."""
    dense = np.clip(radius / (THIN * coarser), 1.0, 16.0)
    count = np.maximum((length / (POINT_SPACING * coarser) * dense).astype(np.int64), 4)
    owner = np.repeat(np.arange(len(start)), count)
    order = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    t = ((order + 0.5) / count[owner]).astype(np.float32)
    spot = _disc()[order % SPOTS]  # [points, 2]
    frame = np.concatenate([start, length[:, None] * heading, 0.5 * length[:, None] * bend, radius[:, None] * _across(heading)], axis=1)
    frame = frame.astype(np.float32)[owner]  # [points, 12]
    narrow = 1 - np.float32(0.2) * t
    points = frame[:, :3] + t[:, None] * (frame[:, 3:6] + t[:, None] * frame[:, 6:9]) + (spot[:, 0] * narrow)[:, None] * frame[:, 9:]
    points[:, 2] += spot[:, 1] * narrow * radius.astype(np.float32)[owner]
    mass = (np.pi * radius**2 * length / count).astype(np.float32)[owner] * narrow * narrow
    return Cloud(points, mass)


@cache
def _disc() -> Array:
    """Points [SPOTS, 2] that fill the unit disc evenly in any stretch of their order."""
    order = np.arange(SPOTS) + 0.5
    angle, out = 2 * np.pi * (order * EVEN[0] % 1), np.sqrt(order * EVEN[1] % 1)
    return np.stack([out * np.cos(angle), out * np.sin(angle)], axis=-1).astype(np.float32)


def _across(heading: Array) -> Array:
    """Unit vectors in the film's plane at right angles to the headings."""
    flat = np.stack([-heading[:, 1], heading[:, 0], np.zeros(len(heading))], axis=-1)
    unit: Array = flat / (np.linalg.norm(flat, axis=-1, keepdims=True) + 1e-6)
    return unit
