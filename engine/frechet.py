"""Fréchet distance between two sets of films as a network sees them, summed up as the films come; with Inception it is FID."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import ConfigError
from engine.networks import inception
from engine.refine.weight_files import folders_of, read_weights, sha256_of

INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth"  # as published for PyTorch; its name ends in eight digits of its SHA-256


class Moments:
    """Number, mean and scatter of vectors, in float64, from any portions: portions are merged, so nothing large is subtracted."""

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self._scatter = torch.zeros(dim, dim, dtype=torch.float64)

    def add(self, vectors: Tensor) -> None:
        """Takes vectors [n, dim]. Raises ValueError for another shape and for values that are no numbers."""
        if vectors.ndim != 2 or vectors.shape[1] != len(self.mean):
            raise ValueError(f"features must be [n, {len(self.mean)}]: {tuple(vectors.shape)}")
        if not len(vectors):
            return
        vectors = vectors.to(self.mean.device, torch.float64)
        mean = vectors.mean(0)
        if not mean.isfinite().all():
            raise ValueError(f"features have values that are no numbers, among those from film {self.count} on")
        centred, step = vectors - mean, mean - self.mean
        total = self.count + len(vectors)
        self._scatter += centred.T @ centred + torch.outer(step, step) * (self.count * len(vectors) / total)
        self.mean = self.mean + step * (len(vectors) / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """[dim, dim], over count - 1."""
        return self._scatter / (self.count - 1)


def frechet_distance(first: Moments, second: Moments) -> float:
    """Squared 2-Wasserstein distance of the Gaussians with these moments (Dowson and Landau 1982), 0 or more.

    |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2). With C1 = A A^T the last trace is that of the root of A^T C2 A, which is symmetric:
    its eigenvalues are real and need no complex root. Raises ValueError for moments of fewer than two vectors.
    """
    return float(frechet_distances([first, second])[0, 1])


def frechet_distances(sets: Sequence[Moments]) -> Tensor:
    """`frechet_distance` of each two of these sets, [n, n] float64, symmetric, 0 on the diagonal; each covariance is factored once.

    Raises ValueError for moments of fewer than two vectors.
    """
    order = sorted(range(len(sets)), key=lambda at: sets[at].count)
    if order and sets[order[0]].count < 2:
        raise ValueError(f"Fréchet distance needs two films or more of each set: {sets[order[0]].count}")
    distances = torch.zeros(len(sets), len(sets), dtype=torch.float64)
    for place, at in enumerate(order[:-1]):
        factor = _factor(sets[at].covariance, sets[at].count - 1)
        for other in order[place + 1 :]:
            distances[at, other] = distances[other, at] = _distance(sets[at], sets[other], factor)
    return distances


def _distance(first: Moments, second: Moments, factor: Tensor) -> float:
    """`factor`: that of the covariance of `first`."""
    c1, c2 = first.covariance, second.covariance
    shared = torch.linalg.eigvalsh(factor.T @ c2 @ factor).clamp(min=0).sqrt().sum()
    distance = (first.mean - second.mean).square().sum() + c1.trace() + c2.trace() - 2 * shared
    return max(0.0, float(distance))


def _factor(covariance: Tensor, rank: int) -> Tensor:
    """A with A A^T = `covariance` [dim, dim], whose rank is `rank` or less; what is only rounding has no column.

    Fewer films than features span little: random mixtures of the columns find that span, and the rest costs what the span needs.
    """
    dim = len(covariance)
    basis = None
    if rank < dim:
        mixtures = torch.randn(dim, rank, generator=torch.Generator().manual_seed(0), dtype=covariance.dtype)
        basis = torch.linalg.qr(covariance @ mixtures).Q
        covariance = basis.T @ covariance @ basis
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > dim * torch.finfo(values.dtype).eps * values[-1]
    factor = vectors[:, kept] * values[kept].sqrt()
    return factor if basis is None else torch.mm(basis, factor)


class FrechetDistance:
    """The distance between real and fake films by the features of a network, from films that come in any portions.

    `features` maps films [n, 1, R, R] in [-1, 1] to vectors [n, dim]; a whole set needs dim^2 doubles, whatever its size. Few films
    raise the figure, so compare figures of equal counts only.
    """

    def __init__(self, features: Callable[[Tensor], Tensor], dim: int) -> None:
        self.features, self.dim = features, dim
        self.real, self.fake = Moments(dim), Moments(dim)

    def add_real(self, films: Tensor) -> None:
        """Takes films [n, 1, R, R]. Raises ValueError where their features are no numbers or not [n, dim]."""
        self.real.add(self._features(films))

    def add_fake(self, films: Tensor) -> None:
        """As `add_real`, for the set that is judged."""
        self.fake.add(self._features(films))

    def clear_fake(self) -> None:
        """Forgets the fake films, so that the next ones are judged against the same real ones."""
        self.fake = Moments(self.dim)

    def compute(self) -> float:
        """The distance of the films so far. Raises ValueError while a set has fewer than two."""
        return frechet_distance(self.real, self.fake)

    @torch.no_grad()
    def _features(self, films: Tensor) -> Tensor:
        with torch.autocast(films.device.type, enabled=False):
            return self.features(films)


class Fid(FrechetDistance):
    """Fréchet inception distance (Heusel et al. 2017) of gray films; its figure names the weights that it was measured with."""

    def __init__(self, weights: str | None = None, *, device: str | torch.device = "cpu", flag: str = "--weights") -> None:
        """`weights`, `flag`: see `find_inception`. Raises ConfigError in one line for weights that are missing or others."""
        path = find_inception(weights, flag=flag)
        super().__init__(read_inception(path).to(device), inception.NUM_FEATURES)
        self.digest = sha256_of(path)

    def figures(self) -> dict[str, float | int | str]:
        """{"fid", "fid_films", "fid_weights"}: the distance, the films of the smaller set, and the digest of the weights file."""
        return {"fid": self.compute(), "fid_films": min(self.real.count, self.fake.count), "fid_weights": self.digest}


def fid(
    real: Iterable[Tensor], fake: Iterable[Tensor], *, weights: str | None = None, device: str | torch.device = "cpu"
) -> dict[str, float | int | str]:
    """Figures of `Fid` for two sets of films that come in portions [n, 1, R, R] in [-1, 1]. Raises as its methods do."""
    distance = Fid(weights, device=device)
    for films in real:
        distance.add_real(films.to(device))
    for films in fake:
        distance.add_fake(films.to(device))
    return distance.figures()


def read_inception(path: Path) -> inception.InceptionV3:
    """The network with the weights in this file, on the CPU. Raises ConfigError in one line for a file that holds others."""
    network = inception.InceptionV3()
    network.load_published(read_weights(path, network.published_shapes()))
    return network


def find_inception(weights: str | None, *, flag: str = "--weights") -> Path:
    """The weights file: `weights` itself, or in that folder, or where torch.hub keeps what it downloaded. Nothing is downloaded.

    A file of safetensors with the same stem is as good. Raises ConfigError in one line with the file's name, and `flag`, which names it.
    """
    if weights and Path(weights).is_file():
        return Path(weights)
    folders = folders_of(weights)
    for folder in folders:
        for path in (folder / INCEPTION_FILE, (folder / INCEPTION_FILE).with_suffix(".safetensors")):
            if path.is_file():
                return path
    looked = " and ".join(str(folder) for folder in folders)
    raise ConfigError(f"weights for FID were not found in {looked}; name their file or folder with {flag}: {INCEPTION_FILE}")
