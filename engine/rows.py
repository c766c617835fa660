"""One shard's rows while they are being filled: every film ends as exactly one row, whatever happened to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine.archive.schema import RowArray
from engine.records import Failure, ImageRef, Shard, ShardRows, SourceInfo, Status

QUALITY = ("mse_initial", "mse", "psnr", "ssim")


class RowTable:
    """The columns of one shard, filled row by row. Latents are rounded to the stored type before they are measured.

    `further`: the arrays of this archive that not every one has.
    """

    def __init__(self, shard: Shard, code_shape: Sequence[int], latent_dtype: str, further: Mapping[str, RowArray] | None = None) -> None:
        n = len(shard.refs)
        self._place = {ref.row: at for at, ref in enumerate(shard.refs)}
        self._refs = shard.refs
        self.errors: list[Exception] = []  # what the codec raised, film by film
        self._failures: dict[int, Failure] = {}
        self.columns: dict[str, np.ndarray[Any, Any]] = {
            "latent": np.full((n, *code_shape), np.nan, dtype=latent_dtype),
            "sample_id": np.array([ref.sample_id for ref in shard.refs], dtype=object),
            "status": np.zeros(n, dtype="u1"),
            **{name: np.full(n, np.nan, dtype="f4") for name in QUALITY},
            "steps": np.zeros(n, dtype="u2"),
            "source_sha256": np.zeros((n, 32), dtype="u1"),
            "source_height": np.zeros(n, dtype="u2"),
            "source_width": np.zeros(n, dtype="u2"),
            "source_bits": np.zeros(n, dtype="u1"),
        }
        self._further = dict(further or {})
        for name, array in self._further.items():
            self.columns[name] = np.full((n, *array.shape), array.fill, dtype=array.column_dtype)

    @property
    def num_rows(self) -> int:
        """Rows of the shard."""
        return len(self._refs)

    @property
    def num_coded(self) -> int:
        """Rows that hold a code."""
        return int(np.isin(self.columns["status"], (Status.OK, Status.REFINE_DIVERGED)).sum())

    def put_source(self, ref: ImageRef, info: SourceInfo) -> None:
        """Records what was learnt of a film's file, also of one that failed later."""
        at = self._place[ref.row]
        self.columns["source_sha256"][at] = np.frombuffer(info.sha256, dtype="u1") if info.sha256 else 0
        for name, value in (("source_height", info.height), ("source_width", info.width), ("source_bits", info.bits)):
            self.columns[name][at] = value

    def source_digest(self, ref: ImageRef) -> bytes:
        """sha256 of a film's file, as `put_source` recorded it."""
        return bytes(self.columns["source_sha256"][self._place[ref.row]].tobytes())

    def source_size(self, ref: ImageRef) -> tuple[int, int]:
        """Height and width of a film's file, as `put_source` recorded them."""
        at = self._place[ref.row]
        return int(self.columns["source_height"][at]), int(self.columns["source_width"][at])

    def put_further(self, ref: ImageRef, values: Mapping[str, Any]) -> None:
        """Records a film's values of the further arrays, already of the stored types."""
        for name, value in values.items():
            self.columns[name][self._place[ref.row]] = value

    def put_latent(self, ref: ImageRef, latent: np.ndarray[Any, Any], steps: int, quality: dict[str, float]) -> None:
        """Records a film that came through: its code (already of the stored type), refinement steps and quality figures."""
        at = self._place[ref.row]
        self.columns["latent"][at] = latent
        self.columns["steps"][at] = steps
        self.columns["status"][at] = Status.OK
        for name, value in quality.items():
            self.columns[name][at] = value

    def fail(self, failure: Failure, *, keep_latent: bool = False) -> None:
        """Marks a film as failed. Its code becomes NaN unless `keep_latent` (a diverged film keeps its best finite code)."""
        at = self._place[failure.row]
        self.columns["status"][at] = failure.status
        if not keep_latent:
            self.columns["latent"][at] = np.nan
            self.columns["steps"][at] = 0
            for name in QUALITY:
                self.columns[name][at] = np.nan
            for name, array in self._further.items():
                self.columns[name][at] = array.fill
        self._failures[failure.row] = failure

    def finish(self) -> ShardRows:
        """The filled columns; raises AssertionError when a film ended nowhere, which would be our own mistake."""
        missing = [ref.sample_id for ref, status in zip(self._refs, self.columns["status"], strict=True) if status == Status.NOT_WRITTEN]
        assert not missing, f"films without an outcome: {missing[:3]}"
        return ShardRows(columns=self.columns, failures=[self._failures[row] for row in sorted(self._failures)])
