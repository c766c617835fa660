"""Principal components of films that come by once, in bounded memory: exact while they fit, block by block beyond."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_COLUMNS = 8192  # taken at a time by products over pixels


@dataclass(frozen=True)
class PcaFit:
    """mean [d], components [k, d] orthonormal, scale [k] (standard deviation of each coefficient over the films), all float32.

    `explained` [k] is the share of the films' variance that the first 1, 2 ... k components hold, `is_exact` whether nothing was cut
    on the way.
    """

    mean: Tensor
    components: Tensor
    scale: Tensor
    explained: Tensor
    num_films: int
    is_exact: bool


class StreamedPca:
    """Collects rows [n, d] with `add`; `finish(k)` gives the components.

    Rows wait in a buffer of `rows` x d float32. As long as all of them fit, the result is that of a singular value decomposition.
    When the buffer is full it is folded: its rows, centred, together with what earlier folds kept, are replaced by their `keep`
    strongest directions (the sequential Karhunen-Loeve update with a moving mean: Ross et al. 2008, "Incremental learning for robust
    visual tracking", section 2.2). What a fold drops is lost, so `keep` should be well above k; twice k loses next to nothing
    (README.md has figures).
    """

    def __init__(self, d: int, *, rows: int, keep: int) -> None:
        assert 0 < keep < rows - 1, "a fold needs room for what it keeps, a row for the mean and a new film"
        self._rows = torch.empty(rows, d)
        self._keep = keep
        self._kept = 0  # rows of the buffer that earlier folds left: directions times singular values
        self._filled = 0
        self._mean = torch.zeros(d, dtype=torch.float64)  # of the films that are folded
        self._folded = 0
        self._variance = 0.0  # summed squares about the mean, over all folded films and pixels, before anything was cut

    @property
    def num_films(self) -> int:
        """Films taken so far."""
        return self._folded + self._filled - self._kept

    def add(self, films: Tensor) -> None:
        """Takes films [n, d] float32."""
        for part in torch.split(films, len(self._rows) - self._keep - 1):
            if self._filled + len(part) >= len(self._rows):
                self._fold(self._keep)
            self._rows[self._filled : self._filled + len(part)] = part
            self._filled += len(part)

    def finish(self, k: int) -> PcaFit:
        """The k strongest components, fewer where the films have fewer directions (n films have n - 1). Needs two films that differ."""
        is_exact = self._kept == 0
        spread = self._fold(k)
        k = self._kept
        components = self._rows[:k] / spread[:k, None]
        _orthonormalise(components)
        strongest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
        components *= strongest.sign()  # a component and its negative are equally good: the largest entry is made positive
        scale = spread[:k] / (self._folded - 1) ** 0.5
        explained = spread[:k].double().square().cumsum(0) / self._variance
        return PcaFit(self._mean.float(), components, scale, explained, self._folded, is_exact)

    def _fold(self, keep: int) -> Tensor:
        """Centres the waiting films, then turns the buffer into its strongest directions; returns their singular values."""
        new = self._rows[self._kept : self._filled]
        if len(new):
            mean, variance = _centre(new)
            shift = (mean - self._mean) * (len(new) * self._folded / (len(new) + self._folded)) ** 0.5
            if self._folded:  # the films are spread about two means: a row that stands for the distance between them
                self._rows[self._filled] = shift.float()
                self._filled += 1
            self._variance += variance + float(shift.square().sum())
            self._mean += (mean - self._mean) * (len(new) / (len(new) + self._folded))
            self._folded += len(new)
        used = self._rows[: self._filled]
        weights, spread = _directions(_gram(used), keep)
        for columns in torch.split(used, _COLUMNS, dim=1):
            columns[: len(weights)] = weights @ columns
        self._kept = self._filled = len(weights)
        return spread


def _centre(rows: Tensor) -> tuple[Tensor, float]:
    """Takes the mean out of rows, in place, a stretch of columns at a time; returns it (float64) and the summed squares left."""
    means, squares = [], 0.0
    for columns in torch.split(rows, _COLUMNS, dim=1):
        means.append(columns.mean(dim=0, dtype=torch.float64))
        columns.sub_(means[-1].float())
        squares += float(columns.square().sum(dtype=torch.float64))
    return torch.cat(means), squares


def _gram(rows: Tensor) -> Tensor:
    """rows @ rows.T, float64, summed over stretches of columns."""
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for columns in torch.split(rows, _COLUMNS, dim=1):
        gram += columns @ columns.T
    return gram


def _directions(gram: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Weights [r, n] that turn n rows into their r <= `keep` strongest directions times singular values, and these values [r]."""
    values, vectors = torch.linalg.eigh(gram)  # ascending
    values, vectors = values.flip(0)[:keep], vectors.flip(1)[:, :keep]
    significant = int((values > values[0].clamp_min(1e-12) * 1e-6).sum())  # below that, single precision has only noise
    return vectors[:, :significant].T.float().contiguous(), values[:significant].sqrt().float()


def _orthonormalise(rows: Tensor) -> None:
    """Takes out what rounding left of one row in another, in place: triangular, so that no row mixes with weaker ones."""
    factor = torch.linalg.cholesky(_gram(rows))
    inverse = torch.linalg.solve_triangular(factor, torch.eye(len(rows), dtype=torch.float64), upper=False).float()
    for columns in torch.split(rows, _COLUMNS, dim=1):
        columns.copy_(inverse @ columns)
