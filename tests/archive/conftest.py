"""Fixtures of the archive's tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.archive.cases import make_archive


@pytest.fixture(scope="session")
def _pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("pristine") / "films.zarr").parent


@pytest.fixture
def archive(_pristine: Path, tmp_path: Path) -> Path:
    """A finished archive of 10 rows in 3 shards, with a codec inside and a plan beside it, to be damaged at will."""
    shutil.copytree(_pristine, tmp_path / "copy")
    return tmp_path / "copy" / "films.zarr"
