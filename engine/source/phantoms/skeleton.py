"""Bones: ribs, spine, collarbones, shoulder blades and arms, as hollow tubes and thin sheets in three dimensions."""

from __future__ import annotations

from functools import cache

import numpy as np

from engine.source.phantoms.clouds import GOLDEN, Cloud, ball, join, sheet, smooth_path, tube
from engine.source.phantoms.patient import Body, Patient
from engine.source.phantoms.projection import Array
from engine.source.phantoms.torso import lung_borders

FRONT = np.array([0.0, 0.0, 1.0])
UP = np.array([0.0, 1.0, 0.0])
# One entry a rib, first to twelfth: degrees from the spine round to the front end, how far it descends (cm), half its height (cm)
RIB_END = np.array([150, 148, 144, 141, 139, 137, 134, 127, 119, 108, 78, 52])
RIB_DROP = np.array([3.6, 5.6, 7.4, 8.8, 9.8, 10.6, 11.2, 11.2, 10.4, 9.0, 6.4, 4.2])
RIB_HALF = np.array([0.64, 0.58, 0.57, 0.58, 0.6, 0.61, 0.62, 0.62, 0.6, 0.55, 0.45, 0.36])


def build_skeleton(patient: Patient, wobble: Array) -> Cloud:
    """All bones of a patient. `wobble` [24, 3] standard normal numbers make each rib a little its own."""
    body = patient.body
    parts = [_ribs(body, wobble), _spine(body)]
    for side in (-1, 1):
        parts += [_collarbone(body, side, patient.view == "AP"), *_shoulder_blade(body, side), *_arm(body, side)]
    whole = join(parts)
    return Cloud(whole.points, whole.mass * body.bone)


def vertebra_y(body: Body, number: Array) -> Array:
    """Height of the middle of thoracic vertebra `number` (1 to 12; beyond them neck and loins)."""
    n: Array = np.asarray(number, dtype=float) - 1
    height: Array = body.scale * (1.85 * n + 0.038 * n * np.abs(n)) + 0.2
    return height


def spine_x(body: Body, y: Array) -> Array:
    """Where the bent spine stands at height y."""
    return body.curve * np.sin(np.pi * y / 26.0)


def _ribs(body: Body, wobble: Array) -> Cloud:
    steps, around = 240, 28
    number = np.tile(np.arange(12), 2)
    side = np.repeat([-1.0, 1.0], 12)[:, None]
    end = np.radians(RIB_END[number] * (1 + 0.015 * wobble[:, 0]))[:, None]
    share = np.linspace(0, 1, steps)[None, :]
    angle = np.radians(10) + share * (end - np.radians(10))
    t = angle / np.radians(140)
    drop = RIB_DROP[number][:, None] * body.slope * body.scale * (1 + 0.04 * wobble[:, 1:2])
    start = vertebra_y(body, number + 1)[:, None] - 0.3
    y = start + drop * t**1.65 - 0.55 * np.sin(np.pi * np.clip(t / 0.42, 0, 1)) + 0.12 * wobble[:, 2:3] * t
    _, lateral, depth = lung_borders(body, np.maximum(y, body.apex + 0.6))
    lateral, depth = lateral + 0.35, depth + 0.5
    across, front = np.sin(angle) ** 0.92, -np.cos(angle)
    path = np.stack([side * lateral * across + spine_x(body, y) * (1 - across), y, depth * front], axis=-1)
    outward = np.stack([side * across, np.zeros_like(y), front], axis=-1)
    half = RIB_HALF[number][:, None] * body.scale * (0.86 + 0.24 * share)
    fade = (
        (1 - 0.35 * share) * np.clip((1 - share) / 0.14, 0, 1) * np.clip(share / 0.02 + 0.3, 0, 1)
    )  # bone gives way to cartilage, which hardly shows
    return tube(path, outward, half, 0.34 * body.scale * np.ones_like(half), wall=0.14 * fade, around=around)


def _spine(body: Body) -> Cloud:
    """Twenty-one vertebrae, each the same shape made wider, taller and tilted to its place."""
    number = np.arange(-5, 16)
    y = vertebra_y(body, number)
    wide = (1.35 + 0.055 * (number + 2)) * body.scale
    tall = 0.5 * (vertebra_y(body, number + 1) - y) - 0.2
    pitch = 0.055 * (number - 7)  # the back is round: vertebrae tilt forward above its middle and backward below
    column, arch = _vertebra()
    body_points = column.points * np.stack([wide, tall, np.full(len(y), 1.35)], axis=-1)[:, None, :]
    arch_points = arch.points * np.stack([wide, 0.5 + 0.5 * tall, np.ones(len(y))], axis=-1)[:, None, :]
    points = np.concatenate([body_points, arch_points], axis=1)
    cos, sin = np.cos(pitch)[:, None], np.sin(pitch)[:, None]
    turned = np.stack([points[..., 0], points[..., 1] * cos - points[..., 2] * sin, points[..., 1] * sin + points[..., 2] * cos], axis=-1)
    place = np.stack([spine_x(body, y), y, np.full(len(y), -0.62 * body.half_depth)], axis=-1)
    mass = np.concatenate([column.mass * wide[:, None], np.tile(arch.mass, (len(y), 1))], axis=1)
    return Cloud((turned + place[:, None, :]).reshape(-1, 3), mass.reshape(-1))


