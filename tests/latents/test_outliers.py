"""What counts as a line that a reconstruction lacks, against the definition in plain loops, and on phantoms with and without a device."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.errors import ConfigError
from engine.latents.outliers import APART, DIRECTIONS, LENGTH, SIDE, WIDTH, check_margin, judge, lines, lines_missed
from engine.latents.ranked import draw, in_file
from engine.pictures import Image
from engine.source.phantom import draw_labels, render_phantom


def grain(side: int, seed: int = 0) -> Image:
    """A grey film with a little noise."""
    return np.random.default_rng(seed).normal(0.4, 0.01, (side, side)).astype(np.float32)


def blurred(film: Image, share: float = 1 / 40) -> Image:
    """What a generator without fine detail would make of a film."""
    return cv2.GaussianBlur(film, (0, 0), share * len(film))


def by_definition(image: Image, at: tuple[int, int]) -> float:
    """`lines` of one pixel in float64: weighted means along three parallels, the middle one minus the brighter of the others."""
    length, apart = LENGTH * len(image), APART * len(image)
    reach = int(np.ceil(1.2 * length))
    y, x = (part.astype(float) for part in np.mgrid[0 : len(image), 0 : len(image)])
    best = 0.0
    for direction in range(DIRECTIONS):
        angle = np.pi * direction / DIRECTIONS
        means = []
        for shift in (0.0, apart, -apart):
            centre = at[1] - shift * np.sin(angle), at[0] + shift * np.cos(angle)
            along = (x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)
            across = (y - centre[1]) * np.cos(angle) - (x - centre[0]) * np.sin(angle)
            weights = np.exp(-2 * (along / length) ** 2 - across**2 / (2 * WIDTH**2))
            weights[(abs(x - centre[0]) > reach) | (abs(y - centre[1]) > reach)] = 0
            means.append((weights * image).sum() / weights.sum())
        best = max(best, means[0] - max(means[1:]))
    return best


def test_lines_are_as_defined() -> None:
    image = cv2.GaussianBlur(grain(SIDE, 3), (0, 0), 4.0) * 10 - 3.6
    cv2.line(image, (200, 300), (330, 260), 0.9, 2, cv2.LINE_AA)
    found = lines(image)
    for at in ((280, 265), (283, 255), (150, 140), (400, 333)):
        assert found[at] == pytest.approx(by_definition(image, at), abs=0.012)  # between pixels OpenCV takes straight lines
    assert found[280, 265] > 0.2 > 0.1 > found[400, 333]


def test_a_step_is_no_line() -> None:
    step = np.zeros((128, 128), np.float32)
    step[:, 64:] = 1.0
    wire = np.zeros((128, 128), np.float32)
    wire[:, 64] = 1.0
    assert lines(step).max() < 1e-6
    assert lines(wire)[64, 64] > 0.4
    assert lines(step - blurred(step)).max() > 0.05  # its residual has one, but
    assert lines_missed(step, blurred(step)).max() < 1e-6


def test_what_the_reconstruction_has_is_not_missed() -> None:
    film, wire = grain(128), np.zeros((128, 128), np.float32)
    cv2.line(wire, (64, 20), (70, 100), 0.3, 1, cv2.LINE_AA)
    assert lines_missed(film + wire, film + wire).max() == 0
    lacking = lines_missed(film + wire, blurred(film))
    assert lacking[60, 65:70].max() > 10 * lacking[:, :40].mean()


def test_the_score_rises_with_a_wire_and_the_box_is_around_it() -> None:
    film = grain(256)
    with_wire = film.copy()
    cv2.line(with_wire, (120, 60), (150, 180), 0.6, 1, cv2.LINE_AA)
    plain, wired = (judge(each, blurred(each)) for each in (film, with_wire))
    assert wired.score > 2 * plain.score
    assert np.abs(np.array(wired.box) - (120, 60, 151, 181)).max() <= 8
    assert judge(0.5 * with_wire, 0.5 * blurred(with_wire)).score == pytest.approx(wired.score, rel=1e-3)  # no matter how it is exposed


def test_letters_in_the_margin_do_not_count_unless_asked() -> None:
    film = grain(256)
    sheet = np.zeros((256, 256), np.uint8)
    cv2.putText(sheet, "AP", (6, 120), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255,), 1)
    lettered = np.maximum(film, sheet.astype(np.float32) / 255)
    assert judge(lettered, blurred(film)).score < 1.2 * judge(film, blurred(film)).score
    found = judge(lettered, blurred(film), margin=0.0)
    assert found.score > 2 * judge(film, blurred(film), margin=0.0).score
    assert found.box[2] < 42


def test_a_film_of_one_gray_has_nothing_left() -> None:
    film = np.full((64, 64), 0.3, np.float32)
    found = judge(film, film)
    assert (found.score, found.box) == (0.0, (0, 0, 0, 0))
    assert draw(film, film, found.box, "black").shape[1] == 3 * 64 + 2


@pytest.mark.parametrize("margin", [-0.1, 0.5, float("nan")])
def test_a_margin_that_leaves_nothing(margin: float) -> None:
    with pytest.raises(ConfigError, match=r"margin must be 0 to 0.45 of a film's width"):
        check_margin(margin)


def test_boxes_are_told_in_pixels_of_the_file() -> None:
    box = (10, 20, 30, 40)
    assert in_file(box, side=100, source=(200, 200), square="pad") == (20, 40, 60, 80)
    assert in_file(box, side=100, source=(200, 100), square="pad") == (0, 40, 10, 80)  # 50 columns of padding; cut at the edge
    assert in_file(box, side=100, source=(200, 100), square="crop") == (10, 70, 30, 90)
    assert in_file(box, side=100, source=(200, 100), square="stretch") == (10, 40, 30, 80)


def test_a_device_raises_the_score_of_its_phantom() -> None:
    def has_tube(index: int) -> bool:
        truth = draw_labels(31, index)
        return bool(truth["pacemaker"] or truth["endotracheal_tube"] or truth["nasogastric_tube"])

    indices = [index for index in range(40) if has_tube(index)][:3]
    assert len(indices) == 3
    for index in indices:
        with_device = (render_phantom(31, index, size=256).pixels / 255).astype(np.float32)
        without = (render_phantom(31, index, size=256, without=["device"]).pixels / 255).astype(np.float32)
        recalled = blurred(without)
        assert judge(with_device, recalled).score > 1.3 * judge(without, recalled).score
