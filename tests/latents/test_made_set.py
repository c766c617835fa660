"""Made sets: the proportions of real films, patients that reached their label, clear ones that show nothing, and both ways of labelling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.classify.classifier import Classifier, load_classifier
from engine.encode.codec import Codec, load_codec
from engine.errors import ConfigError
from engine.latents.made_set import CLEAR, MadeSet, make_set, wanted_films
from engine.latents.optimised import Climb
from engine.latents.starts import Draws, prior_of
from tests.small_classifier import LABELS, write_classifier

WANTED = {"effusion": 8, "mass": 5, CLEAR: 9}
CLIMB = Climb(lr=0.1, steps=300)


@pytest.fixture(scope="module")
def codec(small_codec: Path) -> Codec:
    return load_codec(small_codec)


@pytest.fixture(scope="module")
def classifier(codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """One that sees each label in four of ten films of the prior."""
    found = load_classifier(write_classifier(tmp_path_factory.mktemp("classifier")))
    rng, prior = np.random.default_rng(0), prior_of(codec)
    codes = np.stack([prior.draw(rng, 0.7) for _ in range(64)])
    with torch.inference_mode():
        logits = found.logits(codec.generate(torch.from_numpy(codes).reshape(-1, *codec.code_shape))).numpy()
    return with_thresholds(found, tuple(np.quantile(logits, 0.6, axis=0).tolist()))


def with_thresholds(classifier: Classifier, thresholds: tuple[float, ...]) -> Classifier:
    return Classifier(replace(classifier.spec, thresholds=thresholds), classifier.network, digest=classifier.digest)


@pytest.fixture(scope="module")
def made(codec: Codec, classifier: Classifier) -> MadeSet:
    return make_set(codec, classifier, WANTED, prior=prior_of(codec), draws=Draws(seed=3), climbing=CLIMB)


def test_shares_are_those_of_findings_and_of_films_without_any() -> None:
    marks = np.array([[1, 1], [1, 0], [0, 0], [0, 0], [0, 0]], dtype=bool)
    assert wanted_films(marks, LABELS, 60) == {"effusion": 20, "mass": 10, CLEAR: 30}
    assert sum(wanted_films(marks, LABELS, 7).values()) == 7
    with pytest.raises(ConfigError, match="proportions of real ones, and there are none: 0"):
        wanted_films(marks[:0], LABELS, 60)


def test_films_are_as_many_as_were_wanted_where_starts_reach_their_goal(made: MadeSet) -> None:
    for aim, count in WANTED.items():
        figures = made.figures[aim]
        assert made.aims.count(aim) == figures["films"] <= count == figures["wanted"]
        assert figures["reached"] <= figures["patients"] == -(-count // 4.5)
        assert len({p for p, of in zip(made.patients, made.aims, strict=True) if of == aim}) == figures["reached"]
        assert figures["reached"] > 0
    assert made.figures[CLEAR]["films"] == WANTED[CLEAR]
    assert len(set(made.ids)) == len(made.ids) == len(made.values) == len(made.logits)


def test_logits_are_those_of_the_films(made: MadeSet, codec: Codec, classifier: Classifier) -> None:
    with torch.inference_mode():
        films = codec.generate(torch.from_numpy(made.values).reshape(-1, *codec.code_shape))
        expected = classifier.logits(films).numpy()
    assert made.logits == pytest.approx(expected, abs=1e-4)
    for at, (name, aim) in enumerate(zip(made.ids, made.aims, strict=True)):
        if name.endswith("-1") and aim == CLEAR:
            assert (made.logits[at] < classifier.thresholds).all()
        elif name.endswith("-1"):
            assert made.logits[at, LABELS.index(aim)] >= classifier.thresholds[LABELS.index(aim)]


def test_labels_are_the_classifiers_or_those_of_the_aim(made: MadeSet) -> None:
    assert made.marks().tolist() == (made.logits >= np.array(made.thresholds)).tolist()
    assert 0 < made.marks().mean() < 1
    by_aim = made.marks("aim")
    assert by_aim.sum(axis=0).tolist() == [made.aims.count(label) for label in LABELS]
    assert by_aim.any(axis=1).tolist() == [aim != CLEAR for aim in made.aims]


def test_the_same_request_makes_the_same_set(made: MadeSet, codec: Codec, classifier: Classifier) -> None:
    again = make_set(codec, classifier, {CLEAR: 9}, prior=prior_of(codec), draws=Draws(seed=3))
    there = [at for at, aim in enumerate(made.aims) if aim == CLEAR]
    assert again.ids == tuple(made.ids[at] for at in there)
    assert np.array_equal(again.values, made.values[there])


def test_a_set_without_a_film_is_refused(codec: Codec, classifier: Classifier) -> None:
    never = with_thresholds(classifier, (1e6, 1e6))
    with pytest.raises(ConfigError, match=r"^no film was made, for no start reached its goal and none was clear; aims were: mass$"):
        make_set(codec, never, {"mass": 4}, prior=prior_of(codec), draws=Draws(), climbing=Climb(steps=2))
