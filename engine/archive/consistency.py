"""What must hold between the columns of a shard and its failures: asked before rows are published, and again by `verify`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from engine.archive.chunks import Column
from engine.records import Failure, Status

WITH_CODE = (Status.OK, Status.REFINE_DIVERGED)  # a refinement that diverged keeps its best finite code


def contradictions(columns: Mapping[str, Column], failures: Sequence[Failure], *, first_row: int) -> list[tuple[str, str]]:
    """(array, what is wrong) for every rule that the rows of one shard break; at most one line a rule."""
    status = columns["status"]
    found: list[tuple[str, str]] = []
    unknown = ~np.isin(status, [int(known) for known in Status if known is not Status.NOT_WRITTEN])
    if unknown.any():
        found.append(("status", f"row {first_row + _first(unknown)} has no status: {int(status[_first(unknown)])}"))
    found += _of_codes(columns["latent"], status, first_row)
    found += _of_failures(columns, failures, first_row)
    empty = np.array([not name for name in columns["sample_id"]], dtype=bool)
    if empty.any():
        found.append(("sample_id", f"row {first_row + _first(empty)} has no id"))
    return found


def count_rows(status: Column) -> dict[str, int]:
    """How many rows have each status, by its name in lower case; statuses that no row has are left out."""
    counts = Counter(int(value) for value in status)
    return {known.name.lower(): counts[int(known)] for known in Status if counts[int(known)]}


def _of_codes(latent: Column, status: Column, first_row: int) -> list[tuple[str, str]]:
    flat = latent.reshape(len(latent), -1)
    has_code = np.isin(status, WITH_CODE)
    broken = has_code & ~np.isfinite(flat).all(axis=1)
    stray = ~has_code & ~np.isnan(flat).all(axis=1)
    found = []
    if broken.any():
        found.append(("latent", f"row {first_row + _first(broken)} should have a code, but it is not finite"))
    if stray.any():
        found.append(("latent", f"row {first_row + _first(stray)} failed, but its code is not NaN"))
    return found


def _of_failures(columns: Mapping[str, Column], failures: Sequence[Failure], first_row: int) -> list[tuple[str, str]]:
    status = columns["status"]
    listed = {failure.row: (int(failure.status), failure.sample_id) for failure in failures}
    failed = np.flatnonzero(status != Status.OK)
    stored = {first_row + int(at): (int(status[at]), str(columns["sample_id"][at])) for at in failed}
    if listed == stored and len(listed) == len(failures):
        return []
    rows = sorted(row for row in {*listed, *stored} if listed.get(row) != stored.get(row)) or sorted(listed)
    return [("status", f"the failures listed for the shard are not its failed rows, as at row {rows[0]}")]


def _first(mask: Column) -> int:
    return int(np.argmax(mask))
