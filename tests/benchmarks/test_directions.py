"""`bench directions` on a small linear codec: what its rows say, and that they follow from the films."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import directions
from benchmarks.inputs import Options


@pytest.mark.slow
def test_directions_are_judged_and_hearts_measured(small_codec: Path, tmp_path: Path) -> None:
    *found, edits = directions.rows(Options(codec=str(small_codec), quick=True, scratch=tmp_path))
    assert [row.step for row in found] == ["cardiomegaly", "effusion", "opacity", "pneumothorax", "nodule", "device", "view=AP", "sex=F"]
    for row in found:
        assert not row.failed
        assert row.values[0] < row.figures["separation_in_sample"]
        assert row.figures["films_with"] + row.figures["films_without"] == 80
    assert not edits.failed
    assert 0 <= edits.values[0] <= 1
    assert edits.figures["films"] + edits.figures["not measured"] > 0


def test_a_codec_that_is_not_there_is_a_failed_row(tmp_path: Path) -> None:
    (row,) = directions.rows(Options(codec=str(tmp_path / "none"), quick=True, scratch=tmp_path))
    assert "codec" in row.failed
