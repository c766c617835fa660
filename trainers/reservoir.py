"""A random sample of fixed size from films that come by once (algorithm R: Vitter 1985, "Random sampling with a reservoir")."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Reservoir:
    """Keeps `size` films, each as likely as any other; the same seed and order give the same sample."""

    def __init__(self, size: int, *, seed: int) -> None:
        self._size = size
        self._kept: list[Tensor] = []
        self._seen = 0
        self._rng = np.random.default_rng(seed)

    def add(self, films: Tensor) -> None:
        """Offers films [n, ...]."""
        for film in films:
            self._seen += 1
            if len(self._kept) < self._size:
                self._kept.append(film.clone())
                continue
            place = int(self._rng.integers(self._seen))
            if place < self._size:
                self._kept[place] = film.clone()

    def films(self) -> Tensor:
        """The sample [at most size, ...]."""
        return torch.stack(self._kept)
