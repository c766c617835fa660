"""A file of results: a line about the run, then a line a row. How it is written, never over another, and how any of its schemas is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from benchmarks.machine import machine_folder
from benchmarks.report import Row
from engine.errors import ConfigError

SCHEMA = 2
RESULTS = Path(__file__).resolve().parent / "results"
RUNS = "????-??-??T??????Z*.jsonl"  # other files of a folder are no benchmark's


@dataclass(frozen=True, kw_only=True)
class Head:
    """The first line of a file of results.

    machine    as `machine.describe_machine` tells it: processor, cores, memory, GPUs, versions, commit, load at the beginning
    time       of its beginning, UTC, ISO 8601
    size       "quick", "nightly" or "whole"
    settings   what the command was given: films, codec, classifier; a folder's name stands for its path, None for the default
    films      sha256 of the films, in their order: of the bytes of files, of the words for phantoms; "" where none were looked at
    rounds     how often the benchmarks were run, one after another; their turns stand in one row
    seconds    wall seconds by benchmark, all rounds together; one that is missing was not finished

    Schema 1 (before 2026-11-21) had machine, time and `quick`, true or false; its rows had neither `value_of`, `blocks`, `seeds`,
    `warm_up` nor `repeats`, and `skipped` for `unavailable`.
    """

    machine: dict[str, Any]
    time: str
    size: str
    settings: dict[str, str | None] = field(default_factory=dict)
    films: str = ""
    rounds: int = 1
    seconds: dict[str, float] = field(default_factory=dict)
    schema: int = SCHEMA

    @classmethod
    def begin(cls, machine: dict[str, Any], size: str, **told: Any) -> Head:
        """The head of a run that begins now."""
        return cls(machine=machine, time=datetime.now(UTC).isoformat(timespec="seconds"), size=size, **told)

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> Head:
        """The head of a line of any schema. Raises KeyError, TypeError or ValueError for a line that is none."""
        schema = line.get("schema", 1)
        if schema == 1:
            return cls(machine=line["machine"], time=line["time"], size="quick" if line["quick"] else "whole", schema=1)
        if schema != SCHEMA:
            raise ValueError(f"schema {schema}")
        return cls(**line)


@dataclass(frozen=True, kw_only=True)
class Results:
    """A file of results: what it is about, its rows in their order, and where it lies."""

    head: Head
    rows: tuple[Row, ...]
    path: Path

    @property
    def name(self) -> str:
        """Machine and file, as a page names it: `amd-epyc-2c/2026-11-20T120407Z.jsonl`."""
        return f"{self.path.parent.name}/{self.path.name}"

    def of(self, benchmark: str) -> tuple[Row, ...]:
        """The rows of one benchmark."""
        return tuple(row for row in self.rows if row.benchmark == benchmark)


def begin_results(folder: Path, head: Head) -> Results:
    """What a run has found before it measures anything: the name of a file under `folder`/<machine>, and no file.

    So a run that is killed leaves none without rows. Raises OSError for a folder that cannot be written to.
    """
    folder = folder / machine_folder(head.machine)
    folder.mkdir(parents=True, exist_ok=True)
    TemporaryFile(dir=folder).close()
    stem = datetime.fromisoformat(head.time).strftime("%Y-%m-%dT%H%M%SZ") + ("" if head.size == "whole" else f"-{head.size}")
    return Results(head=head, rows=(), path=folder / f"{stem}.jsonl")


def add_rows(results: Results, benchmark: str, rows: Sequence[Row], seconds: float) -> Results:
    """The file with the rows of one benchmark more, so that a run that is stopped leaves what it had measured.

    The first rows make it, under a name that no other run has: never is an existing file touched.
    """
    head = replace(results.head, seconds=results.head.seconds | {benchmark: round(seconds, 1)})
    path = results.path if results.head.seconds else _new_file(results.path)
    return write_results(replace(results, head=head, rows=(*results.rows, *rows), path=path))


def _new_file(path: Path) -> Path:
    for suffix in ("", *(f"-{number}" for number in range(2, 100))):
        found = path.with_stem(path.stem + suffix)
        try:
            found.touch(exist_ok=False)
        except FileExistsError:
            continue
        return found
    raise ConfigError(f"a hundred results of this second are already there: {path.parent}")


def write_results(results: Results) -> Results:
    """Writes the file of this run, whole or not at all, and returns it."""
    lines = (asdict(results.head), *(row.to_json() for row in results.rows))
    unfinished = results.path.with_suffix(".part")
    unfinished.write_text("".join(json.dumps(line) + "\n" for line in lines))
    unfinished.replace(results.path)
    return results


def seconds_table(results: Results) -> str:
    """How long each benchmark took, and all of them."""
    taken = results.head.seconds | {"all": sum(results.head.seconds.values())}
    width = max(map(len, taken))
    return "\n".join(f"{name.ljust(width)}  {seconds:7.1f} s" for name, seconds in taken.items())


def read_results(path: Path) -> Results:
    """A file of any schema. Raises ConfigError where there is none, or it is not one."""
    try:
        head, *rows = [json.loads(line) for line in path.read_text().splitlines()]
        return Results(head=Head.from_json(head), rows=tuple(Row.from_json(row) for row in rows), path=path)
    except FileNotFoundError:
        raise ConfigError(f"no such file of results: {path}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise ConfigError(f"this is no file of benchmark results ({type(error).__name__} {reason}): {path}") from None


def all_results(folder: Path = RESULTS) -> Iterator[Results]:
    """Every file of every machine, machines by name and the oldest first."""
    for path in sorted(folder.glob(f"*/{RUNS}")):
        yield read_results(path)
