"""Phantom films: the same bytes for the same address, labels that masks confirm, findings that show, one anatomy at every size."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import cv2
import numpy as np
import pytest

from engine.errors import SourceError
from engine.source.phantom import (
    Phantom,
    PhantomAddress,
    contact_sheet,
    draw_labels,
    encode_png,
    parse_phantom_uri,
    phantom_png,
    phantom_uri,
    render_phantom,
    sample_id,
)

FINDING_OF_MASK = {
    "effusion_left": "effusion",
    "effusion_right": "effusion",
    "opacity": "opacity",
    "nodule": "nodule",
    "pneumothorax": "pneumothorax",
    "device": "device",
}


@cache
def film(index: int, size: int = 256) -> Phantom:
    return render_phantom(11, index, size=size)


def first_with(label: str, value: object = None) -> int:
    """The first film of the series that has a finding (or the given value of a label)."""
    return next(i for i in range(500) if (found := draw_labels(11, i)[label]) and (value is None or found == value))


def test_same_address_same_bytes_in_any_order() -> None:
    forwards = [phantom_png(5, index, size=128) for index in (0, 1, 2)]
    backwards = [phantom_png(5, index, size=128) for index in (2, 1, 0)]
    assert forwards == backwards[::-1]
    assert len({*forwards, phantom_png(6, 0, size=128)}) == 4


def test_another_process_draws_the_same_bytes() -> None:
    command = "import sys; from engine.source.phantom import phantom_png; sys.stdout.buffer.write(phantom_png(5, 9, size=128))"
    other = subprocess.run([sys.executable, "-c", command], capture_output=True, check=True)
    assert other.stdout == phantom_png(5, 9, size=128)


def test_png_holds_the_pixels() -> None:
    decoded = cv2.imdecode(np.frombuffer(phantom_png(11, 0, size=256), np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded.dtype == np.uint8
    assert decoded.shape == (256, 256)
    np.testing.assert_array_equal(decoded, film(0).pixels)


def test_looks_like_a_radiograph() -> None:
    for index in range(6):
        phantom = film(index)
        healthy = phantom.masks["lungs"].copy()
        for name in FINDING_OF_MASK:
            healthy &= ~phantom.masks[name]
        lungs = phantom.pixels[healthy & ~phantom.masks["heart"]].mean()
        heart = phantom.pixels[phantom.masks["heart"]].mean()
        assert heart - lungs > 40
        assert 40 < lungs < 170
        assert phantom.pixels.std() > 30


@pytest.mark.parametrize("index", range(16))
def test_masks_confirm_the_labels(index: int) -> None:
    phantom, labels = film(index), film(index).labels
    for name in FINDING_OF_MASK:
        wanted = labels[name]
        if name == "pneumothorax" or isinstance(wanted, str):
            wanted = wanted != ""
        assert phantom.masks[name].any() == wanted, name
    for mask in phantom.masks.values():
        assert mask.dtype == bool
        assert mask.shape == phantom.pixels.shape


def test_opacity_box_is_the_bounds_of_its_mask() -> None:
    for size in (100, 256):
        phantom = film(first_with("opacity"), size)
        rows, columns = np.nonzero(phantom.masks["opacity"])
        box = tuple(phantom.labels[f"opacity_{corner}"] for corner in ("x0", "y0", "x1", "y1"))
        assert box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_nodule_mask_is_the_disc_of_its_labels() -> None:
    phantom = film(first_with("nodule"), 512)
    rows, columns = np.nonzero(phantom.masks["nodule"])
    radius = phantom.labels["nodule_radius"]
    assert isinstance(radius, float)
    assert abs(columns.mean() - phantom.labels["nodule_x"]) < 1
    assert abs(rows.mean() - phantom.labels["nodule_y"]) < 1
    assert abs(np.sqrt(len(rows) / np.pi) - radius) < 1


@pytest.mark.parametrize("index", range(10))
def test_heart_and_thorax_are_as_wide_as_the_labels_say(index: int) -> None:
    phantom = render_phantom(12, index, size=1024 if index < 2 else 512)
    widths = {}
    for name in ("heart", "thorax"):
        columns = np.flatnonzero(phantom.masks[name].any(axis=0))
        widths[name] = columns[-1] - columns[0] + 1
        assert widths[name] == pytest.approx(phantom.labels[f"{name}_width"], rel=0.02)
    ratio = phantom.labels["cardiothoracic_ratio"]
    assert widths["heart"] / widths["thorax"] == pytest.approx(ratio, rel=0.02)
    assert phantom.labels["cardiomegaly"] == (ratio > 0.5)


@pytest.mark.parametrize("mask", FINDING_OF_MASK)
def test_finding_shows_within_its_mask_and_hardly_elsewhere(mask: str) -> None:
    index = first_with(mask)
    finding = FINDING_OF_MASK[mask]
    present, absent = film(index), render_phantom(11, index, size=256, without=[finding])
    change = present.pixels.astype(float) - absent.pixels
    inside = present.masks[mask]
    sign = -1 if mask == "pneumothorax" else 1
    assert sign * change[inside].mean() > 5
    assert not absent.masks[mask].any()
    assert not absent.labels[mask]
    around = cv2.dilate(inside.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
    others = np.zeros_like(inside)
    for name, other in present.masks.items():
        if FINDING_OF_MASK.get(name) == finding or (finding == "pneumothorax" and name == "lungs"):
            others |= cv2.dilate(other.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
    assert abs(change[~around & ~others]).mean() < 4


def test_a_film_without_findings_is_the_same_with_none_left_out() -> None:
    index = next(i for i in range(500) if not any(draw_labels(11, i)[name] for name in FINDING_OF_MASK))
    everything = ("effusion", "opacity", "nodule", "pneumothorax", "device")
    np.testing.assert_array_equal(render_phantom(11, index, size=128, without=everything).pixels, film(index, 128).pixels)


@pytest.mark.parametrize(("large", "small", "tolerance"), [(1024, 256, 3.0), (1024, 64, 4.0), (2048, 512, 3.0)])
def test_one_anatomy_at_every_size(large: int, small: int, tolerance: float) -> None:
    shrunk = cv2.resize(film(3, large).pixels, (small, small), interpolation=cv2.INTER_AREA).astype(float)
    drawn = film(3, small).pixels.astype(float)
    assert np.abs(shrunk - drawn).mean() < tolerance
    assert np.corrcoef(shrunk.ravel(), drawn.ravel())[0, 1] > 0.985
    assert film(3, large).labels["cardiothoracic_ratio"] == film(3, small).labels["cardiothoracic_ratio"]


def test_odd_and_unusual_sizes() -> None:
    assert [render_phantom(1, 0, size=size).pixels.shape for size in (16, 65, 301)] == [(16, 16), (65, 65), (301, 301)]


def test_labels_come_without_rendering() -> None:
    assert draw_labels(11, 4, size=256) == film(4).labels


def test_prevalence_and_spread() -> None:
    drawn = [draw_labels(2, index) for index in range(200)]
    share = {name: np.mean([bool(labels[name]) for labels in drawn]) for name in drawn[0]}
    for name in ("effusion_left", "effusion_right", "nodule"):
        assert 0.08 < share[name] < 0.28, name
    assert 0.18 < share["opacity"] < 0.40
    assert 0.05 < share["pneumothorax"] < 0.20
    assert 0.25 < share["device"] < 0.55
    assert 0.2 < share["cardiomegaly"] < 0.5
    assert 0.25 < np.mean([labels["view"] == "AP" for labels in drawn]) < 0.55
    assert 0.35 < np.mean([labels["sex"] == "F" for labels in drawn]) < 0.60
    ratios = [labels["cardiothoracic_ratio"] for labels in drawn]
    assert 0.30 < min(ratios) < 0.42
    assert 0.55 < max(ratios) < 0.75


def test_patients_differ_more_than_a_few_components_explain() -> None:
    films = np.stack([film(index, 64).pixels.ravel() for index in range(40)]).astype(float)
    films -= films.mean(axis=0)
    energy = np.linalg.svd(films, compute_uv=False) ** 2
    assert energy[:3].sum() / energy.sum() < 0.85
    assert np.sqrt((films**2).mean()) > 15


def test_uris() -> None:
    assert phantom_uri(0, 17) == "phantom:?seed=0&size=1024&index=17"
    assert parse_phantom_uri(phantom_uri(3, 8, 64)) == PhantomAddress(seed=3, index=8, size=64)
    assert sample_id(17) == "phantom-000017"


@pytest.mark.parametrize(
    "uri",
    [
        "phantom:3",
        "phantom:?seed=0&size=64",
        "phantom:?seed=0&size=64&index=x",
        "phantom:?seed=-1&size=64&index=0",
        "film:?seed=0&size=64&index=1",
    ],
)
def test_bad_uri_is_refused(uri: str) -> None:
    with pytest.raises(SourceError, match="must read like"):
        parse_phantom_uri(uri)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": -1, "index": 0}, "seed and index must be 0 or more: -1, 0"),
        ({"seed": 0, "index": -2}, "seed and index must be 0 or more: 0, -2"),
        ({"seed": 0, "index": 0, "size": 8}, "size must be 16 to 16384: 8"),
        ({"seed": 0, "index": 0, "without": ["fracture"]}, "left out are .*: fracture"),
    ],
)
def test_bad_request_is_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(SourceError, match=words):
        render_phantom(**arguments)  # type: ignore[arg-type]


def test_contact_sheet_places_films_row_by_row() -> None:
    films = [np.full((8 * (k + 1), 8 * (k + 1)), 10 * (k + 1), np.uint8) for k in range(3)]
    sheet = contact_sheet(films, 2, 8)
    assert sheet.shape == (16, 16)
    assert [sheet[4, 4], sheet[4, 12], sheet[12, 4], sheet[12, 12]] == [10, 20, 30, 0]
    with pytest.raises(SourceError, match="a sheet needs films"):
        contact_sheet([], 2, 8)


def test_encode_png_is_lossless() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (33, 47), dtype=np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(encode_png(noise), np.uint8), cv2.IMREAD_UNCHANGED), noise)
