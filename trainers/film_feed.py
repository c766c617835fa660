"""Hands the loop its films: which film an image of the run is follows from the image's number alone, so there is no state to save."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor

from trainers import randomness
from trainers.augment import augment
from trainers.packed_films import PackedFilms
from trainers.presets.films import AugmentConfig
from trainers.split import Indices, Split

_HELD_OUT = 256
_MOST_AHEAD = 16


class FilmFeed:
    """Films of a training, in an order of their own in every epoch, varied as `augment` allows; and those that are held out.

    Image `number` of the run is film number % n of the permutation of epoch number // n, for n films that train: any process can
    have any part of any batch, and a resumed run goes on where it was.
    """

    def __init__(self, packed: PackedFilms, split: Split, *, seed: int, augment: AugmentConfig | None = None) -> None:
        self._packed, self._split, self._seed = packed, split, seed
        self._augment = augment or AugmentConfig()
        self._orders: dict[int, Indices] = {}
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

    def held_out(self, resolution: int, limit: int = _HELD_OUT) -> Tensor:
        """Films [n, 1, r, r] that training never sees: the same each time, at most `limit`, evenly spread over those there are."""
        films = self._split.validation
        if len(films) > limit:
            films = films[np.arange(limit) * len(films) // limit]
        return self._packed.films(films, resolution)

    @property
    def digest(self) -> str:
        """sha256, in hex, of what a resume must find unchanged: the pixels, which of them train and which are held out, the variations."""
        hashed = hashlib.sha256(self._packed.index.pixels_sha256.encode())
        for films in (self._split.train, self._split.validation):
            hashed.update(f"\n{len(films)} films\n".encode() + np.ascontiguousarray(films, dtype="<i8").tobytes())
        hashed.update(json.dumps(asdict(self._augment)).encode())
        return hashed.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Where the films come from and how they are used, as plain JSON values for provenance: no path, no name of a film or patient."""
        index, split = self._packed.index, self._split
        return {
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

    def close(self) -> None:
        """Ends the thread; what was begun is given up."""
        self._ahead.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _make(self, numbers: range, resolution: int) -> Tensor:
        n = len(self._split.train)
        films = self._packed.films([self._order(number // n)[number % n] for number in numbers], resolution)
        return augment(films, self._seed, numbers, self._augment)

    def _order(self, epoch: int) -> Indices:
        orders = self._orders
        if epoch not in orders:
            order = self._split.train[randomness.generator(self._seed, "order", epoch).permutation(len(self._split.train))]
            # Made anew, not changed: two threads may be here. The epoch before stays, for a batch that spans both.
            self._orders = {number: kept for number, kept in orders.items() if number == epoch - 1} | {epoch: order}
            return order
        return orders[epoch]
