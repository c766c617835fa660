"""Where findings are on the films of a pack: boxes of a table, or those that a phantom knows of itself, in units of the film's side."""

from __future__ import annotations

import csv
import hashlib
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.errors import ConfigError, SourceError
from engine.lung_file import COLUMNS, frame
from trainers.packed_films import PackedFilms
from trainers.split import Indices

TRUTH = "truth"
_RSNA = ("patientId", "x", "y", "width", "height")  # of the pneumonia challenge's stage_2_train_labels.csv
Edges = tuple[float, float, float, float]


@dataclass(frozen=True)
class Boxes:
    """Of each film of a pack [k, 4] float32, x0 y0 x1 y1 in units of its side; k may be 0."""

    films: tuple[np.ndarray[Any, np.dtype[np.float32]], ...]

    def of_film(self, film: int) -> Tensor:
        """Its boxes [k, 4]."""
        return torch.from_numpy(self.films[film])

    def count(self, films: Indices) -> dict[str, int]:
        """How many of these films have boxes, and how many boxes."""
        found = [len(self.films[film]) for film in films]
        return {"films": sum(map(bool, found)), "boxes": sum(found)}

    @property
    def digest(self) -> str:
        """sha256, in hex, of all boxes."""
        hashed = hashlib.sha256()
        for boxes in self.films:
            hashed.update(f"{len(boxes)}\n".encode() + np.ascontiguousarray(boxes, dtype="<f4").tobytes())
        return hashed.hexdigest()


def mirror(boxes: Tensor) -> Tensor:
    """Boxes [k, 4] in units of the side on the film's mirror image."""
    x0, y0, x1, y1 = boxes.unbind(1)
    return torch.stack([1 - x1, y0, 1 - x0, y1], dim=1)


def read_boxes(packed: PackedFilms, wanted: str) -> Boxes:
    """The boxes of the films of a pack: TRUTH for a phantom's opacity, or the path of a table as `read_box_file` takes it.

    A film that the table does not name, by its id or by its file's name without ending, has no box. What a recipe crops away of a box is
    cut off. Raises ConfigError for TRUTH of other films and for a table beside phantoms, SourceError for a box outside its film and a
    table that names not one of the films.
    """
    if packed.plan is None:
        raise SourceError("boxes of films can be read only where their source is at hand")
    if packed.index.kind == "phantom":
        if wanted != TRUTH:
            raise ConfigError(f"phantoms know their own boxes, so the setting boxes must be {TRUTH}: {wanted}")
        return Boxes(tuple(map(_on_film, _phantoms(packed))))
    if wanted == TRUTH:
        raise ConfigError(f"only phantoms know their boxes; name a table with --set boxes=FILE (columns {', '.join(COLUMNS)}): {wanted}")
    return _of_files(packed, read_box_file(Path(wanted)), Path(wanted))


def read_box_file(path: Path) -> dict[str, list[Edges]]:
    """Boxes by film, in pixels of the upright file: a CSV with columns id, x0, y0, x1, y1, or patientId, x, y, width, height; one row a
    box. A row without numbers names a film that has none. Raises ConfigError, with the line, for what is no such table.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigError(f"table of boxes cannot be read ({error.strerror}): {path}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"table of boxes is no UTF-8 text: {path}") from None
    reader = csv.DictReader(lines)
    names = next((names for names in (COLUMNS, _RSNA) if set(names) <= set(reader.fieldnames or ())), None)
    if names is None:
        raise ConfigError(f"table of boxes needs columns {', '.join(COLUMNS)}, or {', '.join(_RSNA)}: {path}")
    boxes: dict[str, list[Edges]] = defaultdict(list)
    for row in reader:
        of_film, cells = boxes[row[names[0]] or ""], [row[name] or "" for name in names[1:]]
        if not any(cells):
            continue
        try:
            x0, y0, x1, y1 = map(float, cells)
        except ValueError:
            x0 = y0 = x1 = y1 = math.nan
        if names is _RSNA:
            x1, y1 = x0 + x1, y0 + y1
        if not (0 <= x0 < x1 < math.inf and 0 <= y0 < y1 < math.inf):
            raise ConfigError(f"table of boxes needs four numbers that make a box, in line {reader.line_num}: {path}")
        of_film.append((x0, y0, x1, y1))
    return boxes


def _of_files(packed: PackedFilms, table: dict[str, list[Edges]], path: Path) -> Boxes:
    ids, uris = (packed.plan.column(name).to_pylist() for name in ("sample_id", "uri"))
    found, square, sizes = [], packed.index.recipe["square"], packed.sizes()
    named = 0
    for row, (height, width) in zip(packed.rows, sizes.tolist(), strict=True):
        name = next((name for name in (ids[row], PurePosixPath(uris[row]).stem) if name in table), None)
        named += name is not None
        boxes = [] if name is None else table[name]
        for box in boxes:
            if box[2] > width or box[3] > height:
                raise SourceError(f"a box reaches outside its film of {width}x{height} pixels, {ids[row]}: {', '.join(map(str, box))}")
        left, top, across, down = frame((height, width), square)
        found.append([((x0 - left) / across, (y0 - top) / down, (x1 - left) / across, (y1 - top) / down) for x0, y0, x1, y1 in boxes])
    if not named:
        raise SourceError(f"table of boxes names not one of the {len(packed.rows)} films, {ids[packed.rows[0]]} for one: {path}")
    return Boxes(tuple(map(_on_film, found)))


def _phantoms(packed: PackedFilms) -> list[list[Edges]]:
    from engine.source.phantom import draw_labels, parse_phantom_uri  # a simulator, which films of patients need not load

    uris, found = packed.plan.column("uri").to_pylist(), []
    for row in packed.rows:
        place = parse_phantom_uri(uris[row])
        truth: dict[str, Any] = dict(draw_labels(place.seed, place.index, size=place.size))
        names = ("opacity_x0", "opacity_y0", "opacity_x1", "opacity_y1")
        x0, y0, x1, y1 = (float(truth[name]) / place.size if truth["opacity"] else 0.0 for name in names)
        found.append([(x0, y0, x1, y1)] if truth["opacity"] else [])
    return found


def _on_film(boxes: list[Edges]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Cut at the film's edges; what lies outside is left out."""
    cut = np.clip(np.array(boxes, dtype=np.float32).reshape(-1, 4), 0, 1)
    return cut[(cut[:, 0] < cut[:, 2]) & (cut[:, 1] < cut[:, 3])]
