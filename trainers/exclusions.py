"""A list of films that a training must not see: names one a line, such as a data set's own test list, or a table with a column of them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from engine.errors import ConfigError
from engine.source.place import local_path, why

_TABLES = {".csv": ",", ".tsv": "\t"}
_FILM_COLUMNS = ("path", "id")


@dataclass(frozen=True, kw_only=True)
class Exclusions:
    """Names of films, the ends of those names that have folders, and patients whose films are all meant.

    A name without a folder means every film of that id, file name or stem; one with folders means films whose path it ends, or whose
    path below the source ends it, so that it does not matter from where a list was written.
    """

    names: frozenset[str]
    ends: frozenset[str]
    patients: frozenset[str]

    def has(self, sample_id: str, uri: str, root: str) -> bool:
        """Whether the film of this id and uri, in a source whose uris begin with `root`, is in the list."""
        path = PurePosixPath(local_path(uri) or uri)
        below = (local_path(uri) or uri).removeprefix(local_path(root) or root)
        return sample_id in self.names or path.stem in self.names or below in self.ends or not self.names.isdisjoint(_ends(str(path)))


def read_exclusions(file: Path, patient_columns: Sequence[str]) -> Exclusions:
    """Reads a list: `.csv` and `.tsv` by their columns `path` and `id`, and by the first of `patient_columns`; any other file by lines.

    Raises ConfigError where it cannot be read, or a table has none of these columns.
    """
    delimiter = _TABLES.get(file.suffix.lower())
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"list of films to leave out is not UTF-8 text: {file}") from None
    except OSError as error:
        raise ConfigError(f"list of films to leave out cannot be read ({why(error)}): {file}") from None
    if delimiter is None:
        names, patients = {line.strip() for line in text.splitlines()}, set[str]()
    else:
        try:
            names, patients = _columns(text, delimiter, patient_columns, file)
        except csv.Error as error:
            raise ConfigError(f"table of films to leave out cannot be read ({error}): {file}") from None
    names = {name.removeprefix("./") for name in names} - {""}
    return Exclusions(
        names=frozenset(names),
        ends=frozenset(end for name in names if "/" in name for end in _ends(name)),
        patients=frozenset(patients),
    )


def _columns(text: str, delimiter: str, patient_columns: Sequence[str], file: Path) -> tuple[set[str], set[str]]:
    rows = csv.DictReader(text.splitlines(), delimiter=delimiter)
    columns = rows.fieldnames or ()
    films = [name for name in _FILM_COLUMNS if name in columns]
    patient = next((name for name in patient_columns if name in columns), None)
    if not films and patient is None:
        raise ConfigError(f"table of films to leave out has no column path, id or {patient_columns[0]}: {file}")
    cells = [(tuple(row[name] or "" for name in films), "" if patient is None else row[patient] or "") for row in rows]
    return {name for names, _ in cells for name in names}, {name for _, name in cells} - {""}


def _ends(path: str) -> Iterator[str]:
    """`a/b/c.png` -> `a/b/c.png`, `b/c.png`, `c.png`."""
    yield path
    while "/" in path:
        path = path.partition("/")[2]
        yield path