@cache
def _vertebra() -> tuple[Cloud, Cloud]:
    """Body and arch of a vertebra of half-width 1, half-height 1 and half-depth 1, at the origin; masses as for half-width 1 cm."""
    waist = np.linspace(-1, 1, 24)
    shape = 0.88 + 0.12 * waist**2
    parts = [tube(waist[:, None] * UP, np.tile(FRONT, (24, 1)), shape, shape, wall=np.array(0.10), around=50)]
    rings = np.sqrt((np.arange(14) + 0.5) / 14)
    for end in (-1, 1):
        plate = end * UP + _oval(rings, 40)
        parts.append(Cloud(plate, np.full(len(plate), 0.12 * np.pi / len(plate))))
    arch = [_bar(np.array([0, 0.6, -2.4]), np.array([0, 1.6, -5.0]), 0.6, 0.2, 0.025)]
    for side in (-1, 1):
        root = np.array([side * 0.70, -0.2, -1.2])
        arch.append(_bar(root, _move(root, side * 0.1, 0.25, -1.5), 0.48, 0.24, 0.04))
        arch.append(_bar(_move(root, 0, 0.1, -1.4), _move(root, side * 1.0, -0.2, -2.2), 0.42, 0.4, 0.05))
    return join(parts), join(arch)


def _move(point: Array, x: float, y: float, z: float) -> Array:
    moved: Array = point + np.array([x, y, z])
    return moved


def _oval(rings: Array, count: int) -> Array:
    """Points [rings x count, 3] of a round plate of radius 1 that lies across the spine."""
    angle = (np.arange(count) / count + np.arange(len(rings))[:, None] * GOLDEN) * (2 * np.pi)
    flat = np.stack([rings[:, None] * np.cos(angle), np.zeros_like(angle), rings[:, None] * np.sin(angle)], axis=-1)
    return flat.reshape(-1, 3)


def _bar(start: Array, end: Array, tall: float, thick: float, wall: float) -> Cloud:
    """A straight tube between two points."""
    path = start + np.linspace(0, 1, 16)[:, None] * (end - start)
    across = np.cross(end - start, UP)
    if float(np.linalg.norm(across)) < 1e-6:
        across = FRONT
    return tube(path, np.tile(across, (16, 1)), np.array(tall), np.array(thick), wall=np.array(wall), around=22)


def _collarbone(body: Body, side: int, is_ap: bool) -> Cloud:
    low = (2.6 if is_ap else 4.0) * body.scale
    outer = body.half_width + 2.4
    high = body.shoulder - 1.6
    knots = np.array(
        [
            [2.1, low, 6.4],
            [0.32 * outer, low - 0.38 * (low - high), 7.4],
            [0.68 * outer, low - 0.82 * (low - high), 4.2],
            [outer, high, 0.2],
        ]
    )
    path = smooth_path(knots, 200) * np.array([side, 1, 1])
    at = np.linspace(-1, 1, 200)
    half = (0.56 + 0.28 * at**2) * body.scale
    return tube(path, np.tile(FRONT, (200, 1)), half, 0.55 * np.ones(200), wall=np.array(0.17), around=40)


def _shoulder_blade(body: Body, side: int) -> list[Cloud]:
    out = body.blade_shift
    top, socket_x = body.shoulder, body.half_width + 1.9
    turn = np.array([side, 1, 1])
    upper = np.array([0.62 * body.half_width + out, top + 0.6, -0.92 * body.half_depth])
    lower = np.array([0.78 * body.half_width + 1.15 * out, top + 14.0, -1.0 * body.half_depth])
    socket = np.array([socket_x + 0.25 * out, top + 2.6, -0.35 * body.half_depth])
    tip = np.array([socket_x + 1.9, top - 1.7, -0.2 * body.half_depth])
    coracoid = np.array([socket_x - 1.6, top + 0.6, 0.1 * body.half_depth])
    middle = 0.75 * upper + 0.25 * lower
    bars = [
        (np.stack([_move(socket, -0.4, 0.8, 0), _move(0.5 * (socket + lower), -0.9, 0.3, 0), lower]), 0.42, 0.13),
        (np.stack([upper, _move(0.5 * (upper + lower), -0.35, 0, 0), lower]), 0.12, 0.08),
        (np.stack([upper, _move(0.5 * (upper + socket), 0.2, -0.5, 0), _move(socket, -0.5, -1.4, 0)]), 0.16, 0.10),
        (np.stack([middle, _move(0.45 * middle + 0.55 * tip, 0, 0.9, -1), tip]), 0.42, 0.10),
        (np.stack([_move(socket, -0.9, -1.2, 0), _move(coracoid, -0.3, -0.5, 0), _move(coracoid, 0.5, 0.3, 1)]), 0.52, 0.12),
        (np.stack([_move(socket, 0, -1.5, 0), _move(socket, -0.25, 0, 0), _move(socket, 0, 1.6, 0)]), 0.30, 0.14),
    ]
    parts = [
        tube(smooth_path(path * turn, 150), np.tile(FRONT, (150, 1)), np.array(half), np.array(0.5), wall=np.array(wall), around=24)
        for path, half, wall in bars
    ]
    return [*parts, sheet(np.stack([upper, lower, socket]) * turn, 0.16, 130)]


def _arm(body: Body, side: int) -> list[Cloud]:
    head = np.array([side * (body.half_width + 3.9), body.shoulder + 2.0, -0.15 * body.half_depth])
    along = np.array([side * (0.08 + np.sin(body.arm_angle)), 1.0, 0.0])
    distance = np.linspace(0, 28, 230)
    half = (1.15 + 0.9 * np.exp(-distance / 2.0)) * body.scale
    wall = 0.12 + 0.2 * np.clip((distance - 3) / 6, 0, 1)
    shaft = tube(head + distance[:, None] * along, np.tile(FRONT, (230, 1)), half, half, wall=wall, around=60)
    return [shaft, ball(head, 2.3 * body.scale, wall=0.09, count=8000)]
