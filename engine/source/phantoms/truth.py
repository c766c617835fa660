"""What is known about a film: its labels, without rendering, and its masks, from the maps that made it."""

from __future__ import annotations

import math

import cv2
import numpy as np

from engine.source.phantoms.chance import Stream
from engine.source.phantoms.devices import draw_devices
from engine.source.phantoms.disease import Chest
from engine.source.phantoms.film import Scene, to_film
from engine.source.phantoms.findings import Findings, Nodule, Opacity
from engine.source.phantoms.patient import Patient
from engine.source.phantoms.projection import Array
from engine.source.phantoms.torso import HEART_Z, LUNG_Z, Torso, lung_borders, thorax_floor

Label = str | bool | int | float | None
OPACITY_SHOWN = 0.86  # relative radius within which an opacity is seen; outside it fades away


def labels_of(scene: Scene, size: int, without: tuple[str, ...] = ()) -> dict[str, Label]:
    """The labels of a film of `size` pixels, in a fixed order. Lengths and places are in pixels, None where nothing is there."""
    patient, findings = scene.patient, scene.findings.without(without)
    heart, thorax = heart_width(patient) * size, thorax_width(patient) * size
    ratio = round(heart / thorax, 4)
    sides = {effusion.side for effusion in findings.effusions}
    devices = findings.devices
    return {
        "view": patient.view,
        "sex": patient.body.sex,
        "age": patient.body.age,
        "cardiothoracic_ratio": ratio,
        "cardiomegaly": ratio > 0.5,
        "heart_width": round(heart, 2),
        "thorax_width": round(thorax, 2),
        "effusion_left": "left" in sides,
        "effusion_right": "right" in sides,
        **_opacity_labels(findings, patient, size),
        **_nodule_labels(findings, patient, size),
        "pneumothorax": findings.pneumothorax.side if findings.pneumothorax else "",
        "device": devices.present,
        "pacemaker": devices.pacemaker,
        "endotracheal_tube": devices.endotracheal_tube,
        "nasogastric_tube": devices.nasogastric_tube,
        "central_line": devices.central_line,
        "ecg_leads": devices.leads,
        "side_marker": scene.marks.marker,
        "text": " ".join(scene.marks.words),
    }


def _opacity_labels(findings: Findings, patient: Patient, size: int) -> dict[str, Label]:
    names = ("opacity_x0", "opacity_y0", "opacity_x1", "opacity_y1")
    if findings.opacity is None:
        return {"opacity": "", **dict.fromkeys(names)}
    return {"opacity": findings.opacity.side, **dict(zip(names, box_of(_opacity_mask(findings.opacity, patient, size)), strict=True))}


def _nodule_labels(findings: Findings, patient: Patient, size: int) -> dict[str, Label]:
    if findings.nodule is None:
        return {"nodule": "", "nodule_x": None, "nodule_y": None, "nodule_radius": None}
    nodule = findings.nodule
    x, y = patient.projection.flat_to_film(nodule.x, nodule.y, LUNG_Z) * size - 0.5
    radius = nodule.radius * float(patient.projection.magnification(LUNG_Z)) / patient.projection.field * size
    return {"nodule": nodule.side, "nodule_x": round(float(x), 2), "nodule_y": round(float(y), 2), "nodule_radius": round(radius, 2)}


def box_of(mask: Array) -> tuple[int, int, int, int]:
    """The first and last column and row of a mask that is not empty, as (x0, y0, x1, y1): x1 and y1 lie just outside."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def heart_width(patient: Patient) -> float:
    """From the heart's outermost point on the film's left to that on its right, as a share of the film; exact for tilted films."""
    projection = patient.projection
    larger = float(projection.magnification(HEART_Z)) / projection.field
    right_axis, down_axis = math.cos(projection.tilt) * math.cos(projection.yaw) * larger, math.sin(projection.tilt) * larger
    edges = []
    for part in patient.body.heart:
        middle = float(projection.flat_to_film(part.x, part.y, HEART_Z)[0])
        cos, sin = math.cos(part.turn), math.sin(part.turn)
        reach = math.hypot(part.across * (right_axis * cos + down_axis * sin), part.along * (down_axis * cos - right_axis * sin))
        edges.append((middle - reach, middle + reach))
    return max(edge[1] for edge in edges) - min(edge[0] for edge in edges)


def thorax_width(patient: Patient) -> float:
    """The greatest width of the rib cage inside, as a share of the film."""
    body = patient.body
    y = np.linspace(body.apex, thorax_floor(body), 400)
    lateral = lung_borders(body, y)[1]
    across = patient.projection.flat_to_film(np.concatenate([-lateral, lateral]), np.concatenate([y, y]), LUNG_Z)[:, 0]
    return float(across.max() - across.min())


def masks_of(scene: Scene, size: int, torso: Torso, chest: Chest, without: tuple[str, ...] = ()) -> dict[str, Array]:
    """Bool masks [size, size]: anatomy (heart, thorax, lungs) and one for each finding, empty where it is absent."""
    patient, findings = scene.patient, scene.findings.without(without)
    air = torso.air["left"] + torso.air["right"]
    maps = {"heart": torso.heart > 0, "thorax": torso.thorax, "lungs": air > 0.5}
    nothing = np.zeros((size, size), bool)
    masks = {name: to_film(area, patient, size) > 0.5 for name, area in maps.items()}
    for name in ("effusion_left", "effusion_right", "pneumothorax"):
        masks[name] = to_film(chest.masks[name], patient, size) > 0.5 if name in chest.masks else nothing
    masks["opacity"] = _opacity_mask(findings.opacity, patient, size) if findings.opacity else nothing
    masks["nodule"] = _nodule_mask(findings.nodule, patient, size) if findings.nodule else nothing
    masks["device"] = _device_mask(scene, findings, size) if findings.devices.present else nothing
    return masks


def _opacity_mask(finding: Opacity, patient: Patient, size: int) -> Array:
    angle = np.linspace(0, 2 * np.pi, 128, endpoint=False)
    radius = OPACITY_SHOWN * finding.reach(angle)
    x = finding.x + radius * finding.across * np.cos(angle)
    y = finding.y + radius * finding.along * np.sin(angle)
    return _inside(patient.projection.flat_to_film(x, y, LUNG_Z), size)


def _nodule_mask(finding: Nodule, patient: Patient, size: int) -> Array:
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    x, y = finding.x + finding.radius * np.cos(angle), finding.y + finding.radius * np.sin(angle)
    return _inside(patient.projection.flat_to_film(x, y, LUNG_Z), size)


def _inside(outline: Array, size: int) -> Array:
    """The pixels of a film within an outline [n, 2] of film points, its edge included."""
    area = np.zeros((size, size), np.uint8)
    points = np.round((outline * size - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(area, [points.reshape(-1, 1, 2)], (1,), cv2.LINE_8, 4)
    return area > 0


def _device_mask(scene: Scene, findings: Findings, size: int) -> Array:
    drawn = draw_devices(findings.devices, scene.patient, scene.rng(Stream.DEVICES))
    shown = (drawn > 0.15).astype(np.float32)
    return cv2.resize(shown, (size, size), interpolation=cv2.INTER_AREA) > 0.25 * min(1.0, size / 1024)
