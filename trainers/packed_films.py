"""The films of a training as 8-bit gray in one file: any of them is there in a moment, at any resolution that divides theirs."""

from __future__ import annotations

import io
import json
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.errors import ConfigError, TrainError
from engine.json_object import read_json_object

FILMS, INDEX, SIZES = "films.npy", "index.json", "sizes.npy"
HEADER_BYTES = 128
_VERSION = 1
_CACHE_BYTES = 2**30
_MAX_INDEX_BYTES = 2**28  # it lists the rows that failed


@dataclass(frozen=True, kw_only=True)
class PackIndex:
    """What a finished pack says about itself. Names no file and no patient; `failed_rows` are rows of the plan."""

    films: int
    resolution: int
    recipe: dict[str, Any]
    kind: str  # of the source: folder, csv, phantom ...
    plan_digest: str
    plan_rows: int
    failed_rows: tuple[int, ...]
    failed_by_reason: dict[str, int]
    pixels_sha256: str

    def write(self, folder: Path) -> None:
        """Makes the pack true: aside, then renamed."""
        aside = folder / f"{INDEX}.partial"
        with open(aside, "w") as file:
            json.dump({"format": "latentray packed films", "version": _VERSION, **vars(self)}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(folder / INDEX)


def read_index(folder: Path) -> PackIndex | None:
    """The index of the finished pack in `folder`, or None where there is none, or where its films are not as long as it says."""
    try:
        fields = read_json_object((folder / INDEX).read_bytes(), max_bytes=_MAX_INDEX_BYTES)
        if fields.pop("version") != _VERSION:
            return None
        del fields["format"]
        index = PackIndex(**{**fields, "failed_rows": tuple(fields["failed_rows"])})
        is_whole = (folder / FILMS).stat().st_size == HEADER_BYTES + index.films * index.resolution**2
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return index if is_whole else None


def npy_header(films: int, resolution: int) -> bytes:
    """The 128 bytes before the films, so that `numpy.load(films.npy, mmap_mode="r")` opens them as u1 [films, R, R]."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (films, resolution, resolution)})
    header = stream.getvalue()
    assert len(header) == HEADER_BYTES, "NumPy writes headers of another length"
    return header


class PackedFilms:
    """The films of a finished pack, in the plan's order without those that failed. May be asked from several threads.

    Films that are wanted smaller than they are stored are kept in memory once made, up to 1 GiB, and then cost a copy only.
    `plan` is the table of all films of the source (sample_id, uri, labels) where it is known, for dividing them; `root` begins its uris.
    """

    def __init__(self, folder: Path, index: PackIndex, *, plan: Any = None, root: str = "") -> None:
        self.index, self.plan, self.root = index, plan, root
        self.rows = np.setdiff1d(np.arange(index.plan_rows), np.array(index.failed_rows, dtype=np.int64))  # [films], of the plan
        self._folder = folder
        try:
            self._file = os.open(folder / FILMS, os.O_RDONLY)
        except OSError as error:
            raise TrainError(f"packed films cannot be opened ({error.strerror}): {folder}") from None
        weakref.finalize(self, os.close, self._file)
        self._smaller: dict[int, _Smaller] = {}
        self._lock = threading.Lock()

    @property
    def num_films(self) -> int:
        """Films that can be asked for, 0 to `num_films` - 1."""
        return self.index.films

    @property
    def resolution(self) -> int:
        """Side at which the films are stored."""
        return self.index.resolution

    def sizes(self) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Height and width, in pixels, of the files that the films were made of: [films, 2]. Raises TrainError where they are not there."""
        try:
            sizes: np.ndarray[Any, np.dtype[np.int32]] = np.load(self._folder / SIZES)
        except (OSError, ValueError):
            sizes = np.empty((0, 2), dtype=np.int32)
        if sizes.shape != (self.num_films, 2):
            raise TrainError(f"packed films do not know the sizes of their files; delete the folder to pack anew: {self._folder}")
        return sizes

    def films(self, indices: Sequence[int] | np.ndarray[Any, Any], resolution: int) -> Tensor:
        """Films [n, 1, r, r] float32 in [-1, 1], channels-last; r divides the stored side, pixels are the means of squares of it.

        The same bits for a film whatever others it comes with. Raises ConfigError for another r, TrainError where the file cannot be read.
        """
        if resolution < 1 or self.resolution % resolution:
            raise ConfigError(f"films of side {self.resolution} have no whole squares to average for a resolution of {resolution}")
        out = torch.empty(len(indices), 1, resolution, resolution, memory_format=torch.channels_last)
        kept = self._kept_at(resolution)
        for place, index in enumerate(map(int, indices)):
            if kept is None:
                out[place, 0] = self._film(index, resolution)
                continue
            if not kept.is_made[index]:
                kept.pixels[index] = self._film(index, resolution)
                kept.is_made[index] = True  # after the pixels: another thread may look
            out[place, 0] = kept.pixels[index]
        return out

    def _film(self, index: int, resolution: int) -> Tensor:
        if not 0 <= index < self.num_films:
            raise IndexError(f"pack has {self.num_films} films, asked for {index}")
        side = self.resolution
        buffer = bytearray(side * side)
        # Read, not mapped: a disk that fails, or a file cut short, is then an error and not the end of the process.
        try:
            length = os.preadv(self._file, [buffer], HEADER_BYTES + index * side * side)
        except OSError as error:
            raise TrainError(f"packed films cannot be read ({error.strerror}): {self._folder}") from None
        if length < len(buffer):
            raise TrainError(f"packed films were cut short; delete the folder and train again: {self._folder}")
        k = side // resolution
        film = torch.frombuffer(buffer, dtype=torch.uint8)
        if k > 1:  # sums of whole numbers are exact, so neither their order nor the number of threads shows
            film = film.view(resolution, k, side).sum(1, dtype=torch.int32).view(resolution, resolution, k).sum(2, dtype=torch.int32)
        return film.view(resolution, resolution).float().div_(127.5 * k * k).sub_(1)

    def _kept_at(self, resolution: int) -> _Smaller | None:
        """Room for films of this side, None where they are stored so, or would take more than the limit; the eldest room gives way."""
        if resolution == self.resolution or self._kept_bytes(resolution) > _CACHE_BYTES:
            return None
        with self._lock:
            if resolution not in self._smaller:
                while self._smaller and sum(map(self._kept_bytes, (*self._smaller, resolution))) > _CACHE_BYTES:
                    del self._smaller[next(iter(self._smaller))]
                self._smaller[resolution] = _Smaller(self.num_films, resolution)
            return self._smaller[resolution]

    def _kept_bytes(self, resolution: int) -> int:
        return 4 * self.num_films * resolution**2


@dataclass
class _Smaller:
    """Films at a smaller side, as far as they have been asked for; memory is taken page by page as they come."""

    films: int
    resolution: int
    pixels: Tensor = field(init=False)
    is_made: np.ndarray[Any, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.pixels = torch.empty(self.films, self.resolution, self.resolution)
        self.is_made = np.zeros(self.films, dtype=bool)


def open_pack(folder: Path) -> PackedFilms:
    """The finished pack in `folder` without its source: needs torch and NumPy only. Raises TrainError where there is none."""
    index = read_index(folder)
    if index is None:
        raise TrainError(f"folder holds no finished pack of films: {folder}")
    return PackedFilms(folder, index)


def differences(index: PackIndex, wanted: Mapping[str, Any]) -> list[str]:
    """In words, where a pack is of other films than those of `wanted`."""
    return [f"{name} was {vars(index)[name]}, is {value}" for name, value in wanted.items() if vars(index)[name] != value]
