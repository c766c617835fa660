"""What is wrong with the patient: findings drawn as numbers, cheaply and before any pixel, so that the truth is known beforehand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.random import Generator

from engine.source.phantoms.chance import Stream, between, happens, stream
from engine.source.phantoms.patient import Body, Patient
from engine.source.phantoms.torso import lung_borders

Side = Literal["left", "right"]
FINDINGS = ("effusion", "opacity", "nodule", "pneumothorax", "device")
SIGN: dict[Side, int] = {"left": 1, "right": -1}


@dataclass(frozen=True, kw_only=True)
class Effusion:
    """Fluid in the pleural space: its level (y, cm); layered behind the lung when the patient lies."""

    side: Side
    level: float
    layered: bool


@dataclass(frozen=True, kw_only=True)
class Opacity:
    """A patch of lung with fluid in place of air. `density` is the share of air lost in its middle; `ripples` shape its border:
    amplitude and phase of waves 2, 3, ... around an ellipse of half-axes `across` and `along`."""

    side: Side
    x: float
    y: float
    across: float
    along: float
    density: float
    ripples: tuple[tuple[float, float], ...]

    def reach(self, angle: np.ndarray) -> np.ndarray:
        """Relative radius of the border in the direction `angle`."""
        total = np.ones_like(angle)
        for wave, (amplitude, phase) in enumerate(self.ripples, start=2):
            total += (amplitude * np.cos(wave * angle + phase)).astype(angle.dtype)
        return total


@dataclass(frozen=True, kw_only=True)
class Nodule:
    """A round solid spot in a lung, radius in cm."""

    side: Side
    x: float
    y: float
    radius: float


@dataclass(frozen=True, kw_only=True)
class Pneumothorax:
    """Air between ribs and lung; the lung shrank to `kept` of its extent, towards its root."""

    side: Side
    kept: float


@dataclass(frozen=True, kw_only=True)
class Devices:
    """What has been put into or onto the patient. `pacemaker` names the side of its case, "" for none."""

    pacemaker: Literal["", "left", "right"] = ""
    endotracheal_tube: bool = False
    nasogastric_tube: bool = False
    central_line: bool = False
    leads: bool = False  # ECG wires on the skin

    @property
    def present(self) -> bool:
        """Whether there is any device at all."""
        return bool(self.pacemaker) or self.endotracheal_tube or self.nasogastric_tube or self.central_line or self.leads


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All findings of one film."""

    effusions: tuple[Effusion, ...] = ()
    opacity: Opacity | None = None
    nodule: Nodule | None = None
    pneumothorax: Pneumothorax | None = None
    devices: Devices = Devices()

    def without(self, names: tuple[str, ...]) -> Findings:
        """The same patient before (or after) the named findings of FINDINGS; everything else stays as it is."""
        nothing = Findings()
        cleared = {_FIELD.get(name, name): getattr(nothing, _FIELD.get(name, name)) for name in names}
        return replace(self, **cleared)


_FIELD = {"effusion": "effusions", "device": "devices"}


def draw_findings(seed: int, index: int, patient: Patient) -> Findings:
    """The findings of film `index` in series `seed`."""
    rng = stream(seed, index, Stream.FINDINGS)
    body = patient.body
    collapse = _draw_pneumothorax(rng)
    effusions = tuple(
        effusion
        for side in ("right", "left")
        if (effusion := _draw_effusion(rng, body, side, patient.supine)) and not (collapse and collapse.side == side)
    )
    return Findings(
        effusions=effusions,
        opacity=_draw_opacity(rng, body),
        nodule=_draw_nodule(rng, body),
        pneumothorax=collapse,
        devices=_draw_devices(stream(seed, index, Stream.DEVICES), patient),
    )


def _draw_pneumothorax(rng: Generator) -> Pneumothorax | None:
    present = happens(rng, 0.12)
    side: Side = "left" if happens(rng, 0.5) else "right"
    kept = between(rng, 0.68, 0.9)
    return Pneumothorax(side=side, kept=kept) if present else None


def _draw_effusion(rng: Generator, body: Body, side: Side, supine: bool) -> Effusion | None:
    present = happens(rng, 0.17)
    top = body.dome_right if side == "right" else body.dome_left
    filling = between(rng, 0, 1) ** 1.5
    level = top + 1.6 - 9.0 * filling
    return Effusion(side=side, level=level, layered=supine) if present else None


def _draw_place(rng: Generator, body: Body, margin: float) -> tuple[Side, float, float, float]:
    """A side, a point in that lung, and the free half-width around it in cm, away from heart and diaphragm."""
    side: Side = "left" if happens(rng, 0.5) else "right"
    top, bottom = body.apex + 3.5, (body.dome_right if side == "right" else body.dome_left) - 1.0
    y = between(rng, top + margin, bottom - margin)
    medial, lateral, _ = (float(part) for part in lung_borders(body, np.array(y)))
    beside_heart = 0.62 * max(chamber.x + chamber.across for chamber in body.heart) if side == "left" and y > 13 else medial + 1.2
    inner, outer = max(beside_heart, medial + 1.0), lateral - 0.8
    half = max((outer - inner) / 2, 0.5)
    x = between(rng, inner + min(margin, half), outer - min(margin, half))
    return side, SIGN[side] * x, y, min(x - inner, outer - x) + 0.4


def _draw_opacity(rng: Generator, body: Body) -> Opacity | None:
    present = happens(rng, 0.28)
    side, x, y, room = _draw_place(rng, body, 2.6)
    across = min(between(rng, 2.0, 5.0), max(room, 1.5))
    along = min(between(rng, 1.8, 5.0), 1.6 * across)
    waves = rng.random((6, 2))
    ripples = tuple((float(a) * 0.30 / (wave + 1), float(p) * 6.2832) for wave, (a, p) in enumerate(waves))
    density = between(rng, 0.4, 0.8)
    return Opacity(side=side, x=x, y=y, across=across, along=along, density=density, ripples=ripples) if present else None


def _draw_nodule(rng: Generator, body: Body) -> Nodule | None:
    present = happens(rng, 0.16)
    side, x, y, _ = _draw_place(rng, body, 1.4)
    radius = between(rng, 0.45, 1.5)
    return Nodule(side=side, x=x, y=y, radius=radius) if present else None


def _draw_devices(rng: Generator, patient: Patient) -> Devices:
    portable = patient.view == "AP"
    has_pacemaker, on_left = happens(rng, 0.09), happens(rng, 0.85)
    tube, feeding, line, leads = (happens(rng, p if portable else q) for p, q in ((0.3, 0.0), (0.3, 0.02), (0.35, 0.04), (0.4, 0.0)))
    return Devices(
        pacemaker=("left" if on_left else "right") if has_pacemaker else "",
        endotracheal_tube=tube,
        nasogastric_tube=feeding,
        central_line=line,
        leads=leads,
    )
