"""A manifest of the session's forty phantoms with what is known of them."""

from __future__ import annotations

import csv
from pathlib import Path

from engine.source.phantom import draw_labels

SEED, SIZE = 3, 64  # of `small_films`
ATTRIBUTES = ["cardiomegaly", "opacity: opacity?", "effusion: effusion_left, effusion_right"]  # 10 films or more each, and of none


def write_manifest(small_films: Path, path: Path) -> str:
    """Writes path and truth of each film; a patient has two films."""
    rows = []
    for at, film in enumerate(sorted(small_films.iterdir())):
        truth = {name: int(value) if isinstance(value, bool) else value for name, value in draw_labels(SEED, at, size=SIZE).items()}
        rows.append({"path": str(film), "patient_id": at // 2, **truth})
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return str(path)
