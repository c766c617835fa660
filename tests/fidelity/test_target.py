"""Targets are parsed strictly and written in one way; ways survive their JSON; the choice is the smallest that keeps the target."""

from __future__ import annotations

import json

import numpy as np
import pytest

from engine.errors import ArchiveError, ConfigError
from engine.fidelity.choose import WORTH, _is_worth, choose_way
from engine.fidelity.target import Target, parse_target
from engine.fidelity.way import EXACT_WAY, Way, default_way
from tests.fidelity.film_shapes import film_of, radiograph


@pytest.mark.parametrize(
    ("text", "target", "canonical"),
    [
        ("none", Target("none"), "none"),
        ("lossless", Target("lossless"), "lossless"),
        ("bytes=4000", Target("bytes", 4000), "bytes=4000"),
        ("bytes=2000000000", Target("bytes", 2e9), "bytes=2000000000"),
        ("psnr=40", Target("psnr", 40), "psnr=40"),
        ("psnr=40.500", Target("psnr", 40.5), "psnr=40.5"),
        ("max-error=3", Target("max-error", 3), "max-error=3"),
        ("max-error=0", Target("lossless"), "lossless"),
    ],
)
def test_targets(text: str, target: Target, canonical: str) -> None:
    assert parse_target(text) == target
    assert str(target) == canonical
    assert parse_target(canonical) == target


@pytest.mark.parametrize(
    "text",
    ["", "psnr", "psnr=", "psnr=9", "psnr=121", "psnr=nan", "psnr=-40", "psnr=4e1", "psnr=40 ", "PSNR=40", "bytes=0", "bytes=1.5",
     "bytes=-1", "bytes=99999999999", "max-error=-1", "max-error=40000", "max-error=1.5", "lossless=1", "none=", "best", "psnr=٤٠"],
)  # fmt: skip
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="fidelity") as error:
        parse_target(text)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(text.partition("=")[2] or text)


def test_a_way_survives_its_json() -> None:
    way = Way("avif", 6, True, 14.0)
    assert Way.from_json(json.loads(json.dumps(way.to_json()))) == way


@pytest.mark.parametrize("plain", [{}, {"codec": "gif", "effort": 0, "residual": False, "start": 0}, {"codec": "j2k", "effort": "x"}])
def test_a_way_of_another_kind_is_refused(plain: dict[str, object]) -> None:
    with pytest.raises(ArchiveError, match="fidelity"):
        Way.from_json(plain)


def test_without_films_the_default_is_taken() -> None:
    target = Target("psnr", 40)
    assert choose_way([], None, target).way == default_way(target)
    assert choose_way([], None, Target("lossless")).way == EXACT_WAY


@pytest.mark.parametrize("target", [Target("psnr", 37), Target("lossless"), Target("bytes", 700)])
def test_the_choice_is_the_best_of_what_was_tried(target: Target) -> None:
    films = [radiograph(seed=seed) for seed in range(2)]
    choice = choose_way(films, None, target)
    assert choice.figures[0] | choice.way.to_json() == choice.figures[0]
    assert all(figures["films"] == 2 for figures in choice.figures)
    whole = [figures for figures in choice.figures if figures["met"] == 2]
    assert choice.figures[0] in whole
    least = min(figures["bytes"] for figures in whole)
    if target.kind == "bytes":
        assert choice.figures[0]["psnr"] == max(figures["psnr"] for figures in whole)
    elif target.kind == "psnr":
        assert choice.figures[0]["bytes"] * (1 - WORTH) <= least
        assert [figures["bytes"] for figures in choice.figures[1:]] == sorted(figures["bytes"] for figures in choice.figures[1:])
    else:
        assert choice.figures[0]["bytes"] == least
    json.dumps(choice.figures, allow_nan=False)


@pytest.mark.parametrize(("bytes_", "met", "is_worth"), [(1000, 8, True), (1050, 8, True), (1060, 8, False), (1000, 7, False)])
def test_a_quicker_way_is_left_only_for_one_that_saves_a_twentieth(bytes_: float, met: int, is_worth: bool) -> None:
    assert _is_worth({"bytes": bytes_, "met": met}, {"bytes": 1000.0, "met": 8}) is is_worth


def test_a_slower_way_that_saves_enough_is_taken() -> None:
    blocks = [
        film_of(np.kron(np.random.default_rng(seed).integers(0, 2, (12, 12)), np.full((16, 16), 255)).astype(np.uint8), 8)
        for seed in (1, 2)
    ]
    choice = choose_way(blocks, None, Target("psnr", 40))
    assert choice.way.codec == "avif"  # flat squares, which wavelets ring at
    assert choice.figures[0]["bytes"] < (1 - WORTH) * min(each["bytes"] for each in choice.figures if each["codec"] == "j2k")


def test_a_size_that_any_film_fits_into_is_one_more_target() -> None:
    films = [film_of(np.full((20, 20), 7, np.uint8), 8)]
    choice = choose_way(films, None, Target("bytes", 100_000))
    assert choice.figures[0]["met"] == 1
    assert choice.figures[0]["psnr"] is None  # exact by whatever quality


def test_residuals_are_tried_where_all_films_have_predictions_and_taken_where_they_save() -> None:
    films = [radiograph(128, 128, seed=seed, noise=0.002) for seed in range(2)]
    predictions = [radiograph(128, 128, seed=7, noise=0.002).to_gray()] * 2
    target = Target("psnr", 49)
    choice = choose_way(films, predictions, target)
    assert {figures["residual"] for figures in choice.figures} == {False, True}
    assert choice.way.residual
    assert not choose_way(films, [predictions[0], None], target).way.residual
    assert not choose_way(films, [np.zeros_like(predictions[0])] * 2, target).way.residual
    assert not any(figures["residual"] for figures in choose_way(films, predictions, Target("lossless"), effort="quick").figures)
