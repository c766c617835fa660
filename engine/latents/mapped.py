"""A map of codes: places in a plane where neighbours stay neighbours (UMAP), and the crowds that they form there (DBSCAN)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from engine.errors import ConfigError
from engine.latents.codes import Values

LEAST = 4  # codes, for a plane to mean anything
NEIGHBOURS = 15  # of UMAP, and of the distance that DBSCAN calls near
CROWD = 10  # films that must be near one another to begin a cluster
NEAR = 1.5  # times the median distance of a place to its CROWD-th neighbour

Places = np.ndarray[Any, np.dtype[np.float32]]
Clusters = np.ndarray[Any, np.dtype[np.int64]]


def find_places(values: Values, *, seed: int) -> Places:
    """Codes [n, d] -> places [n, 2] in [0, 1], by UMAP (McInnes et al. 2018) on the cosine: the same for the same codes and seed.

    Seconds for a thousand codes, about a minute for ten thousand on one core. Raises ConfigError for fewer than LEAST codes.
    """
    if len(values) < LEAST:
        raise ConfigError(f"a map needs {LEAST} codes or more: {len(values)}")
    from umap import UMAP

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that one thread is used for the sake of the seed, and of small data sets
        mapper = UMAP(n_neighbors=min(NEIGHBOURS, len(values) - 1), min_dist=0.1, metric="cosine", random_state=seed, init=_start(values))
        found = mapper.fit_transform(values)
    low, high = found.min(axis=0), found.max(axis=0)
    places: Places = ((found - low) / np.maximum(high - low, 1e-9)).astype(np.float32)
    return places


def find_clusters(places: Places) -> Clusters:
    """Places [n, 2] -> the number of each one's cluster [n], 0 for the largest; -1 for those alone (DBSCAN, Ester et al. 1996)."""
    from sklearn.cluster import DBSCAN
    from sklearn.neighbors import NearestNeighbors

    crowd = min(CROWD, len(places) - 1)
    distances, _ = NearestNeighbors(n_neighbors=crowd + 1).fit(places).kneighbors(places)
    near = max(float(NEAR * np.median(distances[:, -1])), 1e-6)
    labels = DBSCAN(eps=near, min_samples=crowd).fit_predict(places)
    sizes = np.bincount(labels[labels >= 0], minlength=labels.max(initial=-1) + 1)
    order = np.empty(len(sizes), dtype=np.int64)
    order[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    clusters: Clusters = np.where(labels >= 0, order[np.maximum(labels, 0)] if len(order) else -1, -1)
    return clusters


def _start(values: Values) -> Places:
    """Where UMAP begins: the first two principal components, a tenth as far apart as they are, so that no draw decides the map."""
    centred = values.astype(np.float64) - values.mean(axis=0)
    _, _, axes = np.linalg.svd(centred if len(centred) <= 4096 else centred[:: len(centred) // 4096 + 1], full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2].sum(axis=1, keepdims=True) + 1e-30)
    start = centred @ axes.T
    if start.shape[1] < 2:
        start = np.pad(start, ((0, 0), (0, 2 - start.shape[1])))
    spread = np.maximum(start.std(axis=0).max(), 1e-12)
    places: Places = (start / spread * 1e-1).astype(np.float32)
    return places
