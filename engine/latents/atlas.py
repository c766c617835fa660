"""The atlas of an archive: one page that works offline, with a map of its codes, their films, neighbours and edits."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from engine.archive.root import AnyPath
from engine.errors import ArchiveError, ConfigError
from engine.latents.codes import Codes, read_codes
from engine.latents.direction_file import Direction
from engine.latents.edit import moved
from engine.latents.film_pairs import FilmsOfArchive, Missing
from engine.latents.mapped import find_clusters, find_places
from engine.latents.neighbours import nearest
from engine.pictures import to_bytes
from engine.replay import Replay

TEMPLATE = Path(__file__).with_name("atlas.html")
SIDE, EDIT_SIDE = 128, 80  # pixels of films, and of edited ones
QUALITY = 65  # of their JPEG: a film with reconstruction and one direction is 13 KB of the page, another direction 9 more
NEIGHBOURS = 6
ALPHAS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
MOST_VALUES = 12  # different cells up to which a column is one of classes; beyond, it is of numbers, or not shown as colours

Table = Mapping[str, Mapping[str, str | None]]


@dataclass(frozen=True, kw_only=True)
class Written:
    """What `write_atlas` did: codes on the map, `films` with pictures, `clusters`, rows `left_out` that hold no code, bytes of the page."""

    codes: int
    films: int
    clusters: int
    left_out: int
    bytes: int


def write_atlas(
    archive: AnyPath,
    out: Path,
    *,
    table: Table,
    directions: Sequence[Direction] = (),
    source: str | None = None,
    pictures: int = 1000,
    with_films: bool = True,
    codec: str | None = None,
    hash_key: bytes | None = None,
    seed: int = 0,
) -> Written:
    """Writes the page to `out`. `table`: cells by column and id, what points can be coloured by.

    The first `pictures` films, spread over the archive, have pictures: the film (of `source`, or of the archive's own plan; none with
    `with_films` False), its reconstruction, and a frame for each of ALPHAS along each direction. The others are points with their columns.
    Raises ConfigError for a direction of another codec and for too few codes, ArchiveError where the page cannot be written.
    """
    codes = read_codes(archive)
    for direction in directions:
        direction.check_space(codes.space)
    places = find_places(codes.values, seed=seed)
    clusters = find_clusters(places)
    shown = np.unique(np.linspace(0, len(codes) - 1, min(pictures, len(codes))).astype(int))
    some = codes.take(shown)
    films_of = FilmsOfArchive(str(archive), side=SIDE, source=source, codec=codec, hash_key=hash_key)
    films = _films(films_of, some) if with_films and len(some) else {}
    rebuilt, edits = _made(films_of.replay, some, directions)
    near = nearest(codes, some.values, min(NEIGHBOURS, len(codes) - 1), leave_out=shown).places
    data = {
        "title": Path(archive).name,
        "codec": codes.space.codec,
        "side": SIDE,
        "ids": list(codes.ids),
        "x": _rounded(places[:, 0]),
        "y": _rounded(places[:, 1]),
        "cluster": clusters.tolist(),
        "columns": _columns(codes, table),
        "alphas": list(ALPHAS),
        "directions": [direction.attribute for direction in directions],
        "pictures": {
            int(place): {"film": films.get(name), "made": made, "near": [int(each) for each in others], "edits": frames}
            for place, name, made, others, frames in zip(shown, some.ids, rebuilt, near, edits, strict=True)
        },
    }
    text = TEMPLATE.read_text().replace("TITLE", html.escape(Path(archive).name)).replace('"DATA"', _json(data))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
    except OSError as error:
        raise ArchiveError(f"atlas cannot be written: {error.strerror}: {out}") from None
    return Written(
        codes=len(codes), films=len(shown), clusters=int(clusters.max(initial=-1)) + 1, left_out=codes.left_out, bytes=len(text.encode())
    )


def _films(films_of: FilmsOfArchive, some: Codes) -> dict[str, str]:
    """Pictures of the films themselves, by id; without those that cannot be read."""
    return {
        ref.sample_id: _jpeg(_sized(film, SIDE))
        for batch in films_of.batches(set(some.ids), Missing())
        for ref, film in zip(batch.refs, films_of.films(batch, range(len(batch.refs))), strict=True)
    }


def _made(replay: Replay, some: Codes, directions: Sequence[Direction]) -> tuple[list[str], list[list[list[str]]]]:
    """Of each code its film, and its films along each direction: [code][direction][alpha]."""
    rebuilt: list[str] = []
    edits: list[list[list[str]]] = []
    for place in range(len(some)):
        one = some.take([place])
        every = [one.values, *(moved(one.values, direction, ALPHAS, some.space)[0] for direction in directions)]
        latents = torch.from_numpy(np.concatenate(every)).reshape(-1, *some.space.shape)
        first, *others = replay.films(latents, SIDE).numpy()[:, 0]
        rebuilt.append(_jpeg(_sized(first, SIDE)))
        frames = [_jpeg(_sized(film, EDIT_SIDE)) for film in others]
        edits.append([frames[at : at + len(ALPHAS)] for at in range(0, len(frames), len(ALPHAS))])
    return rebuilt, edits


def _columns(codes: Codes, table: Table) -> dict[str, Any]:
    """Each column as numbers, or as classes with their names; those that say nothing, or something else of each film, are left out."""
    found: dict[str, Any] = {}
    for name, cells in table.items():
        values = [cells.get(sample_id) for sample_id in codes.ids]
        known = {value for value in values if value is not None}
        numbers = [_number(value) for value in values]
        if not known:
            continue
        if len(known) > MOST_VALUES and all(number is not None for number, value in zip(numbers, values, strict=True) if value is not None):
            found[name] = {"numbers": numbers}
        elif len(known) <= MOST_VALUES:
            names = sorted(known)
            found[name] = {"names": names, "classes": [-1 if value is None else names.index(value) for value in values]}
    return found


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else None
    except ValueError:
        return None
    return number if number is not None and np.isfinite(number) else None


def _sized(film: np.ndarray[Any, Any], side: int) -> np.ndarray[Any, Any]:
    return film if film.shape[0] == side else cv2.resize(film, (side, side), interpolation=cv2.INTER_AREA)


def _jpeg(film: np.ndarray[Any, Any]) -> str:
    data = cv2.imencode(".jpg", to_bytes(film), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
    return base64.b64encode(data).decode()


def _rounded(values: np.ndarray[Any, Any]) -> list[float]:
    return [round(float(value), 4) for value in values]


def _json(data: Any) -> str:
    """JSON that can stand in a script of a page: no id can end it."""
    try:
        return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")
    except ValueError:
        raise ConfigError("the atlas holds a number that is not finite") from None
