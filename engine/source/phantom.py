"""Procedural chest radiographs with known findings: film `index` of series `seed`, always the same, at any size.

A small anatomy model (phantoms/) is filmed by a simulated X-ray room. Nothing comes from a real patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import cv2
import imagecodecs
import numpy as np

from engine.errors import SourceError
from engine.source.phantoms.film import draw_scene, expose
from engine.source.phantoms.findings import FINDINGS
from engine.source.phantoms.truth import Label, labels_of, masks_of

SIZES = (16, 16384)


@dataclass(frozen=True)
class Phantom:
    """One film and the truth about it.

    `pixels` u1 [size, size], gray, air black. `labels`: see phantoms/README.md; the same for every size but for places and lengths,
    which are in pixels. `masks`: bool [size, size] by name: heart, thorax, lungs, effusion_left, effusion_right, opacity, nodule,
    pneumothorax, device; empty where a finding is absent.
    """

    sample_id: str
    pixels: np.ndarray[Any, Any]
    labels: dict[str, Label]
    masks: dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class PhantomAddress:
    """What a per-film uri says: `phantom:?seed=0&size=1024&index=17`."""

    seed: int
    index: int
    size: int


def sample_id(index: int) -> str:
    """The id of film `index`: `phantom-000017`."""
    return f"phantom-{index:06d}"


def phantom_uri(seed: int, index: int, size: int = 1024) -> str:
    """The uri by which a plan names one film."""
    return f"phantom:?seed={seed}&size={size}&index={index}"


def parse_phantom_uri(uri: str) -> PhantomAddress:
    """The film that a uri of `phantom_uri` names; raises SourceError on anything else."""
    scheme, _, query = uri.partition(":?")
    try:
        values = {name: int(value) for name, value in parse_qsl(query, strict_parsing=True)}
        address = PhantomAddress(**values)
        _check(address.seed, address.index, address.size)
    except (ValueError, TypeError, SourceError):
        address = None
    if scheme != "phantom" or address is None:
        raise SourceError(f"a phantom's uri must read like phantom:?seed=0&size=1024&index=17: {uri}")
    return address


def draw_labels(seed: int, index: int, *, size: int = 1024, without: Sequence[str] = ()) -> dict[str, Label]:
    """The labels of a film without its pixels, in a millisecond. Raises SourceError like `render_phantom`."""
    _check(seed, index, size, without)
    return labels_of(draw_scene(seed, index), size, tuple(without))


def render_phantom(seed: int, index: int, *, size: int = 1024, without: Sequence[str] = ()) -> Phantom:
    """Film `index` of series `seed` with labels and masks. `without` names findings (effusion, opacity, nodule, pneumothorax, device) to
    leave out: the same patient, noise and gray curve, so a pair of films differs by the finding alone.

    Raises SourceError for a negative seed or index, a size outside SIZES or an unknown finding.
    """
    _check(seed, index, size, without)
    scene, left_out = draw_scene(seed, index), tuple(without)
    pixels, torso, chest = expose(scene, size, left_out)
    masks = masks_of(scene, size, torso, chest, left_out)
    return Phantom(sample_id(index), pixels, labels_of(scene, size, left_out), masks)


def phantom_png(seed: int, index: int, *, size: int = 1024) -> bytes:
    """The film as an 8-bit gray PNG: the same bytes for the same arguments. Raises SourceError like `render_phantom`."""
    _check(seed, index, size)
    return encode_png(expose(draw_scene(seed, index), size)[0])


def encode_png(pixels: np.ndarray[Any, Any]) -> bytes:
    """u1 [height, width] as PNG bytes: averaged rows and Huffman codes alone, the quickest setting and a small one for grainy films."""
    return bytes(imagecodecs.png_encode(pixels, level=1, strategy=imagecodecs.PNG.STRATEGY.HUFFMAN_ONLY, filter=imagecodecs.PNG.FILTER.AVG))


def contact_sheet(films: Sequence[np.ndarray[Any, Any]], columns: int, tile: int) -> np.ndarray[Any, Any]:
    """Films u1 [h, w] as one picture u1 [rows * tile, columns * tile], shrunk to tiles, row by row, black where none is left."""
    if not films or columns < 1 or tile < 1:
        raise SourceError(f"a sheet needs films, columns and a tile of 1 or more: {len(films)}, {columns}, {tile}")
    rows = -(-len(films) // columns)
    sheet = np.zeros((rows * tile, columns * tile), np.uint8)
    for place, film in enumerate(films):
        top, left = tile * (place // columns), tile * (place % columns)
        sheet[top : top + tile, left : left + tile] = cv2.resize(film, (tile, tile), interpolation=cv2.INTER_AREA)
    return sheet


def _check(seed: int, index: int, size: int, without: Sequence[str] = ()) -> None:
    if seed < 0 or index < 0:
        raise SourceError(f"a phantom's seed and index must be 0 or more: {seed}, {index}")
    if not SIZES[0] <= size <= SIZES[1]:
        raise SourceError(f"a phantom's size must be {SIZES[0]} to {SIZES[1]}: {size}")
    unknown = sorted(set(without) - set(FINDINGS))
    if unknown:
        raise SourceError(f"findings that can be left out are {', '.join(FINDINGS)}: {', '.join(unknown)}")
