"""An archive of phantoms with known findings, for what is done with codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import encode_dataset

PHANTOMS = "phantom:60?seed=21&size=32"


@pytest.fixture(scope="session")
def coded_phantoms(small_codec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty phantoms coded by a PCA codec, with its plan beside it."""
    path = tmp_path_factory.mktemp("latents") / "phantoms.zarr"
    encode_dataset(PHANTOMS, str(path), str(small_codec), workers=0, metrics="none", shard_rows=16, quiet=True)
    return path
