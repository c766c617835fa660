"""Distances as a person and a program read them: lines of a table, CSV, JSON with the map of sets, and a picture of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.csv_table import write_csv
from engine.distances.measured import Distances
from engine.distances.scaling import Matrix, link_sets, place_sets
from engine.distances.set_map import draw_map
from engine.errors import ConfigError

CSV, JSON, PICTURE = "distances.csv", "distances.json", "distances.png"
ROOTS = "root of the Fréchet distance"


def distance_lines(found: Distances) -> list[str]:
    """The table: a set, its films, what it is held against, that one's films, and the distance of the two; then what to know of it."""
    wide, to_wide = (
        max(map(len, column)) for column in (["split", *(row.split for row in found.rows)], ["to", *(row.to for row in found.rows)])
    )
    lines = [f"{'split':<{wide}}  {'films':>7}  {'to':<{to_wide}}  {'films':>7}  {'Fréchet':>9}"]
    lines += [
        f"{row.split:<{wide}}  {row.films:>7,}  {row.to:<{to_wide}}  {row.to_films:>7,}  {_figure(row.distance):>9}" for row in found.rows
    ]
    lines.append(f"by the {found.features['dim']} features of {found.features['name']} at {found.size}x{found.size}")
    smallest = min(min(row.films, row.to_films) for row in found.rows)
    largest = max(max(row.films, row.to_films) for row in found.rows)
    if smallest != largest:
        lines.append(
            f"sets have {smallest:,} to {largest:,} films, and fewer films raise a distance; --films {smallest} makes them compare"
        )
    lines += [f"left out, too few films: {name}, {count:,}" for name, count in found.left_out.items()]
    if found.unread:
        lines.append(f"left out, films that cannot be read: {found.unread:,}")
    lines += [f"made of its files by another pixel recipe, which may add to its distance: {name}" for name in found.other_recipes]
    return lines


def write_distances(found: Distances, out: Path) -> list[Path]:
    """Writes CSV, JSON and PNG to `out`, which is made, and returns the three. Raises ConfigError where that cannot be.

    CSV and JSON have the distances themselves, which are squared (Heusel et al. 2017). Map and tree are of their roots: only the root is a
    metric, that is, keeps to the triangle inequality, without which there is no map to draw.
    """
    roots = np.sqrt(found.matrix)
    names = list(found.sets)
    places, stress = place_sets(roots, seed=found.seed)
    linked = link_sets(roots)
    tree = {"of": ROOTS, "method": "average", "linkage": linked.tolist(), "order": _order(linked, names)}
    plane = {
        "of": ROOTS,
        "method": "classical scaling, then SMACOF",
        "stress": stress,
        "places": dict(zip(names, places.tolist(), strict=True)),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        values = zip(found.sets.items(), found.matrix, strict=True)
        write_csv(out / CSV, ["set", "films", *found.sets], ([name, films, *(f"{v:.9g}" for v in row)] for (name, films), row in values))
        (out / JSON).write_text(json.dumps(found.to_json() | {"map": plane, "tree": tree}, indent=1) + "\n", encoding="utf-8")
        draw_map(found, places, stress, linked, out / PICTURE)
    except OSError as error:
        raise ConfigError(f"distances cannot be written: {error.strerror}: {out}") from None
    return [out / name for name in (CSV, JSON, PICTURE)]


def _order(linked: Matrix, names: Sequence[str]) -> list[str]:
    from scipy.cluster.hierarchy import leaves_list

    return [names[at] for at in leaves_list(linked)]


def _figure(value: float) -> str:
    """Two digits behind the point, or three that say something."""
    return f"{value:.2f}" if value >= 1 or value == 0 else f"{value:.3g}"
