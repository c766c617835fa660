"""GAN-train: classifiers taught by real films, by the same films out of their codes and by made ones, all tested on real films."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.commands import StepFailed, run_latentray
from benchmarks.inputs import Options, codec_directory, say
from benchmarks.models.training_sets import RealFilms, TrainingSet, embedded_set, made_set, read_real, real_set, write_made
from benchmarks.report import Row
from engine.classify.classifier import Classifier, load_classifier
from engine.classify.classifier_spec import CLASSIFIER_JSON
from engine.compare_classifiers import AVERAGE, Comparison, compare_classifiers
from engine.encode.codec import Codec, load_codec
from engine.encode.codec_spec import CODEC_JSON
from engine.errors import LatentrayError, SourceError
from engine.latents.made_set import CLEAR, MadeSet, make_set, wanted_films
from engine.latents.optimised import Climb
from engine.latents.starts import Draws, prior_of
from engine.verbs.compare_classifiers import table
from trainers.catalogue import settings_of
from trainers.checkpoint import checkpoints
from trainers.film_request import FilmsRequest
from trainers.loop import CHECKPOINTS
from trainers.presets.films import SplitConfig
from trainers.run_folder import read_note
from trainers.training import Request, train

QUESTION = "What does a classifier learn from films of a codec, beside one that learns from real films (Segal et al. 2021, table 2)?"
TIMED = (
    "Values: area under the ROC curve on real films that nothing was trained on, with its 95 % bootstrap interval; `less Real`: paired,\n"
    "over the same draws. Embedded: the training films as their codes give them back. Class generated: about as many films by class\n"
    "optimisation with the real classifier, labelled by it; by aim: labelled by what each was made for alone. One seed, one preset,\n"
    "as many images for each; films of the codec's side. Intervals are of test films, not of trainings. Nothing is timed."
)
NAME = "gan-train"
TRAIN, TEST = (3000, 1000, 128), (1000, 9999, 128)  # phantoms: how many, of which series, how large
QUICK_TRAIN, QUICK_TEST = (32, 1000, 32), (12, 9999, 32)
TASK, PRESET = "densenet", "cpu-small"
STEPS, QUICK_STEPS = 100, 2  # of refinement, where a codec has no encoder
QUICK: dict[str, Any] = {"blocks": [1, 1], "growth": 4, "stem": 4, "batch": 8, "bootstrap": 0, "warm_up": 0}
QUICK_IMAGES, QUICK_CLIMB = 480, Climb(lr=1.0, steps=40)
CODEC = "crg"  # of `make systems`: a generator that films were taught by nothing but looks, and an encoder
DRAWS = Draws()  # the paper's: starts cut at 0.7, 3 to 6 films a patient
REAL, EMBEDDED, GENERATED, BY_AIM = "Real", "Embedded", "Class generated", "Class generated, by aim"


def needs(options: Options) -> str:
    """The time."""
    return "not in the nightly run, an hour: latentray bench gan-train" if options.nightly else ""


def rows(options: Options) -> Iterator[Row]:
    """A row a set that was trained with, one a label that films were made for, then the table: a row a label and classifier."""
    try:
        yield from _Bench(options).rows()
    except LatentrayError as error:
        yield Row(benchmark=NAME, step="table", failed=str(error))


class _Bench:
    """What is made once lies in a folder of its own for these films and this codec, and is found there again."""

    def __init__(self, options: Options) -> None:
        self._quick = options.quick
        crg = options.systems / CODEC
        self._path = options.codec or (str(crg) if (crg / CODEC_JSON).is_file() else codec_directory(options))
        self._codec: Codec = load_codec(self._path)
        self._train = options.films or _phantoms(options, *(QUICK_TRAIN if options.quick else TRAIN))
        self._test = _phantoms(options, *(QUICK_TEST if options.quick else TEST))
        key = hashlib.sha256(json.dumps([self._codec.digest, self._train, options.quick]).encode()).hexdigest()
        self._folder = options.scratch / f"gan-train-{key[:12]}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._refine_steps = 0 if self._codec.has_encoder else QUICK_STEPS if self._quick else STEPS

    def rows(self) -> Iterator[Row]:
        """Makes the sets, trains a classifier with each, and compares these."""
        labels = settings_of(TASK, PRESET, {}).labels
        real = read_real(self._train, labels)
        sets = {REAL: real_set(self._train, labels, real)}
        made = self._make(real, self._classifier(REAL, sets[REAL]), sets)
        classifiers: dict[str, Classifier] = {}
        for name, each in sets.items():
            step, shares = f"trained with: {name}", {f"share {label}": share for label, share in each.share.items()}
            try:
                classifiers[name] = self._classifier(name, each)
            except SourceError as error:  # a set in which a label is never seen teaches nothing of it; the others are compared
                yield Row(benchmark=NAME, step=step, failed=str(error))
            else:
                yield Row(benchmark=NAME, step=step, unit="films", values=(each.films,), value_of="whole", figures=shares)
        yield from _made(made)
        say(f"{NAME}: {len(classifiers)} classifiers on {self._test}")
        found = compare_classifiers(self._test, classifiers)
        say(f"{NAME}: labels down, classifiers across, as in the paper\n{table(found)}")
        settings = {"codec": self._codec.name, "digest": self._codec.digest, "preset": PRESET, "side": self._codec.recipe.resolution}
        yield from _table(
            found,
            settings | {"train": len(real.ids), "test": found.films, "refine_steps": self._refine_steps, "truncation": DRAWS.truncation},
        )

    def _make(self, real: RealFilms, classifier: Classifier, sets: dict[str, TrainingSet]) -> MadeSet:
        """Adds the sets that are made of real films and of their classifier."""
        say(f"{NAME}: films through {self._codec.name}")
        archive = self._folder / "embedded.zarr"
        sets[EMBEDDED] = embedded_set(self._train, real, self._path, archive, refine_steps=self._refine_steps)
        say(f"{NAME}: films by class optimisation")
        known = self._codec.gauge != "none" or self._codec.spec.code.mean == "zero"
        prior = prior_of(self._codec, None if known else archive)
        wanted = wanted_films(real.marks, real.labels, len(real.ids))
        made = make_set(self._codec, classifier, wanted, prior=prior, draws=DRAWS, climbing=QUICK_CLIMB if self._quick else Climb())
        folder = write_made(made, self._codec, self._path, classifier, self._folder / "made.zarr")
        sets |= {GENERATED: made_set(made, folder, "classifier"), BY_AIM: made_set(made, folder, "aim")}
        return made

    def _classifier(self, name: str, films: TrainingSet) -> Classifier:
        """The classifier of a set, trained where it is not there or was interrupted. Raises as `train`, StepFailed where it was stopped."""
        out = self._folder / "classifiers" / name.lower().replace(",", "").replace(" ", "-")
        if not (out / CLASSIFIER_JSON).is_file() or read_note(out).get("is_stopped", True):
            say(f"{NAME}: training on {films.films} films: {name}")
            told = train(self._request(films, out))
            if told is None or told["is_stopped"]:
                raise StepFailed(f"training was stopped; the same command goes on: {name}")
        return load_classifier(out)

    def _request(self, films: TrainingSet, out: Path) -> Request:
        changes = {"resolution": self._codec.recipe.resolution, "labels": list(films.specs), **(QUICK if self._quick else {})}
        return Request(
            task=TASK,
            out=str(out),
            preset=PRESET,
            changes=changes,
            images=QUICK_IMAGES if self._quick else None,
            resume=bool(checkpoints(out / CHECKPOINTS)),
            films=FilmsRequest(source=films.source, split=SplitConfig(stratify=True)),  # as in section 4.5 of the paper
        )


def _phantoms(options: Options, count: int, seed: int, size: int) -> str:
    """A manifest of phantoms: those of `make systems` where they are the same, else drawn once; a few are drawn as they are needed."""
    if options.quick:
        return f"phantom:{count}?seed={seed}&size={size}"
    there = options.systems / "films" / "labels.csv"
    if (count, seed, size) == TRAIN and there.is_file():
        return str(there)
    folder = options.scratch / f"phantoms-{count}-{seed}-{size}"
    if not (folder / "labels.csv").is_file():
        say(f"{NAME}: drawing {count} phantoms")
        run_latentray("phantom", "--count", str(count), "--seed", str(seed), "--size", str(size), "--out", str(folder))
    return str(folder / "labels.csv")


def _table(found: Comparison, settings: dict[str, Any]) -> Iterator[Row]:
    for cell in found.cells:
        figures = {"low": cell.auc.low, "high": cell.auc.high} | ({} if cell.label == AVERAGE else {"films with": cell.films_with})
        if cell.classifier != REAL:
            figures |= {f"less {REAL}": cell.difference.value, "from": cell.difference.low, "to": cell.difference.high}
        yield Row(
            benchmark=NAME,
            step=f"{cell.label}: {cell.classifier}",
            unit="AUC",
            values=(cell.auc.value,),
            value_of="whole",
            figures=figures,
            settings=settings,
        )


def _made(made: MadeSet) -> Iterator[Row]:
    """How many patients reached each label, and in how many films of it the classifier sees it."""
    seen = made.marks("classifier")
    for aim, counts in made.figures.items():
        of_aim = [at for at, each in enumerate(made.aims) if each == aim]
        shows = ~seen[of_aim].any(axis=1) if aim == CLEAR else seen[of_aim, made.labels.index(aim)]
        figures = {**{name: float(value) for name, value in counts.items()}, "films that show it": float(shows.mean()) if of_aim else 0.0}
        share = counts["reached"] / counts["patients"] if counts["patients"] else 0.0
        yield Row(benchmark=NAME, step=f"made for: {aim}", unit="share of patients", values=(share,), value_of="whole", figures=figures)
