"""Places and trees of sets: a plane keeps its distances, and near sets are joined first."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.cluster.hierarchy import leaves_list
from scipy.spatial.distance import pdist, squareform

from engine.distances import scaling
from engine.distances.scaling import check_packages, link_sets, place_sets
from engine.errors import ConfigError


def test_distances_of_a_plane_are_kept() -> None:
    distances = squareform(pdist(np.random.default_rng(0).normal(size=(7, 2))))
    places, stress = place_sets(distances)
    np.testing.assert_allclose(squareform(pdist(places)), distances, atol=1e-6)
    assert stress < 1e-6
    np.testing.assert_allclose(places.mean(axis=0), 0, atol=1e-9)
    assert places[:, 0].std() >= places[:, 1].std()
    again, _ = place_sets(distances)
    assert np.array_equal(again, places)


def test_more_than_a_plane_holds_is_stress() -> None:
    """The corners of a regular tetrahedron have no places in a plane; the best ones are known to be a square's."""
    places, stress = place_sets(1.0 - np.eye(4))
    found = pdist(places)
    assert stress == pytest.approx(np.sqrt(np.square(found - 1).mean()))
    assert 0.05 < stress < 0.25
    worse = pdist(np.random.default_rng(0).normal(size=(4, 2)) * 0.6)
    assert stress < np.sqrt(np.square(worse - 1).mean())


def test_two_sets_and_equal_sets_have_places() -> None:
    places, stress = place_sets(np.array([[0.0, 3.0], [3.0, 0.0]]))
    assert np.linalg.norm(places[0] - places[1]) == pytest.approx(3)
    assert stress < 1e-9
    places, stress = place_sets(np.zeros((3, 3)))
    assert (np.abs(places).max(), stress) == (0, 0)


def test_near_sets_join_first_and_lie_beside_each_other() -> None:
    """Two crowds on a line: 0, 1 and 10, 11.5, and the mean of the distances between them."""
    at = np.array([0.0, 10.0, 1.0, 11.5])
    linked = link_sets(np.abs(at[:, None] - at))
    assert [sorted(row[:2]) for row in linked] == [[0, 2], [1, 3], [4, 5]]
    np.testing.assert_allclose(linked[:, 2], [1, 1.5, (10 + 11.5 + 9 + 10.5) / 4])
    assert leaves_list(linked).tolist() in ([0, 2, 1, 3], [3, 1, 2, 0])


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    check_packages()
    monkeypatch.setitem(scaling._PACKAGES, "no_such_package", "no-such-package")
    with pytest.raises(ConfigError, match=r"pip install 'latentray\[analysis\]'\): no-such-package$"):
        check_packages()
    assert "no_such_package" not in sys.modules
