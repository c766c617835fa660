"""Directions of findings in a codec's space: how far they tell unseen films apart, and what moving along them does to films."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.commands import StepFailed, run_latentray
from benchmarks.inputs import DEMO, Options, classifier_directory, codec_directory, say
from benchmarks.models.direction_edits import AREA, ELSEWHERE, GRAY, HEART, RISING, Edit, edit_rows
from benchmarks.report import Bar, Row, measured
from engine.classify.classifier import Classifier, load_classifier
from engine.errors import LatentrayError
from engine.latents.codes import Codes, read_codes
from engine.latents.directions import separation
from engine.latents.film_labels import Table, mark, read_table
from engine.latents.find import by_labels
from engine.replay import Replay

QUESTION = "How far do directions tell phantoms apart, and does a film moved along one gain its finding and nothing else?"
TIMED = (
    "Separation: distance of the classes' means on films that the direction was not found on, in standard deviations (LDA). Edits:\n"
    "phantoms that no direction was found on and without findings in the lungs, each at five alphas or seven; what shows is measured\n"
    "on them (engine/latents/anatomy.py, shadows.py), and by a classifier where there is one. Nothing is timed.\n"
    "--films: other phantoms, or an archive of them, which saves the encoding."
)
NAME = "directions"
PHANTOMS, FEW_PHANTOMS = "phantom:600?seed=31&size={side}", "phantom:80?seed=31&size={side}"
NIGHTLY_PHANTOMS = "phantom:200?seed=31&size={side}"
SEEDS = {"phantoms": 31}
RATIO, CARDIOMEGALY = "cardiothoracic_ratio", "cardiomegaly"
CLEAR = f"cardiomegaly above 0.55 against 0.45: {RATIO}>0.55/<=0.45"
EFFUSION, OPACITY, SEX = "effusion: effusion_left, effusion_right", "opacity: opacity?", "sex=F"
ATTRIBUTES = (CARDIOMEGALY, CLEAR, EFFUSION, OPACITY, "pneumothorax: pneumothorax?", "nodule: nodule?", "device", "view=AP", SEX)
COLUMNS = (CARDIOMEGALY, RATIO, "effusion_left", "effusion_right", "opacity", "pneumothorax", "nodule", "device", "view", "sex")
IN_THE_LUNGS = ("effusion_left", "effusion_right", "opacity", "pneumothorax")

BOTH_WAYS, UP = (-4.5, -3.0, -1.5, 0.0, 1.5, 3.0, 4.5), (0.0, 0.75, 1.5, 2.25, 3.0)
EDITS = (
    Edit(attribute=CARDIOMEGALY, method="lda", alphas=BOTH_WAYS, grows=HEART, spared=(AREA, GRAY), label="cardiomegaly"),
    Edit(attribute=EFFUSION, method="mean", alphas=UP, grows="fluid", spared=(HEART,), label="effusion"),
    Edit(attribute=OPACITY, method="mean", alphas=UP, grows="patch", spared=(HEART, AREA), label="opacity"),
    Edit(attribute=SEX, method="lda", alphas=BOTH_WAYS, grows="breast", spared=(HEART, AREA, GRAY)),
)
EDITED = 16  # films
FAR = Bar(bound=3, sense="at least")
SEPARATION = {CARDIOMEGALY: FAR, CLEAR: FAR}
BAR = f"cardiomegaly {FAR} sd apart; films that gain what they are moved to {RISING}; change of what is spared {ELSEWHERE}"
ARCHIVE = ".zarr"


def rows(options: Options) -> Iterator[Row]:
    """A row an attribute, then two an edit."""
    with tempfile.TemporaryDirectory(dir=_scratch(options)) as folder:
        try:
            archive = _archive(options, Path(folder))
        except StepFailed as error:
            yield Row(benchmark=NAME, step="codes", failed=str(error))
            return
        codes, table = read_codes(archive), read_table(None, archive, COLUMNS)
        for attribute in ATTRIBUTES:
            yield measured(NAME, attribute, _separation, codes, table, attribute)
        yield from _edits(Replay(archive), codes, table, _classifier(options))


def _archive(options: Options, folder: Path) -> Path:
    """The archive that was asked for, or one of the phantoms asked for."""
    if options.films and options.films.rstrip("/").endswith(ARCHIVE):
        say(f"directions: {options.films}")
        return Path(options.films)
    codec = options.codec or (codec_directory(options) if options.nightly else DEMO)  # where there is time, the demo's larger films
    chosen = options.pick(quick=FEW_PHANTOMS, nightly=NIGHTLY_PHANTOMS, whole=PHANTOMS)
    source = options.films or chosen.format(side=1024 if codec == DEMO else 256)
    say(f"directions: {source}, codec {codec}")
    archive = folder / f"phantoms{ARCHIVE}"
    run_latentray("encode", source, "--archive", str(archive), "--codec", codec, "--metrics", "none", "--quiet")
    return archive


def _classifier(options: Options) -> Classifier | None:
    directory = classifier_directory(options)
    if directory is not None:
        say(f"directions: edits judged by {directory} as well")
    return None if directory is None else load_classifier(directory)


def _separation(codes: Codes, table: Table, attribute: str) -> Row:
    marked = mark(codes, table, attribute)
    direction = by_labels(codes, marked, attribute, "lda", seed=0)
    found = direction.provenance
    truth = {}
    if attribute in SEPARATION:
        ratios = np.array([float(table[RATIO][codes.ids[place]] or "nan") for place in marked.places])
        truth = {"of the true ratio": separation(ratios, marked.marks)}
    return Row(
        benchmark=NAME,
        step=direction.attribute,
        unit="sd",
        values=(found["separation"],),
        value_of="whole",
        bar=SEPARATION.get(attribute),
        figures={name: found[name] for name in ("separation_in_sample", "auc", "films_with", "films_without", "unknown")} | truth,
        settings={"codec": codes.space.codec, "numbers": codes.space.size, "asked": attribute},
    )


def _edits(replay: Replay, codes: Codes, table: Table, classifier: Classifier | None) -> Iterator[Row]:
    """Directions of the first four fifths, seen on films of the last one."""
    border = len(codes) * 4 // 5
    known, unseen = codes.take(range(border)), codes.take(range(border, len(codes)))
    healthy = (at for at, name in enumerate(unseen.ids) if all(table[column].get(name) in (None, "0") for column in IN_THE_LUNGS))
    films = unseen.take(list(islice(healthy, EDITED)))
    for edit in EDITS:
        try:
            direction = by_labels(known, mark(known, table, edit.attribute), edit.attribute, edit.method, seed=0)
            yield from edit_rows(NAME, edit, direction, films, replay, classifier)
        except LatentrayError as error:
            yield Row(benchmark=NAME, step=f"films moved along {edit.attribute}", failed=str(error))


def _scratch(options: Options) -> Path:
    options.scratch.mkdir(parents=True, exist_ok=True)
    return options.scratch
