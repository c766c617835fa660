"""The published climb takes our steps, one film at a time: what is compared is what a step costs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.refinement.class_optimisation import OURS, PUBLISHED, hardest, measure
from benchmarks.refinement.published_climb import PublishedClimb
from engine.classify.classifier import load_classifier
from engine.encode.codec import load_codec
from engine.latents.class_optimisation import climb
from engine.latents.uphill import build_uphill
from tests.small_classifier import write_classifier
from tests.small_pggan import make_pggan_codec


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return make_pggan_codec(folder / "codec", resolution=16), write_classifier(folder / "classifier")


def test_it_ends_where_ours_ends(models: tuple[Path, Path]) -> None:
    codec, classifier = load_codec(models[0]), load_classifier(models[1])
    label, starts = hardest(codec, classifier, 4)
    column = classifier.index(label)
    loop = PublishedClimb(codec.generator, lambda films: classifier.logits(films)[:, column], codec.project)
    ours = climb(starts, build_uphill(codec, classifier, slots=1).ascent(label), codec.project, stride=0.05, steps=12, slots=1)
    expected = {each.start.number: each for each in ours}
    for start in starts:
        code, steps = loop.climb(start.code, start.goal, stride=0.05, steps=12)
        assert steps == expected[start.number].steps
        torch.testing.assert_close(code, expected[start.number].code, rtol=1e-2, atol=1e-2)
    assert max(each.steps for each in expected.values()) > 0


def test_every_way_is_measured_on_the_same_starts(models: tuple[Path, Path]) -> None:
    names = [PUBLISHED, *(name for name in OURS if "Inductor" not in name)]
    found = measure(codec=str(models[0]), classifier=str(models[1]), names=names, quick=True)
    assert found["unavailable"] == {}
    assert list(found["rates"]) == list(found["quality"]) == names
    first = found["quality"][PUBLISHED]
    for name in names:
        assert found["quality"][name]["steps"] == pytest.approx(first["steps"], abs=2.5)
        assert found["rates"][name][0] >= 0
        assert found["quality"][name]["reached"] == pytest.approx(first["reached"], abs=0.3)
