"""Hands the loop its films: which film an image of the run is follows from the image's number alone, so there is no state to save."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainers import randomness
from trainers.augment import augment, mirrored
from trainers.boxes import Boxes, mirror
from trainers.labels import Labels
from trainers.packed_films import PackedFilms
from trainers.presets.films import AugmentConfig
from trainers.split import Indices, Split

_HELD_OUT = 256
_MOST_AHEAD = 16


class HeldOutFilms:
    """The films that training never sees, and their labels: the same each time; under a limit, evenly spread over those there are."""

    def __init__(self, packed: PackedFilms, indices: Indices, labels: Labels | None, boxes: Boxes | None) -> None:
        self._packed, self._indices, self._labels, self._boxes = packed, indices, labels, boxes

    def __call__(self, resolution: int, *, limit: int = _HELD_OUT) -> Tensor:
        """Films [n, 1, r, r] float32 in [-1, 1], at most `limit`."""
        return self._packed.films(self._chosen(limit), resolution)

    def labels(self, *, limit: int = _HELD_OUT) -> Tensor:
        """Their labels [n, labels] float32, 0 and 1."""
        assert self._labels is not None, "the task asked for no labels"
        return torch.from_numpy(self._labels.values[self._chosen(limit)])

    def boxes(self, *, limit: int = _HELD_OUT) -> list[Tensor]:
        """Their boxes, each [k, 4] float32 in units of the film's side."""
        assert self._boxes is not None, "the task wanted no boxes"
        return [self._boxes.of_film(int(film)) for film in self._chosen(limit)]

    def _chosen(self, limit: int) -> Indices:
        films = self._indices
        return films if len(films) <= limit else films[np.arange(limit) * len(films) // limit]


class FilmFeed:
    """Films of a training, in an order of their own in every epoch, varied as `augment` allows; and those that are held out.

    Image `number` of the run is film number % n of the permutation of epoch number // n, for n films that train: any process can
    have any part of any batch, and a resumed run goes on where it was. `alternate` names a label: images of even numbers are then films
    without it and odd ones films with it, each in epochs of their own.
    """

    def __init__(
        self,
        packed: PackedFilms,
        split: Split,
        *,
        seed: int,
        augment: AugmentConfig | None = None,
        labels: Labels | None = None,
        alternate: str = "",
        boxes: Boxes | None = None,
    ) -> None:
        self._packed, self._split, self._seed = packed, split, seed
        self._augment, self._labels, self._boxes = augment or AugmentConfig(), labels, boxes
        self._streams = [split.train] if not alternate else _by_label(split.train, labels, alternate)
        self.held_out = HeldOutFilms(packed, split.validation, labels, boxes)
        self._orders: dict[tuple[int, int], Indices] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: dict[tuple[range, int], Future[Tensor]] = {}

    def batch(self, numbers: range, resolution: int) -> Tensor:
        """Films [n, 1, r, r] float32 in [-1, 1], channels-last, of images `numbers` of the run; r divides the packed side."""
        begun = self._ahead.pop((numbers, resolution), None)
        for key in [key for key in self._ahead if key[1] != resolution or key[0].stop <= numbers.start]:
            self._ahead.pop(key).cancel()  # passed over
        return self._make(numbers, resolution) if begun is None else begun.result()

    def ahead(self, numbers: range, resolution: int) -> None:
        """Begins a batch that will be asked for, in a thread of its own. Changes no result, whether it is asked for or not."""
        if len(self._ahead) < _MOST_AHEAD and (numbers, resolution) not in self._ahead:
            self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="films-ahead")
            self._ahead[numbers, resolution] = self._pool.submit(self._make, numbers, resolution)

    def labels(self, numbers: range) -> Tensor:
        """Labels [n, labels] float32, 0 and 1, of images `numbers` of the run."""
        assert self._labels is not None, "the task asked for no labels"
        return torch.from_numpy(self._labels.values[self._films(numbers)])

    def boxes(self, numbers: range) -> list[Tensor]:
        """Boxes of images `numbers` of the run, each [k, 4] float32 in units of the film's side; a mirror image has mirrored ones."""
        assert self._boxes is not None, "the task wanted no boxes"
        found = [self._boxes.of_film(film) for film in self._films(numbers)]
        is_mirrored = mirrored(self._seed, numbers, self._augment)
        return [mirror(boxes) if flips else boxes for boxes, flips in zip(found, is_mirrored, strict=True)]

    @property
    def label_counts(self) -> list[tuple[int, int]]:
        """How many of the films that train are with and without each label."""
        assert self._labels is not None, "the task asked for no labels"
        values = self._labels.values[self._split.train]
        return [(int(count), len(values) - int(count)) for count in values.sum(axis=0)]

    @property
    def digest(self) -> str:
        """sha256, in hex, of what a resume must find unchanged: pixels, labels, which films train and are held out, the variations."""
        hashed = hashlib.sha256(self._packed.index.pixels_sha256.encode())
        for films in (self._split.train, self._split.validation):
            hashed.update(f"\n{len(films)} films\n".encode() + np.ascontiguousarray(films, dtype="<i8").tobytes())
        hashed.update(json.dumps(asdict(self._augment)).encode())
        if self._labels is not None:
            hashed.update(json.dumps(self._labels.names).encode() + np.ascontiguousarray(self._labels.values, dtype="<f4").tobytes())
        if self._boxes is not None:
            hashed.update(self._boxes.digest.encode())
        return hashed.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Where the films come from and how they are used, as plain JSON values for provenance: no path, no name of a film or patient."""
        index, split = self._packed.index, self._split
        found = {
            "kind": index.kind,
            "plan_digest": index.plan_digest,
            "digest": self.digest,
            "films": index.films,
            "failed": index.plan_rows - index.films,
            "failed_by_reason": index.failed_by_reason,
            "patients": split.train_patients + split.validation_patients,
            "train": len(split.train),
            "train_patients": split.train_patients,
            "validation": len(split.validation),
            "validation_patients": split.validation_patients,
            "excluded": split.excluded,
            "resolution": index.resolution,
            "augment": asdict(self._augment),
        }
        if self._labels is not None:
            found["labels"] = dict(zip(self._labels.names, (present for present, _ in self.label_counts), strict=True))
        if self._boxes is not None:
            found["boxes"] = {"train": self._boxes.count(split.train), "validation": self._boxes.count(split.validation)}
        return found

    def close(self) -> None:
        """Ends the thread; what was begun is given up."""
        self._ahead.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _make(self, numbers: range, resolution: int) -> Tensor:
        return augment(self._packed.films(self._films(numbers), resolution), self._seed, numbers, self._augment)

    def _films(self, numbers: range) -> list[int]:
        """Which films these images are."""
        found = []
        for number in numbers:
            place, stream = divmod(number, len(self._streams))
            epoch, place = divmod(place, len(self._streams[stream]))
            found.append(int(self._order(stream, epoch)[place]))
        return found

    def _order(self, stream: int, epoch: int) -> Indices:
        orders = self._orders
        if (stream, epoch) not in orders:
            films, purpose = self._streams[stream], "order" if len(self._streams) == 1 else f"order/{stream}"
            order = films[randomness.generator(self._seed, purpose, epoch).permutation(len(films))]
            # Made anew, not changed: two threads may be here. The epoch before stays, for a batch that spans both.
            kept = {key: value for key, value in orders.items() if key[0] != stream or key[1] == epoch - 1}
            self._orders = kept | {(stream, epoch): order}
            return order
        return orders[stream, epoch]


def _by_label(films: Indices, labels: Labels | None, name: str) -> list[Indices]:
    """Films without the label, then those with it."""
    assert labels is not None, "films alternate by a label that was not asked for"
    has = labels.values[films, labels.names.index(name)] > 0
    return [films[~has], films[has]]
