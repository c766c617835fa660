"""The objective is the sum of its terms, image by image, and refuses what it cannot compute."""

from __future__ import annotations

import pytest
import torch

from engine import metrics
from engine.errors import ConfigError
from engine.refine.build_objective import WeightSource, build_objective
from engine.refine.objective import Objective, check_loss

PUBLISHED = (("mse", 1.0), ("lpips", 0.8), ("moco", 0.1))
RANDOM = WeightSource(mode="random")
LPIPS_ALONE = (("mse", 1.0), ("lpips", 0.8))


def pair(side: int = 32, *, count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    films, targets = torch.rand(2, count, 1, side, side, generator=draw) * 2 - 1
    return films, targets


@pytest.fixture(scope="module")
def published() -> Objective:
    return build_objective(PUBLISHED, resolution=224, source=RANDOM)


@pytest.fixture(scope="module")
def perceptual() -> Objective:
    """Without MoCo, whose films are large: quick."""
    return build_objective(LPIPS_ALONE, resolution=48, source=RANDOM)


def test_mse_is_that_of_the_metrics_in_unit_range() -> None:
    films, targets = pair(9)
    objective = Objective((("mse", 3.0),))
    loss, mse = objective(films, objective.features(targets))
    expected = metrics.mse(metrics.to_unit(films), metrics.to_unit(targets))
    torch.testing.assert_close(mse, expected)
    torch.testing.assert_close(loss, 3 * expected)


def test_ssim_is_one_minus_that_of_the_metrics() -> None:
    films, targets = pair()
    objective = Objective((("ssim", 0.5), ("mse", 2.0)))
    loss, mse = objective(films, objective.features(targets))
    unit = metrics.to_unit(films), metrics.to_unit(targets)
    torch.testing.assert_close(mse, metrics.mse(*unit))
    torch.testing.assert_close(loss, 0.5 * (1 - metrics.ssim(*unit)) + 2 * mse)


def test_mse_is_nan_where_the_loss_has_none() -> None:
    films, targets = pair()
    for loss in ((("ssim", 1.0),), (("ssim", 1.0), ("mse", 0.0))):
        objective = Objective(loss)
        value, mse = objective(films, objective.features(targets))
        assert value.isfinite().all()
        assert mse.isnan().all()


def test_pixels_beyond_the_range_keep_their_gradient() -> None:
    films = torch.full((1, 1, 2, 2), 1.5, requires_grad=True)
    objective = Objective((("mse", 1.0),))
    loss, mse = objective(films, objective.features(torch.ones(1, 1, 2, 2)))
    loss.sum().backward()
    assert films.grad is not None
    assert (films.grad > 0).all()
    assert not mse.requires_grad


def test_the_published_loss_is_the_sum_of_its_terms(published: Objective) -> None:
    films, targets = pair(224, count=1)
    features = published.features(targets)
    parts = []
    for term, weight in PUBLISHED:
        alone = Objective(((term, weight),), **dict(published.networks.items()))
        parts.append(alone(films, alone.features(targets))[0])
    torch.testing.assert_close(published(films, features)[0], torch.stack(parts).sum(0))


def test_images_do_not_mix(published: Objective) -> None:
    films, targets = pair(224, count=2)
    films.requires_grad_()
    features = published.features(targets)
    assert {len(part) for part in features} == {2}
    loss, mse = published(films, features)
    (gradient,) = torch.autograd.grad(loss.sum(), films)
    alone = films[1:].detach().requires_grad_()
    loss_alone, mse_alone = published(alone, tuple(part[1:] for part in features))
    torch.testing.assert_close(loss[1:], loss_alone, rtol=1e-5, atol=0)
    torch.testing.assert_close(mse[1:], mse_alone, rtol=1e-6, atol=0)
    assert not gradient[1].equal(gradient[0])
    (gradient_alone,) = torch.autograd.grad(loss_alone.sum(), alone)
    assert (gradient[1] - gradient_alone[0]).norm() < 1e-4 * gradient_alone.norm()


def test_one_film_that_is_not_finite_leaves_the_others(perceptual: Objective) -> None:
    films, targets = pair(48, count=2)
    spoiled = films.clone()
    spoiled[0, 0, 5, 5] = torch.nan
    features = perceptual.features(targets)
    loss, _ = perceptual(spoiled, features)
    assert loss[0].isnan()
    torch.testing.assert_close(loss[1], perceptual(films, features)[0][1])


def test_networks_see_targets_once(published: Objective) -> None:
    films, targets = pair(224, count=1)
    features = published.features(targets)
    seen: list[int] = []
    handles = [network.register_forward_hook(lambda *_: seen.append(1)) for network in (published.networks["lpips"].stack,)]
    handles.append(published.networks["moco"].trunk.register_forward_hook(lambda *_: seen.append(2)))
    for _ in range(2):
        published(films, features)
    for handle in handles:
        handle.remove()
    assert sorted(seen) == [1, 1, 2, 2]  # the films' own passes
    assert not any(part.requires_grad for part in features)


def test_a_film_that_reaches_its_target_has_no_loss_and_a_finite_gradient(published: Objective) -> None:
    _, targets = pair(224, count=1)
    for film in (targets, torch.full_like(targets, -1.0)):
        pixels = film.clone().requires_grad_()
        loss, mse = published(pixels, published.features(film))
        (gradient,) = torch.autograd.grad(loss.sum(), pixels)
        assert abs(loss.item()) < 1e-6
        assert mse.item() == 0
        assert gradient.isfinite().all()


def test_nothing_of_it_is_trained(published: Objective) -> None:
    assert not any(parameter.requires_grad for parameter in published.parameters())
    assert not published.training


def test_bfloat16_networks_give_float32_losses(perceptual: Objective) -> None:
    films, targets = pair(48)
    films.requires_grad_()
    exact, _ = perceptual(films, perceptual.features(targets))
    with torch.autocast("cpu", torch.bfloat16):
        features = perceptual.features(targets)
        loss, mse = perceptual(films, features)
    (gradient,) = torch.autograd.grad(loss.sum(), films)
    assert (loss.dtype, mse.dtype, gradient.dtype) == (torch.float32,) * 3
    assert {part.dtype for part in features[1:6]} == {torch.bfloat16}
    assert features[0].dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.02, atol=0)


