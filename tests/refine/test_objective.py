"""The objective is the sum of its terms, image by image, and refuses what it cannot compute."""

from __future__ import annotations

import pytest
import torch

from engine import metrics
from engine.errors import ConfigError
from engine.refine.objective import Objective, check_loss


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.rand(4, 1, 9, 9, generator=draw) * 2 - 1, torch.rand(4, 1, 9, 9, generator=draw) * 2 - 1


def test_mse_is_that_of_the_metrics_in_unit_range() -> None:
    films, targets = pair()
    loss, terms = Objective.for_targets((("mse", 3.0),), targets)(films)
    expected = metrics.mse(metrics.to_unit(films), metrics.to_unit(targets))
    torch.testing.assert_close(terms["mse"], expected)
    torch.testing.assert_close(loss, 3 * expected)


def test_pixels_beyond_the_range_keep_their_gradient() -> None:
    films = torch.full((1, 1, 2, 2), 1.5, requires_grad=True)
    loss, _ = Objective.for_targets((("mse", 1.0),), torch.ones(1, 1, 2, 2))(films)
    loss.sum().backward()
    assert films.grad is not None
    assert (films.grad > 0).all()


def test_rows_keep_their_own_targets() -> None:
    films, targets = pair()
    objective = Objective.for_targets((("mse", 1.0),), targets)
    mask = torch.tensor([True, False, True, False])
    assert torch.equal(objective.rows(mask)(films[mask])[0], objective(films)[0][mask])


def test_terms_of_weight_zero_are_not_computed() -> None:
    films, targets = pair()
    objective = Objective.for_targets((("mse", 0.0),), targets)
    loss, terms = objective(films)
    assert (loss.tolist(), terms, objective.features) == ([0.0] * 4, {}, {})


@pytest.mark.parametrize(
    ("loss", "target", "says"),
    [
        ((("lpips", 0.8),), 0.0, "not available in this version, use --loss mse=1: lpips"),
        ((("mse", 1.0), ("moco", 0.1)), 0.0, "not available in this version, use --loss mse=1: moco"),
        ((("ssim", 1.0),), 0.0, r"unknown term \(known: mse\): ssim"),
        ((("mse", -1.0),), 0.0, "0 or more: -1"),
        ((("mse", float("nan")),), 0.0, "0 or more: nan"),
        ((("mse", 0.0),), 0.1, "needs a loss with an mse term: mse=0"),
    ],
)
def test_what_cannot_be_computed_is_refused_in_one_line(loss: tuple[tuple[str, float], ...], target: float, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        check_loss(loss, target_mse=target)
    assert "\n" not in str(caught.value)


def test_mse_is_accepted() -> None:
    check_loss((("mse", 1.0),), target_mse=1e-3)
