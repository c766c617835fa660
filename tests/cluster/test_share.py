"""How a cluster's cores and GPUs are shared: every worker must fit on a node."""

from __future__ import annotations

import pytest

from engine.cluster.pools import share_of_nodes
from engine.errors import ClusterError


@pytest.mark.parametrize(
    ("nodes", "workers", "share"),
    [
        ([(2, 0)], 2, (1.0, 0.0)),
        ([(2, 0)], 1, (2.0, 0.0)),
        ([(2, 0)], 3, (2 / 3, 0.0)),
        ([(2, 0), (2, 0)], 1, (2.0, 0.0)),  # not the four of the whole cluster
        ([(2, 0), (2, 0)], 3, (1.0, 0.0)),
        ([(16, 4)], 4, (4.0, 1.0)),
        ([(64, 0), (8, 2)], 2, (4.0, 1.0)),  # the big head has no GPU
        ([(2, 2)], 3, (2 / 3, 1 / 2)),  # two on one GPU, since thirds of two GPUs do not fit
        ([(8, 1), (8, 1)], 4, (4.0, 1 / 2)),
    ],
)
def test_the_largest_share_that_fits(nodes: list[tuple[float, float]], workers: int, share: tuple[float, float]) -> None:
    assert share_of_nodes(nodes, workers) == pytest.approx(share)


def test_a_cluster_without_cores_is_refused() -> None:
    with pytest.raises(ClusterError, match="no room for this many workers: 2"):
        share_of_nodes([(0, 0)], 2)
