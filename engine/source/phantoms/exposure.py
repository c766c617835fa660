"""From attenuation to gray levels: Beer and Lambert, scattered light, quantum noise, and the curve that a reading room would see."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from engine.source.phantoms.chance import about, between, happens
from engine.source.phantoms.patient import Patient
from engine.source.phantoms.projection import Array

TISSUE = 0.19  # attenuation per cm of soft tissue at chest energies
BONE = 0.40  # what bone adds per cm
COARSE = 128  # scatter has no fine detail: it is computed on a film of this size


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """Settings of tube, grid and processing. `photons` a pixel of a film of 1024 before the patient; `lung_gray`, `centre_gray` in [0, 1]
    are where the curve puts lungs and mediastinum; `equalise` how much of the slow variation processing removes; `sharpen` its edge
    enhancement; `shutter` the corners [4, 2] of the collimated field on the film, or None for an open one."""

    photons: float
    scatter: float
    lung_gray: float
    centre_gray: float
    equalise: float
    sharpen: float
    shutter: Array | None


def draw_exposure(rng: Generator, patient: Patient) -> Exposure:
    """The technique of one film: portable ones are flatter, foggier and noisier."""
    portable = patient.view == "AP"
    return Exposure(
        photons=about(rng, 9.3e4 if portable else 1.5e5, 2.5e4),
        scatter=about(rng, 0.19 if portable else 0.09, 0.03) + 0.05 * patient.body.girth,
        lung_gray=about(rng, 0.40 if portable else 0.35, 0.06),
        centre_gray=about(rng, 0.83 if portable else 0.87, 0.03),
        equalise=between(rng, 0.0, 0.35),
        sharpen=between(rng, 0.0, 0.7),
        shutter=_draw_shutter(rng),
    )


def _draw_shutter(rng: Generator) -> Array | None:
    present = happens(rng, 0.3)
    left, top, right, bottom = (float(edge) for edge in rng.random(4) ** 2 * np.array([0.06, 0.08, 0.06, 0.06]))
    turn = about(rng, 0.0, 0.012)
    if not present:
        return None
    corners = np.array([[left, top], [1 - right, top], [1 - right, 1 - bottom], [left, 1 - bottom]]) - 0.5
    cos, sin = np.cos(turn), np.sin(turn)
    turned: Array = corners @ np.array([[cos, sin], [-sin, cos]]) + 0.5
    return turned


@dataclass(frozen=True)
class Tones:
    """The curve from optical path to gray: 0.5 + 0.5 tanh((v - middle) / width), and the mean that equalisation keeps."""

    middle: float
    width: float
    mean: float


def set_tones(tissue: Array, lungs: Array, exposure: Exposure) -> Tones:
    """The curve that suits a patient, from the coarse tissue map [n, n] in cm and where the lungs are [n, n] bool.

    It is set on the healthy anatomy, so a film with and without a finding share one curve.
    """
    beam = np.exp(-TISSUE * tissue)
    path = -np.log(beam + scattered(beam, exposure.scatter))
    mean = float(path.mean())
    path = path - exposure.equalise * (cv2.GaussianBlur(path, (0, 0), path.shape[0] / 14) - mean)
    lung = float(np.median(path[lungs]))
    centre = float(np.percentile(path, 93))
    low, high = np.arctanh(2 * exposure.lung_gray - 1), np.arctanh(2 * exposure.centre_gray - 1)
    width = max(centre - lung, 0.3) / (high - low)
    return Tones(middle=lung - low * width, width=width, mean=mean)


def scattered(beam: Array, share: float) -> Array:
    """Light that the patient scatters onto the detector: a broad blur of the beam, with the naked beam beside the patient cut down."""
    size = beam.shape[0]
    return np.float32(share) * cv2.GaussianBlur(np.minimum(beam, 0.35), (0, 0), size / 11)


def develop(attenuation: Array, tones: Tones, exposure: Exposure, rng: Generator) -> Array:
    """Attenuation [size, size] -> gray float32 [size, size] in [0, 255], not yet rounded."""
    size = attenuation.shape[0]
    beam: Array = cv2.exp(-attenuation)
    coarse = scattered(cv2.resize(beam, (COARSE, COARSE), interpolation=cv2.INTER_AREA), exposure.scatter)
    beam += cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)
    path: Array = -cv2.log(beam)
    path += _noise(size, rng) / np.sqrt(beam * np.float32(exposure.photons * (1024 / size) ** 2))
    slow: Array = cv2.resize(path, (COARSE, COARSE), interpolation=cv2.INTER_AREA)
    slow = cv2.GaussianBlur(slow, (0, 0), COARSE / 14) - tones.mean
    path -= np.float32(exposure.equalise) * cv2.resize(slow, (size, size), interpolation=cv2.INTER_LINEAR)
    if exposure.sharpen > 0:
        path += np.float32(exposure.sharpen) * (path - cv2.GaussianBlur(path, (0, 0), size / 300))
    path -= np.float32(tones.middle)
    path *= np.float32(-2 / tones.width)
    return np.float32(255) / (1 + cv2.exp(path))


def _noise(size: int, rng: Generator) -> Array:
    """White noise of spread 1, smeared a little as a scintillator does."""
    white = rng.standard_normal((size, size), dtype=np.float32)
    return cv2.GaussianBlur(white, (3, 3), 0.55) * np.float32(1.6)


def close_shutter(gray: Array, exposure: Exposure) -> Array:
    """Blackens what lies outside the collimated field."""
    if exposure.shutter is None:
        return gray
    size = gray.shape[0]
    field = np.zeros((size, size), np.uint8)
    corners = np.round(exposure.shutter * size * 16).astype(np.int32)
    cv2.fillPoly(field, [corners.reshape(-1, 1, 2)], (255,), cv2.LINE_AA, 4)
    shut: Array = gray * (cv2.GaussianBlur(field, (0, 0), size / 700).astype(np.float32) / np.float32(255))
    return shut
