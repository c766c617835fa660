"""Labels of films as a trainer asks for them: which cells of a manifest, or which findings of a phantom, mean yes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from engine.errors import ConfigError, SourceError
from engine.labels import Cells, LabelSpec
from engine.source.plan_file import LABEL
from trainers.packed_films import PackedFilms
from trainers.split import Split

_SHOWN = 3
Values = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Labels:
    """`values` [films, labels] float32, 1 for yes and 0 for no, of every film of a pack."""

    names: tuple[str, ...]
    values: Values


def read_labels(packed: PackedFilms, wanted: Sequence[str]) -> Labels:
    """The labels `wanted` (`LabelSpec.parse`) of the films of a pack, from the manifest's columns or the phantoms' own truth.

    Raises ConfigError for a column that is not there, and SourceError, saying how many and which, for cells that are empty or neither
    yes nor no: a film without a label is not one without a finding.
    """
    specs = [LabelSpec.parse(text) for text in wanted]
    names = tuple(spec.name for spec in specs)
    if len(set(names)) != len(names):
        raise ConfigError(f"labels must have names of their own: {', '.join(names)}")
    if packed.plan is None:
        raise SourceError("labels of films can be read only where their source is at hand")
    cells = _cells(packed, {column for spec in specs for column in spec.columns})
    ids = packed.plan.column("sample_id").to_pylist()
    columns = [_values(spec, cells, [ids[row] for row in packed.rows]) for spec in specs]
    return Labels(names, np.stack(columns, axis=1))


def check_classes(labels: Labels, split: Split) -> None:
    """Raises SourceError for a label that all films which train have, or none."""
    for name, values in zip(labels.names, labels.values[split.train].T, strict=True):
        if len(set(values.tolist())) < 2:
            which = "with it" if not values.any() else "without it"
            raise SourceError(f"label {name} cannot be learned, not one of {len(values)} films that train is {which}")


def _cells(packed: PackedFilms, columns: Iterable[str]) -> dict[str, Cells]:
    """The cells of these columns for the films of the pack, as text; None for empty ones."""
    if packed.index.kind == "phantom":
        return _phantom_cells(packed, columns)
    known = [name.removeprefix(LABEL) for name in packed.plan.column_names if name.startswith(LABEL)]
    found: dict[str, Cells] = {}
    for name in columns:
        if name not in known:
            raise ConfigError(f"source has no such column for a label, it has {', '.join(known) or 'none'}: {name}")
        every = packed.plan.column(LABEL + name).to_pylist()
        found[name] = [every[row] for row in packed.rows]
    return found


def _phantom_cells(packed: PackedFilms, columns: Iterable[str]) -> dict[str, Cells]:
    """As `latentray phantom` writes them into labels.csv."""
    from engine.source.phantom import draw_labels, parse_phantom_uri  # a simulator, which films of patients need not load

    uris = packed.plan.column("uri").to_pylist()
    places = [parse_phantom_uri(uris[row]) for row in packed.rows]
    truths = [draw_labels(place.seed, place.index, size=place.size) for place in places]
    for name in columns:
        if name not in truths[0]:
            raise ConfigError(f"phantoms have no such label, they have {', '.join(truths[0])}: {name}")
    return {name: [_text(truth[name]) for truth in truths] for name in columns}


def _text(value: object) -> str | None:
    value = int(value) if isinstance(value, bool) else value
    return None if value in (None, "") else str(value)


def _values(spec: LabelSpec, cells: dict[str, Cells], ids: Sequence[str]) -> Values:
    any_of = spec.marks(cells)
    silent = [name for name, value in zip(ids, any_of, strict=True) if value is None]
    if silent:
        columns = ", ".join(spec.columns)
        shown = ", ".join(silent[:_SHOWN]) + (" ..." if len(silent) > _SHOWN else "")
        raise SourceError(f"label {spec.name} (column {columns}) says neither yes nor no for {len(silent)} of {len(ids)} films: {shown}")
    return np.array(cast("list[bool]", any_of), dtype=np.float32)
