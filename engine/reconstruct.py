"""Films out of an archive, a gray PNG each: of its layer, the film itself, or of its code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from engine.archive.reader import open_archive, read_values
from engine.errors import ArchiveError, ConfigError
from engine.film_layer import read_film
from engine.pictures import safe_name, to_bytes
from engine.records import FilmSamples
from engine.replay import Replay


@dataclass(frozen=True, slots=True)
class Written:
    """What `reconstruct` did: films written, `from_layer` of them at their own size, and rows among those asked for that hold no code."""

    films: int
    without_code: int
    size: int
    from_layer: int = 0


def reconstruct(
    archive: str | Path,
    out: Path,
    *,
    rows: Sequence[int] | None = None,
    size: int | None = None,
    codec: str | None = None,
    source: Literal["layer", "code"] | None = None,
) -> Written:
    """Writes `<sample_id>.png` for each of `rows` (all by default) that holds a code.

    From its layer, where `source` is not "code" and no size is asked for: the samples of the film itself, 16-bit where it is deeper than 8,
    signed ones raised by 2^(bits - 1). From its code: 8-bit, `size` pixels square (the codec's by default).
    Raises ConfigError where layers are asked for and the archive has none.
    """
    replay = Replay(archive, codec=codec)
    ids = replay.sample_ids
    wanted = range(len(ids)) if rows is None else rows
    with_code = [row for row in wanted if replay.has_code(row)]
    if source == "layer" and "layer" not in replay.dataset:
        raise ConfigError(f"archive holds no layer, encode with --fidelity, or reconstruct --from code: {archive}")
    if source == "layer" and size is not None:
        raise ConfigError(f"films of a layer have their own size; --size is for --from code: {size}")
    use_layer = "layer" in replay.dataset and source != "code" and size is None
    without: list[int] = []  # rows whose films come from their codes
    try:
        out.mkdir(parents=True, exist_ok=True)
        for row in with_code:
            film = read_film(replay, row) if use_layer else None
            if film is None:
                without.append(row)
            else:
                _write(out / safe_name(ids[row]), unsigned(film))
        for some, films in replay.batches(without, size=size):
            for row, made in zip(some, films.numpy(), strict=True):
                _write(out / safe_name(ids[row]), to_bytes(made[0]))
    except OSError as error:
        raise ArchiveError(f"films cannot be written: {error.strerror}: {out}") from None
    return Written(
        films=len(with_code),
        without_code=len(wanted) - len(with_code),
        size=size or replay.codec.recipe.resolution,
        from_layer=len(with_code) - len(without),
    )


def unsigned(film: FilmSamples) -> np.ndarray[Any, Any]:
    """Samples as a PNG holds them: uint8 up to 8 bits, else uint16; signed ones raised by 2^(bits - 1), so that none is below 0."""
    samples = film.samples
    if samples.dtype.kind == "i":
        samples = samples.astype(np.int32) + 2 ** (film.bits - 1)
    return samples.astype(np.uint8 if film.bits <= 8 else np.uint16)


def _write(path: Path, picture: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def check_size(size: int | None, *, least: int = 1) -> None:
    """Raises ConfigError for a side, in pixels, that films cannot be made at; None is the codec's own."""
    if size is not None and not least <= size <= 16384:
        raise ConfigError(f"size must be {least} to 16384: {size}")


def chosen_rows(archive: str | Path, rows: str | None, ids: str | None) -> Sequence[int] | None:
    """The rows that `--rows A:B` or `--ids FILE` name, None where neither does. Raises ConfigError as `parse_rows` and `rows_of_ids`."""
    if rows is not None:
        return parse_rows(rows, open_archive(archive).sizes["sample"])
    return None if ids is None else rows_of_ids(archive, Path(ids))


def parse_rows(text: str, num_rows: int) -> range:
    """`A:B`, `:B`, `A:` or `A` as the rows of an archive, as Python slices count; raises ConfigError on anything else."""
    first, colon, last = text.partition(":")
    try:
        start = int(first) if first else 0
        stop = (int(last) if last else num_rows) if colon else start + 1
    except ValueError:
        raise ConfigError(f"rows must read like 0:100: {text}") from None
    return range(num_rows)[start:stop] if colon or start >= 0 else range(num_rows)[start:][:1]


def rows_of_ids(archive: str | Path, path: Path) -> list[int]:
    """Rows of the ids listed in a text file, one a line; raises ConfigError naming those that the archive lacks."""
    try:
        asked = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise ConfigError(f"the file of ids cannot be read: {error.strerror}: {path}") from None
    row_of = {str(name): row for row, name in enumerate(read_values(open_archive(archive), "sample_id"))}
    unknown = [name for name in asked if name not in row_of]
    if unknown:
        raise ConfigError(f"ids that the archive does not hold: {len(unknown)}, for example {unknown[0]}")
    return [row_of[name] for name in asked]
