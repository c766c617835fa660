"""`bench directions` on a small linear codec: what its rows say, and that they follow from the films."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.inputs import Options
from benchmarks.models import directions
from benchmarks.models.direction_edits import _rising
from engine import encode_dataset
from tests.small_classifier import write_classifier

FILMS = 80
SEPARATED = [
    "cardiomegaly",
    "cardiomegaly above 0.55 against 0.45",
    "effusion",
    "opacity",
    "pneumothorax",
    "nodule",
    "device",
    "view=AP",
    "sex=F",
]
MOVED = ["cardiomegaly, -4.5 to 4.5", "effusion, 0 to 3", "opacity, 0 to 3", "sex=F, -4.5 to 4.5"]


@pytest.mark.slow
def test_directions_are_judged_and_edits_measured(small_codec: Path, tmp_path: Path) -> None:
    archive = tmp_path / "films.zarr"
    encode_dataset(f"phantom:{FILMS}?seed=31&size=256", str(archive), str(small_codec), workers=0, metrics="none", quiet=True)
    every = list(directions.rows(Options(films=str(archive), classifier=str(write_classifier(tmp_path / "classifier")), scratch=tmp_path)))
    found, edits = every[: len(SEPARATED)], every[len(SEPARATED) :]
    assert [row.step for row in found] == SEPARATED
    for row in found:
        assert not row.failed
        assert row.values[0] < row.figures["separation_in_sample"]
        assert row.figures["films_with"] + row.figures["films_without"] + row.figures["unknown"] == FILMS
    clear = found[1].figures
    assert clear["unknown"] > 0
    assert clear["of the true ratio"] > found[0].figures["of the true ratio"]
    assert [row.step.partition(":")[0] for row in edits[::2]] == MOVED
    for grown, elsewhere in zip(edits[::2], edits[1::2], strict=True):
        assert not grown.failed
        assert 0 <= grown.values[0] <= 1
        assert grown.figures["films"] + grown.figures["not measured"] > 0
        assert elsewhere.values[0] in [abs(value) for name, value in elsewhere.figures.items() if name.startswith("change")]


def test_a_film_rises_where_it_never_falls_and_ends_higher() -> None:
    assert _rising(np.array([[0.0, 1, 1, 2], [0, 2, 1, 3], [1, 1, 1, 1], [3, 2, 1, 0]])) == 0.25


def test_a_codec_that_is_not_there_is_a_failed_row(tmp_path: Path) -> None:
    (row,) = directions.rows(Options(codec=str(tmp_path / "none"), quick=True, scratch=tmp_path))
    assert "codec" in row.failed
