"""The films under a folder: which names count, which folders are entered, and what a glob lets through."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fsspec.utils import glob_translate

from engine.source.place import Place

NOT_FILMS = (".csv", ".tsv", ".parquet", ".json", ".yaml", ".yml", ".txt", ".md", ".xml")
_WILDCARDS = re.compile(r"[*?\[]")


def is_film_name(name: str) -> bool:
    """Whether a file of this name is a row: all are, except hidden ones and tables or text."""
    return not name.startswith(".") and not name.lower().endswith(NOT_FILMS)


def has_wildcards(path: str) -> bool:
    """Whether `path` is a glob."""
    return _WILDCARDS.search(path) is not None


def split_glob(path: str) -> tuple[str, str]:
    """`/data/2020/*/a?.png` as the fixed folder `/data/2020` and the pattern `*/a?.png` below it."""
    parts = path.split("/")
    first = next(at for at, part in enumerate(parts) if has_wildcards(part))
    return "/".join(parts[:first]), "/".join(parts[first:])


class Glob:
    """A pattern over paths relative to a folder: `*`, `?` and `[ab]` within a name, `**` over any number of folders."""

    def __init__(self, pattern: str) -> None:
        parts = pattern.split("/")
        until = next((at for at, part in enumerate(parts) if "**" in part), None)
        self._any_depth = until is not None
        self._whole = re.compile(glob_translate(pattern))
        self._folders = [re.compile(glob_translate("/".join(parts[: at + 1]))) for at in range(len(parts[:until]))]

    def takes(self, path: str) -> bool:
        """Whether the file at this path is meant."""
        return self._whole.match(path) is not None

    def enters(self, folder: str) -> bool:
        """Whether a file that is meant can lie below this folder; spares the listing of all others."""
        depth = folder.count("/") + 1
        if depth > len(self._folders):
            return self._any_depth
        return self._folders[depth - 1].match(folder) is not None


def walk(place: Place, root: str, *, glob: Glob | None = None) -> Iterator[str]:
    """Paths relative to `root`, with `/`, of all films below it, in no particular order; one folder at a time is in memory.

    Links to folders are followed, each real folder is listed once however many links lead to it, and a folder's own path wins over
    a link's, then the link that sorts first: so loops end, and the result does not depend on the order in which a disk lists names.
    """
    seen: set[tuple[int, int]] = set()
    links = [""]
    while links:
        starts, links = sorted(links), []
        for start in starts:
            yield from _walk_from(place, root, start, glob, seen, links)


def _walk_from(place: Place, root: str, start: str, glob: Glob | None, seen: set[tuple[int, int]], links: list[str]) -> Iterator[str]:
    """The films below `start` (relative to `root`) without following links to folders, which are added to `links`."""
    pending = [start]
    while pending:
        folder = pending.pop()
        here = f"{root}/{folder}".rstrip("/") or "/"
        identity = place.identity(here)
        if identity is not None:
            if identity in seen:
                continue
            seen.add(identity)
        prefix = f"{folder}/" if folder else ""
        for item in place.items(here):
            path = prefix + item.name
            if not item.is_folder:
                if is_film_name(item.name) and (glob is None or glob.takes(path)):
                    yield path
            elif not item.name.startswith(".") and (glob is None or glob.enters(path)):
                (links if item.is_link else pending).append(path)
