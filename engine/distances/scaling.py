"""Sets of films by their distances: places in a plane (multidimensional scaling) and a tree of those that are alike."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

from engine.errors import ConfigError

Matrix = np.ndarray[Any, np.dtype[np.float64]]
_PACKAGES = {"sklearn": "scikit-learn", "scipy": "scipy", "matplotlib": "matplotlib"}


def check_packages() -> None:
    """Raises ConfigError unless what draws the map of sets is installed."""
    for module, package in _PACKAGES.items():
        if find_spec(module) is None:
            raise ConfigError(f"a map of sets needs a package that is not installed (pip install 'latentray[analysis]'): {package}")


def place_sets(distances: Matrix, *, seed: int = 0) -> tuple[Matrix, float]:
    """Symmetric distances [n, n] -> places [n, 2] with about these distances, the centre at 0, and Kruskal's stress of them.

    Classical scaling (Torgerson 1952) is the start, and SMACOF (de Leeuw 1977) goes on from there, so nothing is left to chance: each
    axis is the wider before the narrower, and its largest value positive. Distances of a plane are kept; stress 0 means that all are.
    """
    from sklearn.manifold import smacof

    start = _classical(distances)
    if not distances.any():
        return start, 0.0
    found, _ = smacof(distances, n_components=2, init=start, n_init=1, max_iter=2000, eps=1e-12, random_state=seed, normalized_stress=False)
    places = _upright(found)
    placed = np.linalg.norm(places[:, None] - places[None], axis=-1)
    return places, float(np.sqrt(np.square(placed - distances).sum() / np.square(distances).sum()))


def link_sets(distances: Matrix) -> Matrix:
    """Symmetric distances [n, n] -> SciPy's linkage [n - 1, 4]: clusters joined by the mean distance of their members, nearest first.

    Leaves lie so that neighbours are as near to one another as the tree allows.
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    linked: Matrix = linkage(squareform(distances, checks=False), method="average", optimal_ordering=True)
    return linked


def _classical(distances: Matrix) -> Matrix:
    """Places [n, 2]: the two largest components of the inner products that the distances stand for."""
    n = len(distances)
    centring = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-0.5 * centring @ np.square(distances) @ centring)
    places = vectors[:, ::-1][:, :2] * np.sqrt(np.clip(values[::-1][:2], 0, None))
    return _upright(places)


def _upright(places: Matrix) -> Matrix:
    """The same about its centre, turned so that the wider axis comes first and the largest value of each is positive."""
    centred = places - places.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=True)
    turned = centred @ axes.T
    signs = np.sign(turned[np.abs(turned).argmax(axis=0), np.arange(2)])
    upright: Matrix = turned * np.where(signs == 0, 1, signs)
    return upright
