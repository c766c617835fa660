"""`latentray decompose --workers 2` on a local Ray: the bytes of its archive are those that one process writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.archive.reader import read_receipts
from engine.archive.verify import verify_archive
from engine.cli import run_verb
from engine.verbs import decompose
from tests.small_dgm import write_dgm

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

WORDS = ["--limit", "8", "--shard-rows", "2", "--batch-size", "2", "--threads", "1", "--film-size", "32", "--quiet"]


def objects(archive: Path) -> dict[str, bytes]:
    """Every object that holds rows; commit records hold times and are left out."""
    keys = [path for path in archive.rglob("*") if path.is_file() and "c" in path.parts and "shards" not in path.parts]
    return {str(path.relative_to(archive)): path.read_bytes() for path in keys}


def test_maps_are_the_same_bytes_as_without_ray(small_films: Path, tmp_path: Path) -> None:
    codec = write_dgm(tmp_path / "dgm")
    for workers in ("0", "2"):
        words = [str(small_films), "--archive", str(tmp_path / f"{workers}.zarr"), "--codec", str(codec), "--workers", workers, *WORDS]
        assert run_verb("decompose", decompose, words) == 0
    alone, on_ray = tmp_path / "0.zarr", tmp_path / "2.zarr"
    assert objects(on_ray) == objects(alone)
    assert any(key.startswith("saliency/") for key in objects(alone))
    assert len({receipt.made_by["process"] for receipt in read_receipts(on_ray)} - {read_receipts(alone)[0].made_by["process"]}) >= 1
    assert verify_archive(on_ray) == []
