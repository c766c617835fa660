"""Boxes around lungs that another program has found: a CSV of id, x0, y0, x1, y1 in pixels of the source files, and the way to films."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError
from engine.lung_box import Box
from engine.recipe import Square

COLUMNS = ("id", "x0", "y0", "x1", "y1")
Edges = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class LungFile:
    """Boxes by the ids that the archive has. `data` is the file's bytes, by whose digest it is known again."""

    boxes: dict[str, Edges]
    data: bytes

    def box_of(self, sample_id: str, *, source: tuple[int, int], side: int, square: Square) -> Box | None:
        """The box on a film of `side` pixels made from a file of `source` = (height, width); None where the file has none on the film."""
        edges = self.boxes.get(sample_id)
        return None if edges is None else on_film(edges, source=source, side=side, square=square)


def read_lung_file(path: str | Path) -> LungFile:
    """Reads boxes; further columns are passed over. Raises ConfigError, with the line, for what is no such table."""
    try:
        data = Path(path).read_bytes()
        lines = data.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigError(f"the file of lung boxes cannot be read: {error.strerror}: {path}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the file of lung boxes is no UTF-8 text: {path}") from None
    reader = csv.DictReader(lines)
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise ConfigError(f"the file of lung boxes has no column {', '.join(missing)}: {path}")
    boxes: dict[str, Edges] = {}
    for row in reader:
        try:
            x0, y0, x1, y1 = (float(row[name]) for name in COLUMNS[1:])
        except (TypeError, ValueError):
            x0 = y0 = x1 = y1 = math.nan
        if not (0 <= x0 < x1 < math.inf and 0 <= y0 < y1 < math.inf):
            raise ConfigError(f"the file of lung boxes needs 0 <= x0 < x1 and 0 <= y0 < y1 in line {reader.line_num}: {path}")
        if row["id"] in boxes:
            raise ConfigError(f"the file of lung boxes has an id twice, in line {reader.line_num}: {path}")
        boxes[row["id"]] = x0, y0, x1, y1
    return LungFile(boxes, data)


def on_film(edges: Edges, *, source: tuple[int, int], side: int, square: Square) -> Box | None:
    """A box in pixels of an upright source as one on the film that a recipe makes of it, cut at its edges; None if nothing is left."""
    left, top, across, down = frame(source, square)
    x0, y0, x1, y1 = edges
    box = (
        max(0, math.floor((x0 - left) * side / across)),
        max(0, math.floor((y0 - top) * side / down)),
        min(side, math.ceil((x1 - left) * side / across)),
        min(side, math.ceil((y1 - top) * side / down)),
    )
    return box if box[0] < box[2] and box[1] < box[3] else None


def frame(source: tuple[int, int], square: Square) -> tuple[int, int, int, int]:
    """Left, top, width and height, in pixels of a source (height, width), of what a recipe makes its film of; it may reach outside."""
    height, width = source
    longest, shortest = max(height, width), min(height, width)
    across, down = {"stretch": (width, height), "pad": (longest, longest), "crop": (shortest, shortest)}[square]
    if square == "pad":
        return -((across - width) // 2), -((down - height) // 2), across, down  # rounded as the pad is
    return (width - across) // 2, (height - down) // 2, across, down
