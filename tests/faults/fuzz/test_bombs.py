"""Bombs: limits hold before anything is allocated, and what headers do not tell is stopped by the guard."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import simplejpeg

from tests.faults.fuzz.bombs import LIMITS, SIDE, bombs
from tests.faults.fuzz.harness import ROOT

# What each must come to: a pattern of its reason, or "" where the film itself is small and whole, and the bomb is stepped over.
WORDS = {
    "png-claims": "max_pixels",
    "png-inflates": "too many bytes",
    "png-large-inflates": "took longer than 1.5 s",
    "png-two-headers": "PNG pixels are damaged",
    "png-text": "",
    "png-colour-profile": "",
    "jpeg-claims": "max_pixels",
    "jpeg-hidden-header": "segments are damaged",
    "jpeg-scans": "took longer than 1.5 s",
    "tiff-claims": "max_pixels",
    "tiff-inflates": "TIFF data cannot be decoded",
    "tiff-holds-huge-jpeg": "TIFF data cannot be decoded",
    "tiff-holds-huge-jp2": "TIFF data cannot be decoded",
    "tiff-directories-in-circles": "",
    "tiff-directories": "",
    "jp2-claims": "max_pixels",
    "jp2-tiles": "JPEG 2000 data cannot be decoded",
    "dicom-claims": "max_pixels",
    "dicom-holds-huge-j2k": "another size",
    "dicom-holds-huge-jpeg": "another size",
    "dicom-inflates": "max_bytes",
    "dicom-inflates-without-preamble": "max_bytes",
    "dicom-inflates-twice": "deflated twice",
    "dicom-elements": "for ever",
    "dicom-fragments": "for ever",
    "dicom-runs": "took longer than 1.5 s|DICOM data cannot be decoded",  # by how quick the machine is
}
MIB = 2**20

pytestmark = pytest.mark.xdist_group("fuzz")  # they share one run over all bombs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bombs")
    for name, data in bombs().items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def costs(folder: Path) -> dict[str, dict[str, Any]]:
    """What a process of its own says of each bomb; "a-film", the first, is a film that is none."""
    command = [sys.executable, "-m", "tests.faults.fuzz.bombs", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    return {found["name"]: found for found in map(json.loads, done.stdout.splitlines())}


def test_every_bomb_becomes_a_film_or_a_reason(costs: dict[str, dict[str, Any]]) -> None:
    assert costs.keys() - {"a-film", "children"} == WORDS.keys()
    assert costs["a-film"]["reason"] == ""
    for name, word in WORDS.items():
        reason = costs[name]["reason"]
        assert re.search(word, reason), (name, reason)
        assert bool(word) == bool(reason), (name, reason)


def test_no_bomb_takes_memory_or_time(costs: dict[str, dict[str, Any]]) -> None:
    grown = max(cost["peak"] for name, cost in costs.items() if name != "children") - costs["a-film"]["peak"]
    # A deflated file and its inflated one may each be as large as files may be; 60,000 x 60,000 pixels would be 3,400 MiB.
    assert grown < 4 * LIMITS.max_bytes / MIB
    assert costs["children"]["peak"] < 1500
    assert max(cost["seconds"] for name, cost in costs.items() if name != "children") < 10


def test_hidden_header_is_one_that_libjpeg_believes(folder: Path) -> None:
    assert simplejpeg.decode_jpeg_header((folder / "jpeg-hidden-header").read_bytes())[:2] == (SIDE, SIDE)
