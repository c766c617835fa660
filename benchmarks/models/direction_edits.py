"""Films moved along a direction: whether what it is a direction of grows from step to step, and how much else changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np
import torch

from benchmarks.commands import StepFailed
from benchmarks.report import Bar, Row
from engine.classify.classifier import Classifier
from engine.latents.anatomy import measure
from engine.latents.codes import Codes
from engine.latents.direction_file import Direction
from engine.latents.edit import moved
from engine.latents.shadows import Frame, measure_shadows
from engine.replay import Replay

SIDE = 256  # pixels of the films that are measured
RISING, ELSEWHERE = Bar(bound=0.9, sense="at least"), Bar(bound=0.05, sense="at most")
HEART, AREA, GRAY = "heart width", "lung area", "lung gray"
LARGE = 0.15  # growth of a length that counts as large
Measures = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A direction by `method`; `grows`: the measure of what it did; `spared`: lengths, areas and gray that the finding itself neither
    covers nor is. `alphas` rise and hold 0; they begin there where a film has nothing to lose."""

    attribute: str
    method: str
    alphas: tuple[float, ...]
    grows: str
    spared: tuple[str, ...]
    label: str = ""  # the classifier's, where it has one


def edit_rows(benchmark: str, edit: Edit, direction: Direction, films: Codes, replay: Replay, classifier: Classifier | None) -> list[Row]:
    """The share of films whose measure never falls from one alpha to the next; and the largest change of what is spared, with all changes.

    Raises StepFailed where no film can be measured.
    """
    judge = classifier if classifier is not None and edit.label in classifier.labels else None
    found = [each for at in range(len(films)) if (each := _one(replay, films.take([at]), direction, edit, judge)) is not None]
    if not found:
        raise StepFailed(f"lungs or heart could be measured on none of {len(films)} films")
    every = {name: np.array([each[name] for each in found]) for name in found[0]}
    name = f"{direction.attribute}, {edit.alphas[0]:g} to {edit.alphas[-1]:g}"
    told = {"films": len(found), "not measured": len(films) - len(found)}
    settings = {
        "alphas": list(edit.alphas),
        "method": direction.method,
        "spread": direction.spread,
        "classifier": None if judge is None else {"name": judge.name, "digest": judge.digest},
    }
    changes = {each: median(every[each][:, -1] / every[each][:, 0] - 1) for each in (HEART, AREA, GRAY)}
    grown = Row(
        benchmark=benchmark,
        step=f"{name}: {edit.grows} rises",
        unit="share of films",
        values=(_rising(every[edit.grows]),),
        value_of="whole",
        bar=RISING,
        figures=_growth(every, edit, judge) | told,
        settings=settings,
    )
    spared = {each: changes[each] for each in edit.spared}
    elsewhere = Row(
        benchmark=benchmark,
        step=f"{name}: change of {', '.join(spared)}",
        unit="of it",
        values=(max(map(abs, spared.values())),),
        value_of="whole",
        bar=ELSEWHERE,
        figures={f"change of {each}": change for each, change in changes.items()} | told,
        settings=settings,
    )
    return [grown, elsewhere]


def _growth(every: Mapping[str, Measures], edit: Edit, judge: Classifier | None) -> dict[str, float]:
    values = every[edit.grows]
    found = {"at first": median(values[:, 0]), "at last": median(values[:, -1])}
    if edit.grows == HEART:
        found["grown by 15 %"] = fmean(values[:, -1] >= (1 + LARGE) * values[:, 0])
    if judge is not None:
        logits = every["logit"]
        found |= {"logit rises": _rising(logits), "logit grows by": median(logits[:, -1] - logits[:, 0])}
    return found


def _rising(values: Measures) -> float:
    """Share of films [films, alphas] that never fall from one alpha to the next, and end higher than they began."""
    return float(((np.diff(values, axis=1) >= 0).all(axis=1) & (values[:, -1] > values[:, 0])).mean())


def _one(replay: Replay, film: Codes, direction: Direction, edit: Edit, judge: Classifier | None) -> dict[str, list[float]] | None:
    """All measures of a film at each alpha, in the frame of the film as it was; None where that, or a heart, is not to be seen."""
    codes = moved(film.values, direction, edit.alphas, film.space)[0]
    pixels = replay.films(torch.from_numpy(codes).reshape(-1, *film.space.shape), SIDE)
    films = pixels.numpy()[:, 0]
    frame = Frame.of(films[edit.alphas.index(0)])
    seen = [measure(each, frame.box) for each in films] if frame else [None]
    if frame is None or any(each is None for each in seen):
        return None
    shadows = [measure_shadows(each, frame) for each in films]
    found = {
        "fluid": [each.fluid for each in shadows],
        "patch": [each.patch for each in shadows],
        "breast": [each.breast for each in shadows],
    }
    for name, field in ((HEART, "heart_width"), (AREA, "lung_area"), (GRAY, "lung_gray")):
        found[name] = [float(getattr(each, field)) for each in seen]
    if judge is not None:
        found["logit"] = _logits(judge, pixels, edit.label)
    return found


def _logits(judge: Classifier, films: torch.Tensor, label: str) -> list[float]:
    with torch.inference_mode():
        logits: list[float] = judge.logits(films * 2 - 1)[:, judge.index(label)].tolist()
    return logits
