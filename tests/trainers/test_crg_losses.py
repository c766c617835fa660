"""Terms of the cyclic reverse generator's losses against loops over their definitions, and SSIM against another implementation."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from trainers.losses.crg import code_distance, content_distance, film_distances


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_code_distance_is_the_mean_of_absolute_differences():
    w, found = draw(2, 1, 3), draw(2, 4, 3, seed=1)
    total = 0.0
    for n in range(2):
        for layer in range(4):
            for c in range(3):
                total += abs(float(w[n, 0, c]) - float(found[n, layer, c]))
    assert float(code_distance(torch.tensor(w), torch.tensor(found))) == pytest.approx(total / 24, rel=1e-6)
    assert float(code_distance(torch.tensor(w), torch.tensor(w))) == 0


def test_film_distances_are_squares_and_dissimilarity_in_units_of_0_to_1():
    films = np.clip(draw(3, 1, 16, 16) / 2, -1, 1)
    made = np.clip(films + draw(3, 1, 16, 16, seed=1) / 4, -1, 1)
    error, dissimilarity = film_distances(torch.tensor(made), torch.tensor(films))
    pairs = [((a[0] + 1) / 2, (b[0] + 1) / 2) for a, b in zip(made.astype(float), films.astype(float), strict=True)]
    squares = [(p - q) ** 2 for a, b in pairs for p, q in zip(a.ravel(), b.ravel(), strict=True)]
    assert float(error) == pytest.approx(sum(squares) / len(squares), rel=1e-5)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    similar = np.mean([structural_similarity(a, b, **options) for a, b in pairs])
    assert float(dissimilarity) == pytest.approx(1 - similar, abs=1e-5)
    assert float(dissimilarity) > 0.1


def test_equal_films_have_no_distance_and_opposite_ones_much():
    films = torch.tensor(np.clip(draw(2, 1, 12, 12), -1, 1))
    assert [float(value) for value in film_distances(films, films)] == pytest.approx([0, 0], abs=1e-6)
    assert float(film_distances(-films, films)[1]) > 1


def test_films_beyond_the_range_count_as_clamped_but_can_come_back():
    films = torch.ones(1, 1, 12, 12)
    made = torch.full_like(films, 1.5, requires_grad=True)
    assert float(film_distances(made.detach(), films)[0]) == 0
    error, _ = film_distances(made, -films)
    error.backward()
    assert float(error.detach()) == pytest.approx(1)
    assert float(made.grad.min()) > 0


def test_content_is_a_sum_over_layers_of_means_over_maps():
    shapes = [(2, 3, 4, 4), (2, 5, 2, 2), (2, 1, 1, 1)]
    maps, others = (
        [draw(*shape, seed=at) for at, shape in enumerate(shapes)],
        [draw(*shape, seed=9 + at) for at, shape in enumerate(shapes)],
    )
    by_film = []
    for n in range(2):
        total = 0.0
        for ours, theirs in zip(maps, others, strict=True):
            norm = sum(abs(float(p) - float(q)) for p, q in zip(ours[n].ravel(), theirs[n].ravel(), strict=True))
            total += norm / ours[n].size
        by_film.append(total)
    found = content_distance([torch.tensor(each) for each in maps], [torch.tensor(each) for each in others])
    assert float(found) == pytest.approx(sum(by_film) / 2, rel=1e-6)


def test_content_moves_both_sides_and_wants_as_many_layers():
    one, other = torch.tensor([[1.0]], requires_grad=True), torch.tensor([[3.0]], requires_grad=True)
    content_distance([one], [other]).backward()
    assert (float(one.grad), float(other.grad)) == (-1, 1)
    with pytest.raises(ValueError, match="shorter"):
        content_distance([one, one], [other])