def test_terms_and_networks_of_weight_zero_are_left_out(published: Objective) -> None:
    films, targets = pair()
    objective = Objective((("mse", 1.0), ("lpips", 0.0)), lpips=published.networks["lpips"])
    assert (objective.weights, list(objective.networks)) == ({"mse": 1.0}, [])
    assert len(objective.features(targets)) == 1
    nothing = Objective((("mse", 0.0),))
    loss, mse = nothing(films, nothing.features(targets))
    assert loss.tolist() == [0.0] * 4
    assert mse.isnan().all()


def test_a_coarser_level_keeps_the_terms_that_work_there(published: Objective) -> None:
    assert list(published.at(224).weights) == ["mse", "lpips", "moco"]
    assert list(published.at(64).weights) == ["mse", "lpips"]
    coarse = published.at(16)
    assert coarse.weights == {"mse": 1.0}
    films, targets = pair(16)
    assert coarse(films, coarse.features(targets))[0].shape == (4,)
    assert published.at(64).networks["lpips"].stack is published.networks["lpips"].stack
    with pytest.raises(ConfigError, match=r"no term of the loss \(ssim\) works on films of pixels a side: 8"):
        Objective((("ssim", 1.0),)).at(8)


def test_films_that_are_too_small_are_refused(published: Objective) -> None:
    with pytest.raises(ConfigError, match="moco needs films of 224 pixels or more a side, not: 128"):
        published.features(torch.zeros(1, 1, 128, 128))
    with pytest.raises(ConfigError, match="ssim needs films of 11 pixels or more a side, not: 8"):
        Objective((("ssim", 1.0),)).check_side(8)


@pytest.mark.parametrize("loss", [(("mse", 1.0), ("ssim", 0.1)), PUBLISHED])
def test_one_graph_of_any_batch(loss: tuple[tuple[str, float], ...], published: Objective) -> None:
    """`torch.export` sees through it with a dynamic batch: nothing in `forward` depends on values."""
    side = 224 if loss is PUBLISHED else 32
    objective = published if loss is PUBLISHED else Objective(loss)
    films, targets = pair(side, count=3)
    features = objective.features(targets)
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = ({0: batch}, tuple({0: batch} for _ in features))
    graph = torch.export.export(objective, (films[:2], tuple(part[:2] for part in features)), dynamic_shapes=shapes).module()
    for got, expected in zip(graph(films, features), objective(films, features), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("loss", "target", "says"),
    [
        ((("vgg", 1.0),), 0.0, r"unknown term \(known: lpips, moco, mse, ssim\): vgg"),
        ((("mse", -1.0),), 0.0, "0 or more: -1"),
        ((("mse", float("nan")),), 0.0, "0 or more: nan"),
        ((("mse", 0.0),), 0.1, "needs a loss with an mse term: mse=0"),
        ((("lpips", 1.0),), 0.1, "needs a loss with an mse term: lpips=1"),
    ],
)
def test_what_cannot_be_computed_is_refused_in_one_line(loss: tuple[tuple[str, float], ...], target: float, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        check_loss(loss, target_mse=target)
    assert "\n" not in str(caught.value)


def test_every_known_term_is_accepted() -> None:
    check_loss((("mse", 1.0), ("ssim", 0.1), ("lpips", 0.8), ("moco", 0.1)), target_mse=1e-3)


def test_a_term_without_its_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="network was not given, use --loss mse=1 to go without: lpips, moco"):
        Objective(PUBLISHED)
