"""SOURCE as a stream of films: a folder, a glob, a manifest, one file, or phantoms; on this machine or behind an fsspec URL."""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple
from urllib.parse import parse_qsl

from engine.errors import SourceError
from engine.source.folder import NOT_FILMS, Glob, has_wildcards, split_glob, walk
from engine.source.manifest import manifest_kind, open_manifest
from engine.source.place import Place, escape_undecodable, find_place, is_uri, local_path, local_uri


class Entry(NamedTuple):
    """One film as its source names it.

    `path` is what the films are ordered by: relative to the listing's root, or as the manifest has it (without a leading `./`).
    It may hold surrogates (file names that are not UTF-8); `uri` never does. `given_id` comes from a manifest's column `id`.
    """

    path: str
    uri: str
    given_id: str | None = None
    labels: tuple[str | None, ...] = ()


class Listing(NamedTuple):
    """What SOURCE turned out to be. `root` is the beginning, with `/`, of the uris that lie below it; empty for phantoms.

    `entries` streams in no particular order, and raises SourceError where the source turns out to be unreadable on the way. Close it
    where it is not read to its end.
    """

    kind: str  # folder, glob, file, csv, tsv, parquet, phantom
    root: str
    entries: Generator[Entry, None, None]
    label_names: tuple[str, ...] = ()
    has_ids: bool = False


def list_source(source: str) -> Listing:
    """Finds out what `source` is. Raises SourceError where it is nothing of which films can be listed."""
    if source.startswith("phantom:"):
        return _phantoms(source)
    if not source or "\0" in source:
        raise SourceError(f"source is not a path or URL: {source!r}")
    place, path = find_place(source)
    if place.is_folder(path):
        return _folder(place, path, "folder", None)
    if place.is_file(path):
        return _one_file(place, path) if manifest_kind(path) is None else _manifest(place, path)
    if has_wildcards(path):
        folder, pattern = split_glob(path)
        if place.is_folder(folder or "/"):
            return _folder(place, folder, "glob", Glob(pattern))
    raise SourceError(f"source does not exist or cannot be reached: {escape_undecodable(source)}")


def _folder(place: Place, folder: str, kind: str, glob: Glob | None) -> Listing:
    folder = folder.rstrip("/")
    entries = (Entry(path, place.uri(f"{folder}/{path}")) for path in walk(place, folder, glob=glob))
    return Listing(kind, place.uri(f"{folder}/"), entries)


def _one_file(place: Place, path: str) -> Listing:
    if path.lower().endswith(NOT_FILMS):
        raise SourceError(f"source is neither a film nor a manifest (.csv, .tsv, .parquet): {escape_undecodable(path)}")
    folder, _, name = path.rpartition("/")
    return Listing("file", place.uri(f"{folder}/"), (entry for entry in [Entry(name, place.uri(path))]))


def _manifest(place: Place, path: str) -> Listing:
    manifest = open_manifest(place, path)
    folder = path.rpartition("/")[0]
    entries = (Entry(*_resolve(place, folder, row.path), row.id, row.labels) for row in manifest.rows)
    return Listing(manifest.kind, place.uri(f"{folder}/"), entries, manifest.label_names, manifest.has_ids)


def _resolve(place: Place, folder: str, path: str) -> tuple[str, str]:
    """A manifest's `path` as it is ordered by, and the uri it stands for: paths that are neither absolute nor URLs lie below `folder`."""
    if is_uri(path):
        local = local_path(path)
        return path, path if local is None else local_uri(local)
    if path.startswith("/"):
        return path, path
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    return path, place.uri(f"{folder}/{path}")


def _phantoms(source: str) -> Listing:
    """`phantom:N?seed=K&size=1024`: N procedural radiographs, `phantom-000000` onwards."""
    count, _, query = source.removeprefix("phantom:").partition("?")
    try:
        options = {"seed": 0, "size": 1024} | {name: int(value) for name, value in parse_qsl(query, strict_parsing=bool(query))}
        number = int(count)
    except ValueError:
        raise SourceError(f"phantoms must read like phantom:100?seed=0&size=1024: {source}") from None
    if set(options) != {"seed", "size"} or number < 1 or options["seed"] < 0 or not 16 <= options["size"] <= 16384:
        raise SourceError(f"phantoms take a count of 1 or more, seed of 0 or more and size of 16 to 16384: {source}")
    return Listing("phantom", "", _phantom_entries(number, options["seed"], options["size"]))


def _phantom_entries(number: int, seed: int, size: int) -> Generator[Entry, None, None]:
    from engine.source.phantom import phantom_uri, sample_id

    for index in range(number):
        yield Entry(sample_id(index), phantom_uri(seed, index, size))
