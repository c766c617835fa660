"""Films out of an archive: one 8-bit gray PNG a code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from engine.archive.reader import open_archive, read_values
from engine.errors import ArchiveError, ConfigError
from engine.pictures import safe_name, to_bytes
from engine.replay import Replay


@dataclass(frozen=True, slots=True)
class Written:
    """What `reconstruct` did: films written, and rows among those asked for that hold no code."""

    films: int
    without_code: int
    size: int


def reconstruct(
    archive: str | Path, out: Path, *, rows: Sequence[int] | None = None, size: int | None = None, codec: str | None = None
) -> Written:
    """Writes `<sample_id>.png` for each of `rows` (all by default) that holds a code, `size` pixels square (the codec's by default)."""
    replay = Replay(archive, codec=codec)
    ids = replay.sample_ids
    wanted = range(len(ids)) if rows is None else rows
    with_code = [row for row in wanted if replay.has_code(row)]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for some, films in replay.batches(with_code, size=size):
            for row, film in zip(some, films.numpy(), strict=True):
                path = out / safe_name(ids[row])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(cv2.imencode(".png", to_bytes(film[0]))[1].tobytes())
    except OSError as error:
        raise ArchiveError(f"films cannot be written: {error.strerror}: {out}") from None
    return Written(films=len(with_code), without_code=len(wanted) - len(with_code), size=size or replay.codec.recipe.resolution)


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
