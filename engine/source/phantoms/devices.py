"""Tubes, wires and cases in and on the patient: bright lines along paths in three dimensions."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from engine.source.phantoms.chance import about, between
from engine.source.phantoms.clouds import smooth_path
from engine.source.phantoms.findings import Devices
from engine.source.phantoms.patient import Body, Patient
from engine.source.phantoms.projection import Array

SHEET = 1024  # devices are drawn at this size, whatever the film's, and resized
UNIT = 90.0  # gray levels of the drawing that stand for an attenuation of 1


class Drawing:
    """An 8-bit sheet on which attenuation is drawn with smooth edges."""

    def __init__(self, patient: Patient) -> None:
        self.sheet = np.zeros((SHEET, SHEET), np.uint8)
        self.projection = patient.projection
        self.pixels_per_cm = SHEET / patient.projection.field

    def path(self, knots: list[tuple[float, float, float]], width: float, attenuation: float) -> Array:
        """A wire `width` cm thick along a curve through `knots`; returns its points in cm."""
        curve = smooth_path(np.array(knots, dtype=float), 24 * len(knots))
        self._stroke(curve, width, attenuation)
        return curve

    def _stroke(self, curve: Array, width: float, attenuation: float) -> None:
        points = np.round(self.projection.to_film(curve) * SHEET * 16).astype(np.int32)
        thick = max(round(width * self.pixels_per_cm), 1)
        cv2.polylines(self.sheet, [points.reshape(-1, 1, 2)], False, _level(attenuation), thick, cv2.LINE_AA, 4)

    def blob(self, outline: Array, attenuation: float) -> None:
        """A filled plate with the given outline [n, 3] in cm."""
        points = np.round(self.projection.to_film(outline) * SHEET * 16).astype(np.int32)
        cv2.fillPoly(self.sheet, [points.reshape(-1, 1, 2)], _level(attenuation), cv2.LINE_AA, 4)


def _level(attenuation: float) -> tuple[float, ...]:
    return (float(min(round(attenuation * UNIT), 255)),)


def draw_devices(devices: Devices, patient: Patient, rng: Generator) -> Array:
    """Attenuation of all devices: float32 [SHEET, SHEET]. `rng` shapes paths; every device draws from its own child stream."""
    drawing, body = Drawing(patient), patient.body
    pacer, tube, feeding, line, leads = rng.spawn(5)
    if devices.leads:
        _ecg_leads(drawing, body, leads)
    if devices.endotracheal_tube:
        _endotracheal_tube(drawing, tube)
    if devices.nasogastric_tube:
        _nasogastric_tube(drawing, body, feeding)
    if devices.central_line:
        _central_line(drawing, body, line)
    if devices.pacemaker:
        _pacemaker(drawing, body, 1 if devices.pacemaker == "left" else -1, pacer)
    soft = cv2.GaussianBlur(drawing.sheet, (3, 3), 0.6)
    return soft.astype(np.float32) / np.float32(UNIT)


def _pacemaker(drawing: Drawing, body: Body, side: int, rng: Generator) -> None:
    """A case under the collarbone, and leads through the vein into the right heart."""
    z = body.half_depth + 1.5
    x, y = side * about(rng, 0.70 * body.half_width, 0.4), about(rng, 5.6, 0.6)
    vein = [(side * 7.6, 3.6, 5.0), (side * 4.2, 2.4, 4.5), (side * 1.6 - 0.6, 3.4, 4.0), (-2.4, 6.2, 3.0), (-2.7, 10.5, 2.0)]
    apex = max(body.heart, key=lambda chamber: chamber.x)
    start = (x - side * 0.6, y - 2.2, z)
    tip = (apex.x + 0.25 * apex.across, apex.y + 0.75 * apex.along, 4.0)
    for extra in range(1 + int(rng.random() < 0.6)):
        lead = (
            [start, *vein, (-2.6, apex.y - 0.5, 3.0), (0.6, tip[1] + 0.6, 4.0), tip]
            if not extra
            else [start, *vein, (-3.2, 13.0, 3.0), (-1.6, 12.6, 5.0)]
        )
        curve = drawing.path(lead, 0.13, 0.9)
        drawing.path([tuple(p) for p in curve[-4:]], 0.22, 2.2)
    angle = np.linspace(0, 2 * np.pi, 60)
    squarish = (np.abs(np.cos(angle)) ** 3 + np.abs(np.sin(angle)) ** 3) ** (-1 / 3)
    turn = about(rng, 0.0, 0.25)
    for size, weight in ((1.0, 1.7), (0.9, 1.45), (0.55, 2.3)):
        across, down = (
            1.75 * size * squarish * np.cos(angle),
            2.05 * size * squarish * np.sin(angle) + (0.5 * (1 - size) if size > 0.6 else 0.8),
        )
        outline = np.stack(
            [x + across * np.cos(turn) - down * np.sin(turn), y + across * np.sin(turn) + down * np.cos(turn), 0 * angle + z], axis=-1
        )
        drawing.blob(outline, weight)


def _endotracheal_tube(drawing: Drawing, rng: Generator) -> None:
    """A tube in the windpipe that ends above its fork, with a dense stripe."""
    end = between(rng, 3.0, 6.2)
    for shift, width, weight in ((-0.42, 0.07, 0.25), (0.42, 0.07, 0.25), (0.30, 0.14, 0.85)):
        drawing.path([(0.2 + shift, -14, 0), (shift, -5, 0), (shift - 0.1, 1, 0), (shift - 0.1, end, 0)], width, weight)


def _nasogastric_tube(drawing: Drawing, body: Body, rng: Generator) -> None:
    """Down the gullet, through the diaphragm, into the stomach."""
    low = body.dome_left
    bow = about(rng, 0.0, 0.3)
    knots: list[tuple[float, float, float]] = [
        (0.4, -14, -2),
        (0.6 + bow, -2, -2),
        (0.5, 7, -2),
        (0.7 - bow, 14, -1),
        (1.4, low - 1, 0),
        (3.4, low + 3, 1),
        (5.4, low + 3.6, 2),
    ]
    drawing.path(knots, 0.17, 0.75)


def _central_line(drawing: Drawing, body: Body, rng: Generator) -> None:
    """From the neck or from under a collarbone into the upper vena cava."""
    end = (-2.6, between(rng, 7.0, 11.0), 2.0)
    routes = (
        [(-4.0, -12.0, 2.0), (-3.4, -5.0, 2.5), (-3.0, 0.5, 3.0), (-2.6, 5.0, 3.0), end],
        [(-9.5, 4.6, 7.0), (-6.5, 2.8, 5.0), (-3.6, 2.6, 4.0), (-2.6, 5.0, 3.0), end],
        [(10.0, 4.8, 7.0), (6.0, 2.2, 5.0), (1.0, 3.2, 4.0), (-2.2, 5.4, 3.0), end],
    )
    drawing.path(routes[int(rng.integers(3))], 0.15, 0.7)


def _ecg_leads(drawing: Drawing, body: Body, rng: Generator) -> None:
    """Three electrodes on the skin and their wires."""
    z = body.half_depth + 2.5
    gather = (about(rng, 0.0, 6.0), 34.0, z)
    for x, y in ((-0.72, 3.5), (0.74, 3.0), (0.78, 19.0)):
        spot = (x * body.half_width + about(rng, 0, 0.8), y + about(rng, 0, 1.0), z)
        middle = (0.55 * spot[0] + 0.45 * gather[0] + about(rng, 0, 2.5), 0.6 * spot[1] + 13.0 + about(rng, 0, 2.0), z)
        drawing.path([spot, (spot[0] * 1.02, spot[1] + 2.5, z), middle, gather], 0.10, 0.45)
        angle = np.linspace(0, 2 * np.pi, 24)
        drawing.blob(np.stack([spot[0] + 0.55 * np.cos(angle), spot[1] + 0.55 * np.sin(angle), 0 * angle + z], axis=-1), 0.7)
