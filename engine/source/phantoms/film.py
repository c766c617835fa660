"""One film, from patient to gray levels: the line on which body, bones, vessels, findings and exposure meet."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from engine.source.phantoms.chance import Stream, stream
from engine.source.phantoms.clouds import Cloud, cast
from engine.source.phantoms.devices import draw_devices
from engine.source.phantoms.disease import LUNG_AIR, Chest, apply_findings
from engine.source.phantoms.exposure import BONE, TISSUE, close_shutter, develop, draw_exposure, set_tones
from engine.source.phantoms.findings import Findings, draw_findings
from engine.source.phantoms.marks import Marks, draw_marks, print_marks
from engine.source.phantoms.patient import Patient, draw_patient
from engine.source.phantoms.projection import Array
from engine.source.phantoms.skeleton import build_skeleton
from engine.source.phantoms.torso import Torso, build_torso
from engine.source.phantoms.vessels import build_vessels

CANVAS = 512  # soft tissue has no sharper edges than this resolves
COARSE = 512  # what is wider than a few pixels has points for a film of this size
FINEST = 1024  # bones and vessels have points for a film of this size; larger ones interpolate
THUMBNAIL = 128  # up to this size a film is drawn small, since nothing of what that leaves out would be seen
SMALLEST, LARGEST = 512, 2048  # other films beyond these are drawn at them and resized


@dataclass(frozen=True)
class Scene:
    """Everything about one film that is known before a pixel is made."""

    seed: int
    index: int
    patient: Patient
    findings: Findings
    marks: Marks

    def rng(self, which: Stream) -> Generator:
        """The named stream of this film."""
        return stream(self.seed, self.index, which)


def draw_scene(seed: int, index: int) -> Scene:
    """Draws the patient, the findings and the marks of one film; no pixels, well under a millisecond."""
    patient = draw_patient(seed, index)
    return Scene(seed, index, patient, draw_findings(seed, index, patient), draw_marks(stream(seed, index, Stream.MARKS), patient))


def expose(scene: Scene, size: int, without: tuple[str, ...] = ()) -> tuple[Array, Torso, Chest]:
    """The film of a scene: u1 [size, size], and the maps that masks are made from. `without` leaves findings out."""
    findings, patient = scene.findings.without(without), scene.patient
    drawn = SMALLEST // 2 if size <= THUMBNAIL else min(max(size, SMALLEST), LARGEST)
    canvas = min(drawn, CANVAS)
    torso = build_torso(patient, canvas)
    texture = _texture(scene.rng(Stream.TEXTURE), canvas)
    chest = apply_findings(patient, torso, findings, texture)
    exposure = draw_exposure(scene.rng(Stream.EXPOSURE), patient)
    healthy = torso.body - torso.other_air - LUNG_AIR * (torso.air["left"] + torso.air["right"])
    lungs = torso.air["left"] + torso.air["right"] > 3
    tones = set_tones(np.ascontiguousarray(healthy[::4, ::4]), lungs[::4, ::4], exposure)
    gray = develop(_attenuation(scene, findings, torso, chest, texture, drawn), tones, exposure, scene.rng(Stream.NOISE))
    gray = _print(close_shutter(gray, exposure), scene.marks)
    if drawn != size:
        gray = cv2.resize(gray, (size, size), interpolation=cv2.INTER_AREA if size < drawn else cv2.INTER_CUBIC)
    return np.clip(np.rint(gray), 0, 255).astype(np.uint8), torso, chest


def _attenuation(scene: Scene, findings: Findings, torso: Torso, chest: Chest, texture: Array, size: int) -> Array:
    """What the beam loses on its way to each pixel, as a natural logarithm: float32 [size, size]."""
    patient = scene.patient
    soft = torso.body - torso.other_air + chest.extra - chest.air * (1 + 0.035 * texture)
    total = np.maximum(to_film(soft, patient, size), 0)
    fine = min(size, FINEST)
    coarse = min(size, COARSE)
    bones = build_skeleton(patient, scene.rng(Stream.BONES).standard_normal((24, 3)))
    total += np.float32(BONE / TISSUE) * _shadow(bones, patient, coarse, coarse / 680, size)
    thick, thin = build_vessels(patient.body, scene.rng(Stream.VESSELS), fine)
    vessels = _shadow(thick, patient, coarse, coarse / 570, fine) + _shadow(thin, patient, fine, fine / 1100, fine)
    shown = to_film(np.minimum(chest.air * np.float32(0.3), 1) * chest.vessels, patient, fine)
    vessels *= np.float32(1.5 * LUNG_AIR) * shown
    total += cv2.resize(vessels, (size, size), interpolation=cv2.INTER_LINEAR)
    total *= np.float32(TISSUE)
    if findings.devices.present:
        total += cv2.resize(draw_devices(findings.devices, patient, scene.rng(Stream.DEVICES)), (size, size), interpolation=cv2.INTER_AREA)
    return total


def _shadow(cloud: Cloud, patient: Patient, pixels: int, blur: float, size: int) -> Array:
    """A cloud's shadow, cast on `pixels` squared, blurred by that many of them, at `size`."""
    shadow = cv2.GaussianBlur(cast(cloud, patient.projection, pixels), (0, 0), blur)
    return shadow if pixels == size else cv2.resize(shadow, (size, size), interpolation=cv2.INTER_CUBIC)


def to_film(canvas: Array, patient: Patient, size: int) -> Array:
    """Lays a map of the upright canvas on the film: float32 [size, size]."""
    matrix = patient.projection.canvas_to_film(canvas.shape[0], size)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(canvas.astype(np.float32), matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _texture(rng: Generator, pixels: int) -> Array:
    """A cloudy random field [pixels, pixels]: three octaves, spread about 1."""
    total = np.zeros((pixels, pixels), np.float32)
    for cells, weight in ((24, 0.7), (56, 0.6), (150, 0.6)):
        lattice = rng.standard_normal((cells, cells), dtype=np.float32)
        total += np.float32(weight) * cv2.resize(lattice, (pixels, pixels), interpolation=cv2.INTER_CUBIC)
    return total


def _print(gray: Array, marks: Marks) -> Array:
    if not marks.marker and not marks.words:
        return gray
    size = gray.shape[0]
    ink = cv2.resize(print_marks(marks), (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    printed: Array = gray + ink * (1 - gray * np.float32(1 / 255))
    return printed
