"""Figures of a Gaussian-mixture autoencoder: what its clusters tell of a label that training never saw, and labels that it learned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.labels import LabelSpec
from trainers import randomness

_SHUFFLES = 20


def cluster_accuracy(clusters: Tensor, marks: Tensor) -> float:
    """Share of films whose label [n] (0 or 1) is the commonest one of their cluster [n] (int64): clusters mapped to majority labels."""
    yes = torch.zeros(int(clusters.max()) + 1).index_add(0, clusters, marks.float())
    all_of = torch.bincount(clusters).float()
    return float(torch.maximum(yes, all_of - yes).sum() / len(clusters))


def cluster_figures(clusters: Tensor, marks: Tensor, *, seed: int) -> dict[str, float]:
    """`cluster_accuracy`, and `cluster_accuracy_by_chance`: its mean over shuffled labels, since many small clusters fit any labels.

    `clusters_used` counts clusters with a film.
    """
    shuffled = []
    for number in range(_SHUFFLES):
        order = torch.from_numpy(randomness.generator(seed, "gmvae/shuffle", number).permutation(len(marks)))
        shuffled.append(cluster_accuracy(clusters, marks[order]))
    return {
        "cluster_accuracy": cluster_accuracy(clusters, marks),
        "cluster_accuracy_by_chance": sum(shuffled) / len(shuffled),
        "clusters_used": float((torch.bincount(clusters) > 0).sum()),
    }


def label_figures(chances: Tensor, marks: Tensor, labels: Sequence[str]) -> dict[str, float]:
    """Of each learned label, the share of films on which its probability [n, labels] is on the side of 1/2 where the label is."""
    rightly = ((chances > 0.5) == (marks[:, : len(labels)] > 0.5)).float().mean(dim=0).tolist()
    return {f"accuracy_{LabelSpec.parse(label).name}": value for label, value in zip(labels, rightly, strict=True)}
