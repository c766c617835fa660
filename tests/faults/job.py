"""One data set and codec, the run that nothing disturbs, and what must hold after a disturbed one."""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from engine.archive.cleaning import collect_garbage
from engine.archive.reader import open_archive
from engine.archive.root import read_root
from engine.archive.store import is_url, open_store
from engine.archive.verify import verify_archive
from engine.encode_dataset import encode_dataset
from engine.source.phantom import phantom_png

ROOT = Path(__file__).resolve().parents[2]
DRAWN = 6


@dataclass
class Found:
    """What disturbed runs left, counted; all but `rows` must be 0."""

    rows: int = 0
    lost: int = 0
    duplicated: int = 0
    differing: int = 0  # objects that are not those of the undisturbed run, or are there and should not be
    orphans: int = 0
    problems: int = 0

    def add(self, other: Found) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Job:
    """Films, a codec, the options of the command, and the rows that it gives."""

    films: str
    codec: Path
    options: list[str]
    undisturbed: dict[str, bytes] = field(default_factory=dict)
    content: str = ""

    def words(self, archive: Path | str, *more: str) -> list[str]:
        """The words after `latentray encode`."""
        return [self.films, "--archive", str(archive), "--codec", str(self.codec), "--quiet", *self.options, *more]

    def command(self, archive: Path | str, *more: str) -> list[str]:
        """The whole command, as a process of its own."""
        return [sys.executable, str(ROOT / "engine" / "encode_dataset.py"), *self.words(archive, *more)]

    def check(self, archive: Path | str) -> Found:
        """Holds a finished archive against the undisturbed one, before and after `gc`."""
        found = Found(rows=len(self._ids(archive)))
        expected = self._ids_of_undisturbed()
        counted = Counter(self._ids(archive))
        found.lost = sum((expected - counted).values())
        found.duplicated = sum((counted - expected).values())
        found.problems += len([problem for problem in verify_archive(archive, level=3) if not problem.is_note])
        collect_garbage(archive)
        found.orphans = len(verify_archive(archive, level=3)) - found.problems + len(_beside(archive))
        rows = rows_of(archive)
        found.differing = len({*rows.items()} ^ {*self.undisturbed.items()})
        if read_root(archive).attributes.get("content") != self.content:
            found.differing += 1
        return found

    def _ids(self, archive: Path | str) -> list[str]:
        dataset = open_archive(archive)
        ids, status = dataset["sample_id"].to_numpy(), dataset["status"].to_numpy()
        return [f"{name} {state}" for name, state in zip(ids, status, strict=True)]

    def _ids_of_undisturbed(self) -> Counter[str]:
        return Counter(f"{path.stem} 1" for path in Path(self.films).iterdir())


def make_job(folder: Path, codec: Path, *, films: int, shard_rows: int, steps: int, size: int = 64) -> Job:
    """Phantoms in a folder, and the undisturbed run of them in one process."""
    source = folder / "films"
    source.mkdir(parents=True)
    drawn = [cv2.imdecode(np.frombuffer(phantom_png(11, index, size=size), np.uint8), cv2.IMREAD_UNCHANGED) for index in range(DRAWN)]
    for index in range(films):  # no two are alike, and few have to be drawn
        film = np.roll(drawn[index % DRAWN], index // DRAWN, axis=(0, 1))
        (source / f"film-{index:04d}.png").write_bytes(cv2.imencode(".png", film)[1].tobytes())
    settings = {"film_size": 64, "shard_rows": shard_rows, "refine_steps": steps, "threads": 1, "batch_size": shard_rows}
    options = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    job, archive = Job(str(source), codec, options), folder / "undisturbed.zarr"
    encode_dataset(job.films, str(archive), str(codec), workers=0, quiet=True, **settings)
    job.undisturbed, job.content = rows_of(archive), read_root(archive).attributes["content"]
    return job


def rows_of(archive: Path | str) -> dict[str, bytes]:
    """Every object that holds rows; records hold times, and metadata what made them."""
    store = open_store(archive)
    return {key: store.read(key) for key, _ in store.walk() if "/c/" in key and not key.startswith(("shards/", "codec/"))}


def _beside(archive: Path | str) -> list[str]:
    """What lies about an archive and is neither it nor its plan."""
    if is_url(archive):
        return []
    path = Path(archive)
    return sorted(set(os.listdir(path.parent)) - {path.name, f"{path.stem}.plan.parquet"})
