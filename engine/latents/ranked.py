"""The films of an archive ranked by what its codec cannot draw: the ranking, its table and its pictures."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import torch

from engine.csv_table import write_csv
from engine.errors import ArchiveError, SourceError
from engine.latents.film_pairs import FilmsOfArchive, Missing
from engine.latents.outliers import MARGIN, Box, check_margin, judge
from engine.lung_file import frame
from engine.pictures import Image, check_folder, colour_residual, named, safe_name, side_by_side, to_bytes, write_png
from engine.recipe import Square

COLUMNS = ("rank", "id", "score", "x0", "y0", "x1", "y1")
RESIDUAL_RANGE = 0.25  # of gray levels in [0, 1], at which the colour of a residual is full
GAP = 1 / 64  # between panels, as a share of their side
_GREEN = (0, 200, 0)


@dataclass(frozen=True, slots=True)
class Place:
    """One film of a ranking. `box`: x0 y0 x1 y1 of its strongest part, in pixels of the film's own file; all 0 where nothing is left."""

    sample_id: str
    score: float
    box: Box


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Films by falling score. `without_code`, `unread`, `without_film`: rows that could not be judged, each for its reason."""

    places: list[Place]
    without_code: int
    unread: int
    without_film: int


def rank(films: FilmsOfArchive, *, margin: float = MARGIN) -> Ranking:
    """Judges every film of an archive that has a code; the films of equal score keep the archive's order.

    Memory: a line of the table for each film, and one batch of films. Raises ConfigError for a margin that leaves nothing,
    SourceError where the source has no film of the archive, ArchiveError where none can be judged.
    """
    check_margin(margin)
    replay, missing = films.replay, Missing()
    with_code, square = replay.row_of, replay.codec.recipe.square
    places: list[Place] = []
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for batch in films.pairs(set(with_code), missing):
            found = pool.map(partial(judge, margin=margin), batch.films, batch.reconstructions)
            for ref, info, outlier in zip(batch.refs, batch.infos, found, strict=True):
                box = in_file(outlier.box, side=films.side, source=(info.height, info.width), square=square)
                places.append(Place(ref.sample_id, outlier.score, box))
    judged = len(places) + missing.codes + missing.files
    if with_code and not judged:
        raise SourceError(f"the source has none of the {len(with_code)} films of the archive, for example {next(iter(with_code))}")
    if not places:
        raise ArchiveError(f"the archive has no film to rank, of {len(replay.status)} rows: {films.replay.codec.name}")
    places.sort(key=lambda place: (-place.score, with_code[place.sample_id]))
    return Ranking(
        places=places,
        without_code=len(replay.status) - len(with_code) + missing.codes,
        unread=missing.files,
        without_film=len(with_code) - judged,
    )


def in_file(box: Box, *, side: int, source: tuple[int, int], square: Square) -> Box:
    """A box on a film of `side` pixels as one in its file of `source` = (height, width) pixels, cut at the file's edges."""
    if not any(box):
        return box
    (height, width), (left, top, across, down) = source, frame(source, square)
    (x0, x1), (y0, y1) = ((edge * across / side + left for edge in box[0::2]), (edge * down / side + top for edge in box[1::2]))
    return max(0, math.floor(x0)), max(0, math.floor(y0)), min(width, math.ceil(x1)), min(height, math.ceil(y1))


def write_table(path: Path, ranking: Ranking) -> None:
    """All films of a ranking as CSV with COLUMNS. Raises ConfigError where it cannot be written."""
    write_csv(path, COLUMNS, ([at, each.sample_id, f"{each.score:.4f}", *each.box] for at, each in enumerate(ranking.places, 1)))


def write_pictures(films: FilmsOfArchive, out: Path, ranking: Ranking, *, count: int, margin: float = MARGIN) -> int:
    """Writes `<rank>-<sample_id>.png` for the first `count`, as `draw` does; returns how many. Their films are read once more."""
    rank_of = {place.sample_id: at for at, place in enumerate(ranking.places[:count], 1)}
    digits = len(str(len(rank_of)))
    check_folder(out)
    for batch in films.pairs(set(rank_of), Missing()):
        for ref, film, reconstruction in zip(batch.refs, batch.films, batch.reconstructions, strict=True):
            place, name = rank_of[ref.sample_id], safe_name(ref.sample_id)
            caption = f"{place}: {ref.sample_id}, score {ranking.places[place - 1].score:.1f}"
            picture = draw(film, reconstruction, judge(film, reconstruction, margin=margin).box, caption)
            write_png(out / name.with_name(f"{place:0{digits}d}-{name.name}"), picture)
    return len(rank_of)


def draw(film: Image, reconstruction: Image, box: Box, caption: str) -> Image:
    """BGR u1 of three panels [S, S]: film, reconstruction, and film minus reconstruction (red: brighter), with the box on two."""
    residual = colour_residual(film - reconstruction, full=RESIDUAL_RANGE)
    panels = [cv2.cvtColor(to_bytes(film), cv2.COLOR_GRAY2BGR), cv2.cvtColor(to_bytes(reconstruction), cv2.COLOR_GRAY2BGR), residual]
    away = 3  # pixels between the box and what it shows
    corners = (box[0] - away, box[1] - away), (box[2] - 1 + away, box[3] - 1 + away)
    for panel in (panels[0], panels[2]) if any(box) else ():
        cv2.rectangle(panel, *corners, _GREEN, max(1, len(panel) // 256))
    names = (caption, "reconstruction", f"residual: red brighter, blue darker, to {RESIDUAL_RANGE:g}")
    gap = max(1, round(GAP * len(film)))
    return side_by_side([named(panel, name) for panel, name in zip(panels, names, strict=True)], gap=gap)
