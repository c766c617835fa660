"""The codes of an archive as one table in memory, on their gauge, with rows that hold none left out and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from engine.archive.code_reader import open_codes
from engine.archive.reader import open_archive, read_values
from engine.archive.root import AnyPath, fingerprint_parts
from engine.encode.gauge import Gauge, project
from engine.errors import ArchiveError
from engine.records import Status

Values = np.ndarray[Any, np.dtype[np.float32]]
Rows = np.ndarray[Any, np.dtype[np.int64]]

CODED = (Status.OK, Status.REFINE_DIVERGED)  # a refinement that diverged kept its best code


@dataclass(frozen=True, kw_only=True, eq=False)
class Space:
    """Where codes live: the `shape` of one, its gauge, and the codec, by name and digest, whose films they stand for."""

    shape: tuple[int, ...]
    gauge: Gauge
    codec: str
    digest: str

    @property
    def size(self) -> int:
        """Numbers of a code."""
        return int(np.prod(self.shape))

    def on_gauge(self, values: Values) -> Values:
        """Codes [n, size] as the codec's gauge has them."""
        latents = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).reshape(-1, *self.shape)
        found: Values = project(latents, self.gauge).reshape(len(values), self.size).numpy()
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Codes:
    """`values` [n, d] float32 on the gauge, of `rows` [n] of an archive with these `ids`. `left_out`: its rows without a finite code."""

    space: Space
    values: Values
    rows: Rows
    ids: Sequence[str]
    left_out: int

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def place_of(self) -> dict[str, int]:
        """Where each id is among these codes."""
        return {name: place for place, name in enumerate(self.ids)}

    def place(self, sample_id: str) -> int:
        """Where one id is. Raises ArchiveError for one that has no code here."""
        if sample_id not in self.place_of:
            raise ArchiveError(f"the archive has no code of this id: {sample_id}")
        return self.place_of[sample_id]

    def of_rows(self, rows: Sequence[int]) -> Codes:
        """Those of these rows of the archive, in this order. Raises ArchiveError for a row without a code."""
        place_at = {int(row): place for place, row in enumerate(self.rows)}
        without = [row for row in rows if row not in place_at]
        if without:
            raise ArchiveError(f"{len(without)} of these rows hold no code, the first of them is: {without[0]}")
        return self.take([place_at[row] for row in rows])

    def take(self, places: Sequence[int] | Rows) -> Codes:
        """Some of them, in this order."""
        places = np.asarray(places, dtype=np.int64)
        return replace(self, values=self.values[places], rows=self.rows[places], ids=[self.ids[place] for place in places])


def read_codes(archive: AnyPath) -> Codes:
    """All codes of an archive that are there and finite. Raises ArchiveError where there are none, and as `open_archive`.

    Takes 4 bytes a number: 2 GB for a million codes of 512.
    """
    dataset = open_archive(archive)
    status, names = read_values(dataset, "status"), read_values(dataset, "sample_id")
    latent = open_codes(archive).read()
    flat = latent.reshape(len(latent), -1).astype(np.float32)
    usable = np.isin(status, [int(each) for each in CODED]) & np.isfinite(flat).all(axis=1)
    rows = np.flatnonzero(usable)
    if not len(rows):
        raise ArchiveError(f"the archive holds no finite code, of {len(status)} rows: {archive}")
    parts = fingerprint_parts(archive)
    space = Space(shape=latent.shape[1:], gauge=_gauge(parts), codec=str(parts["codec"]["name"]), digest=str(parts["codec"]["digest"]))
    return Codes(
        space=space,
        values=space.on_gauge(flat[rows]),
        rows=rows,
        ids=[str(names[row]) for row in rows],
        left_out=len(status) - len(rows),
    )


def _gauge(parts: dict[str, Any]) -> Gauge:
    gauge: Gauge = parts["latent"]["gauge"]
    return gauge
