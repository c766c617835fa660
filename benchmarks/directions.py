"""Directions of findings in a codec's space: how far they tell unseen films apart, and what moving along them does to the heart."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch

from benchmarks.commands import StepFailed, run_latentray
from benchmarks.inputs import Options, say
from benchmarks.report import Bar, Row, measured
from engine.latents.anatomy import measure
from engine.latents.codes import Codes, read_codes
from engine.latents.direction_file import Direction
from engine.latents.edit import moved
from engine.latents.film_labels import Table, mark, read_table
from engine.latents.find import by_labels
from engine.replay import Replay

QUESTION = "How far do directions tell phantoms apart, and does a film moved along the heart's gain a larger heart and nothing else?"
TIMED = (
    "Separation: distance of the classes' means on films that the direction was not found on, in standard deviations (LDA). Edits:\n"
    "phantoms that no direction was found on and without findings beside the heart, each at seven alphas; the heart is measured on the\n"
    "edited films (engine/latents/anatomy.py). Nothing is timed."
)
NAME = "directions"
PHANTOMS, QUICK_PHANTOMS = "phantom:600?seed=31&size={side}", "phantom:80?seed=31&size={side}"
ATTRIBUTES = (
    *("cardiomegaly", "effusion: effusion_left, effusion_right", "opacity: opacity?", "pneumothorax: pneumothorax?", "nodule: nodule?"),
    *("device", "view=AP", "sex=F"),
)
COLUMNS = ("cardiomegaly", "effusion_left", "effusion_right", "opacity", "pneumothorax", "nodule", "device", "view", "sex")
BESIDE_THE_HEART = ("effusion_left", "effusion_right", "opacity", "pneumothorax")
ALPHAS = (-4.5, -3.0, -1.5, 0.0, 1.5, 3.0, 4.5)
SIDE = 256  # pixels of the films that are measured
SEPARATION, RISING = Bar(bound=3, sense="at least"), Bar(bound=0.9, sense="at least")
DEMO = "demo"


def rows(options: Options) -> Iterator[Row]:
    """A row an attribute, then what edits along cardiomegaly do."""
    codec = options.codec or DEMO
    with tempfile.TemporaryDirectory(dir=_scratch(options)) as folder:
        archive = Path(folder) / "phantoms.zarr"
        source = (QUICK_PHANTOMS if options.quick else PHANTOMS).format(side=1024 if codec == DEMO else 256)
        say(f"directions: {source}, codec {codec}")
        try:
            run_latentray("encode", source, "--archive", str(archive), "--codec", codec, "--metrics", "none", "--quiet")
        except StepFailed as error:
            yield Row(benchmark=NAME, step="codes", failed=str(error))
            return
        codes, table = read_codes(archive), read_table(None, archive, COLUMNS)
        for attribute in ATTRIBUTES:
            yield measured(NAME, attribute, _separation, codes, table, attribute)
        yield measured(NAME, "films moved along cardiomegaly", _edits, Replay(archive), codes, table)


def _separation(codes: Codes, table: Table, attribute: str) -> Row:
    marked = mark(codes, table, attribute)
    direction = by_labels(codes, marked, attribute, "lda", seed=0)
    found = direction.provenance
    return Row(
        benchmark=NAME,
        step=direction.attribute,
        unit="sd",
        values=(found["separation"],),
        bar=SEPARATION if attribute == "cardiomegaly" else None,
        figures={name: found[name] for name in ("separation_in_sample", "auc", "films_with", "films_without")},
        settings={"codec": codes.space.codec, "numbers": codes.space.size},
    )


def _edits(replay: Replay, codes: Codes, table: Table) -> Row:
    """The share of films whose heart never gets narrower from one alpha to the next, and by how much all that is measured changes."""
    border = len(codes) * 4 // 5
    known, others = codes.take(range(border)), codes.take(range(border, len(codes)))
    direction = by_labels(known, mark(known, table, "cardiomegaly"), "cardiomegaly", "lda", seed=0)
    clear = [at for at, name in enumerate(others.ids) if all(table[column].get(name) in (None, "0") for column in BESIDE_THE_HEART)]
    found = [each for each in (_one(replay, others.take([at]), direction) for at in clear) if each is not None]
    if not found:
        raise StepFailed(f"the heart could be measured on none of {len(clear)} films")
    rising, *changes = zip(*found, strict=True)
    names = ("heart width", "lung area", "lung gray")
    return Row(
        benchmark=NAME,
        step=f"heart grows from alpha {ALPHAS[0]:g} to {ALPHAS[-1]:g}",
        unit="share of films",
        values=(fmean(map(float, rising)),),
        bar=RISING,
        figures={f"median change of {name}": median(values) for name, values in zip(names, changes, strict=True)}
        | {"hearts 15 % wider": fmean(value >= 0.15 for value in changes[0]), "films": len(found), "not measured": len(clear) - len(found)},
        settings={"alphas": list(ALPHAS)} | {name: value for name, value in asdict(direction).items() if name in ("spread", "method")},
    )


def _one(replay: Replay, film: Codes, direction: Direction) -> tuple[bool, float, float, float] | None:
    edited = moved(film.values, direction, ALPHAS, film.space)[0]
    films = replay.films(torch.from_numpy(edited).reshape(-1, *film.space.shape), SIDE).numpy()[:, 0]
    seen = [measure(each) for each in films]
    if any(each is None for each in seen):
        return None
    measures = [(each.heart_width, each.lung_area, each.lung_gray) for each in seen if each is not None]
    hearts = [width for width, _, _ in measures]
    return bool((np.diff(hearts) >= 0).all()), *_changes(measures[0], measures[-1])


def _changes(first: Sequence[float], last: Sequence[float]) -> tuple[float, float, float]:
    heart, area, gray = (after / before - 1 for before, after in zip(first, last, strict=True))
    return heart, area, gray


def _scratch(options: Options) -> Path:
    options.scratch.mkdir(parents=True, exist_ok=True)
    return options.scratch
