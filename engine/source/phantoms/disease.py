"""What findings do to the maps of tissue and air: fluid, consolidation, nodule and pneumothorax, each with its mask."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from engine.source.phantoms.findings import SIGN, Effusion, Findings, Nodule, Opacity, Pneumothorax
from engine.source.phantoms.patient import Patient
from engine.source.phantoms.projection import Array
from engine.source.phantoms.torso import LUNG_Z, Torso, lung_borders, lung_chord

LUNG_AIR = 0.76  # share of a lung's volume that is air
VISIBLE = 0.5  # cm of air that a finding must be able to take away to be seen


@dataclass
class Chest:
    """Maps on the upright canvas, in cm: `air` in the lungs, net of tissue; `vessels` the share of vessels that shows; `extra` tissue
    added on top. `masks` are float maps that are above one half inside a finding."""

    air: Array
    vessels: Array
    extra: Array
    masks: dict[str, Array] = field(default_factory=dict)


def apply_findings(patient: Patient, torso: Torso, findings: Findings, texture: Array) -> Chest:
    """The chest with its findings. `texture` [canvas, canvas] is a smooth random field, mean 0, spread about 1."""
    x, y = patient.projection.axes(texture.shape[0], LUNG_Z)
    sides = {side: air * LUNG_AIR for side, air in torso.air.items()}
    chest = Chest(air=np.zeros_like(texture), vessels=np.ones_like(texture), extra=np.zeros_like(texture))
    if findings.pneumothorax:
        _collapse(chest, sides, torso, patient, findings.pneumothorax, x, y)
    if findings.opacity:
        sides[findings.opacity.side] *= 1 - _consolidation(findings.opacity, x, y, texture)
    for effusion in findings.effusions:
        sides[effusion.side] *= 1 - _fluid(chest, torso, patient, effusion, x, y)
    if findings.nodule:
        chest.extra += LUNG_AIR * _ball(findings.nodule, x, y)
    chest.air = sides["left"] + sides["right"]
    return chest


def _collapse(chest: Chest, sides: dict[str, Array], torso: Torso, patient: Patient, finding: Pneumothorax, x: Array, y: Array) -> None:
    """The lung shrinks towards its root; between it and the ribs there is nothing but air."""
    body, sign = patient.body, SIGN[finding.side]
    root_x, root_y = np.float32(sign * 3.0), np.float32(body.dome + 1.0)
    kept = np.float32(finding.kept)
    smaller = lung_chord(body, root_x + (x - root_x) / kept, root_y + (y - root_y) / kept, sign)
    lung = np.minimum(smaller / np.float32(3.0), 1)
    above = np.clip((body.dome + 2.0 - y) / 3.5, 0, 1).astype(np.float32)  # the free air stays above the diaphragm
    lung = 1 - (1 - lung) * above
    gap = (1 - lung) * (torso.room[finding.side] > 0)
    air = torso.air[finding.side]
    sides[finding.side] = air * (gap + lung * np.float32(LUNG_AIR * (0.8 + 0.2 * finding.kept)))
    chest.vessels *= 1 - gap
    chest.extra += 0.6 * lung * (1 - lung) * np.minimum(air * np.float32(0.2), 1)  # the visceral pleura, seen on edge
    chest.masks["pneumothorax"] = gap * (air > VISIBLE)


def _consolidation(finding: Opacity, x: Array, y: Array, texture: Array) -> Array:
    """Share of air lost: patchy inside, fading to the border."""
    dx, dy = (x - np.float32(finding.x)) / np.float32(finding.across), (y - np.float32(finding.y)) / np.float32(finding.along)
    inside = 1 - np.sqrt(dx * dx + dy * dy) / finding.reach(np.arctan2(dy, dx))
    soft = np.clip(inside / np.float32(0.75), 0, 1)
    patchy = np.clip(0.85 + 0.13 * texture, 0.3, 1)
    lost: Array = np.float32(finding.density) * soft * soft * (3 - 2 * soft) * patchy
    return lost


def _fluid(chest: Chest, torso: Torso, patient: Patient, finding: Effusion, x: Array, y: Array) -> Array:
    """Share of air lost to fluid: a meniscus that climbs the ribs when the patient stands, a veil when the patient lies."""
    medial, lateral, _ = (part.astype(np.float32) for part in lung_borders(patient.body, y))
    beside = SIGN[finding.side] * x
    climb = 4.2 * np.exp(np.minimum(beside - lateral, 0) / 1.7) + 1.2 * np.exp(np.minimum(medial - beside, 0) / 1.3)
    blur, most = (3.2, 0.72) if finding.layered else (0.28, 0.97)
    share: Array = most / (1 + np.exp(-np.clip((y - finding.level + climb) / np.float32(blur), -30, 30)))
    chest.masks[f"effusion_{finding.side}"] = (share / most) * (torso.air[finding.side] > VISIBLE)
    return share.astype(np.float32)


def _ball(finding: Nodule, x: Array, y: Array) -> Array:
    dx, dy = x - np.float32(finding.x), y - np.float32(finding.y)
    return 2 * np.sqrt(np.maximum(np.float32(finding.radius**2) - dx * dx - dy * dy, 0))
