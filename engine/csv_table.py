"""A table as CSV: a line of columns, then the rows."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from engine.errors import ConfigError


def write_csv(path: Path, columns: Iterable[object], rows: Iterable[Iterable[object]]) -> None:
    """Writes it, and the folder that it is to lie in. Raises ConfigError where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(columns)
            table.writerows(rows)
    except OSError as error:
        raise ConfigError(f"the table cannot be written: {error.strerror}: {path}") from None
