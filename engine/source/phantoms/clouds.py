"""Fine structures as clouds of points that carry mass; projected and binned, they cast the shadow that the real thing would cast.

A hollow bone shows its bright rims, and a rib that turns along the beam shows denser, because the points say so; nothing is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.source.phantoms.projection import Array, Projection

GOLDEN = 0.6180339887
RIM = (0.8, 0.5)  # bone is thicker along the edges that the film shows in profile


@dataclass(frozen=True)
class Cloud:
    """Points [n, 3] in cm and what each weighs: `mass` [n] in cm3 of its material."""

    points: Array
    mass: Array


def join(clouds: list[Cloud]) -> Cloud:
    """Several clouds as one."""
    return Cloud(np.concatenate([c.points for c in clouds]), np.concatenate([c.mass for c in clouds]))


def smooth_path(knots: Array, count: int) -> Array:
    """A curve [count, d] through the given knots [k, d]: Catmull-Rom, evenly in parameter."""
    ends = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    at = np.linspace(0, len(knots) - 1, count)
    i = np.minimum(at.astype(int), len(knots) - 2)
    t = (at - i)[:, None]
    a, b, c, d = ends[i], ends[i + 1], ends[i + 2], ends[i + 3]
    curve: Array = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return curve


def tube(path: Array, outward: Array, tall: Array, thick: Array, *, wall: Array, around: int) -> Cloud:
    """The hollow wall of a bent oval tube, or of many at once.

    `path` [..., k, 3]; `outward` [..., k, 3] a direction that is roughly across the path; half-axes `tall` (across both) and
    `thick` (along `outward`) and the `wall` in cm, each broadcastable to [..., k]; `around` points on each ring.
    """
    step = np.gradient(path, axis=-2)
    length = np.linalg.norm(step, axis=-1, keepdims=True) + 1e-9
    tangent = step / length
    normal = outward - np.sum(outward * tangent, axis=-1, keepdims=True) * tangent
    normal = normal / (np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9)
    side = np.cross(tangent, normal)
    turns = np.arange(path.shape[-2])[:, None] * GOLDEN  # rings are staggered, else their points line up into a pattern on the film
    angle = (np.arange(around) / around + turns) * (2 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    tall, thick, wall = (np.broadcast_to(part, path.shape[:-1])[..., None] for part in (tall, thick, wall))
    points = path[..., None, :] + (tall * cos)[..., None] * side[..., None, :] + (thick * sin)[..., None] * normal[..., None, :]
    mass = wall * length * np.sqrt((tall * sin) ** 2 + (thick * cos) ** 2) * (2 * np.pi / around) * (RIM[0] + RIM[1] * cos**4)
    return Cloud(points.reshape(-1, 3), mass.reshape(-1))


def sheet(corners: Array, wall: float, count: int) -> Cloud:
    """A flat triangle [3, 3] of bone `wall` cm thick."""
    at = (np.arange(count) + 0.5) / count
    u, v = np.tile(at, count), np.repeat(at, count)
    root = np.sqrt(u)
    shares = (1 - root, root * (1 - v), root * v)
    area = 0.5 * float(np.linalg.norm(np.cross(corners[1] - corners[0], corners[2] - corners[0])))
    points = shares[0][:, None] * corners[0] + shares[1][:, None] * corners[1] + shares[2][:, None] * corners[2]
    return Cloud(points, np.full(len(u), wall * area / len(u)))


def ball(middle: Array, radius: float, *, wall: float, count: int) -> Cloud:
    """A hollow ball of bone, its points laid out in a spiral from pole to pole."""
    order = np.arange(count)
    height = 1 - 2 * (order + 0.5) / count
    angle = 2 * np.pi * GOLDEN * order
    level = np.sqrt(1 - height**2)
    points = middle + radius * np.stack([level * np.cos(angle), level * np.sin(angle), height], axis=-1)
    return Cloud(points, np.full(count, 4 * np.pi * radius**2 * wall / count))


def cast(cloud: Cloud, projection: Projection, pixels: int) -> Array:
    """The shadow of a cloud on a film of `pixels` squared: float32 [pixels, pixels], path length in cm of the cloud's material.

    Each point falls into one pixel; the caller blurs the shadow by a pixel or so, as focal spot and scintillator would.
    """
    points = cloud.points.astype(np.float32)
    larger = projection.magnification(points[:, 2])
    weight = cloud.mass * (larger * larger / np.float32(projection.plane_area(pixels)))
    at = projection.to_film(points) * np.float32(pixels)
    inside = np.all((at >= 0) & (at < pixels), axis=-1)
    at, weight = at[inside].astype(np.int32), weight[inside]
    shadow = np.bincount(at[:, 1] * pixels + at[:, 0], weights=weight, minlength=pixels * pixels)
    return shadow.reshape(pixels, pixels).astype(np.float32)
