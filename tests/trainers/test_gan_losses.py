"""The least-squares and the cross-entropy losses of a GAN, against their equations score by score and against finite differences."""

import math

import pytest
import torch

from trainers.losses import cross_entropy, least_squares

REAL = [[0.9, 1.4, -0.2, 0.3], [2.1, -1.0, 0.0, 0.6], [1.0, 0.5, 3.0, -2.0]]
FAKE = [[-0.5, 0.2, 1.0, 0.4], [0.1, -3.0, 2.0, 0.7], [0.8, 0.0, -1.5, 0.3]]


def tensors():
    return torch.tensor(REAL, dtype=torch.float64), torch.tensor(FAKE, dtype=torch.float64)


def mean(rows, value):
    """Mean over films of the mean over the places of a film."""
    return sum(sum(value(score) for score in row) / len(row) for row in rows) / len(rows)


def chance(score):
    return 1 / (1 + math.exp(-score))


def test_least_squares_are_the_equations_of_section_3_2():
    found = least_squares.discriminator_loss(*tensors())
    assert found["loss"].item() == pytest.approx(0.5 * mean(REAL, lambda d: (d - 1) ** 2) + 0.5 * mean(FAKE, lambda d: d**2))
    assert found["on_real"].item() == pytest.approx(mean(REAL, float))
    assert found["on_fake"].item() == pytest.approx(mean(FAKE, float))
    assert least_squares.generator_loss(tensors()[1])["loss"].item() == pytest.approx(0.5 * mean(FAKE, lambda d: (d - 1) ** 2))


def test_least_squares_are_not_those_of_a_films_mean_score():
    on_fake = torch.tensor([[3.0, -1.0]])
    assert least_squares.generator_loss(on_fake)["loss"].item() == pytest.approx(2.0)  # the mean score, 1, would cost nothing


def test_least_squares_are_nothing_where_the_discriminator_is_right():
    right = least_squares.discriminator_loss(torch.ones(2, 4), torch.zeros(2, 4))
    fooled = least_squares.generator_loss(torch.ones(2, 4))
    assert right["loss"] == fooled["loss"] == 0


def test_cross_entropy_is_equation_1_and_does_not_saturate():
    found = cross_entropy.discriminator_loss(*tensors())
    expected = -mean(REAL, lambda s: math.log(chance(s))) - mean(FAKE, lambda s: math.log(1 - chance(s)))
    assert found["loss"].item() == pytest.approx(expected)
    assert found["on_real"].item() == pytest.approx(mean(REAL, chance))
    assert found["on_fake"].item() == pytest.approx(mean(FAKE, chance))
    assert cross_entropy.generator_loss(tensors()[1])["loss"].item() == pytest.approx(-mean(FAKE, lambda s: math.log(chance(s))))
    sure = torch.tensor([[-200.0]], requires_grad=True)  # sigmoid(-200) is 0 in float32
    cross_entropy.generator_loss(sure)["loss"].backward()
    assert sure.grad.item() == pytest.approx(-1)


@pytest.mark.parametrize("losses", [least_squares, cross_entropy], ids=["least-squares", "cross-entropy"])
def test_gradients_equal_finite_differences(losses):
    for number, loss in enumerate((lambda r, f: losses.discriminator_loss(r, f)["loss"], lambda r, f: losses.generator_loss(f)["loss"])):
        real, fake = (each.requires_grad_() for each in tensors())
        loss(real, fake).backward()
        for place in ((0, 1), (2, 3)):
            for values in (real, fake) if number == 0 else (fake,):
                sides = []
                for step in (1e-6, -1e-6):
                    moved = values.detach().clone()
                    moved[place] += step
                    with torch.no_grad():
                        sides.append(loss(*(moved if each is values else each for each in (real, fake))).item())
                assert values.grad[place].item() == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("losses", [least_squares, cross_entropy], ids=["least-squares", "cross-entropy"])
def test_losses_are_means_over_films(losses):
    real, fake = tensors()
    alone = [losses.discriminator_loss(real[n : n + 1], fake[n : n + 1])["loss"] for n in range(3)]
    torch.testing.assert_close(losses.discriminator_loss(real, fake)["loss"], torch.stack(alone).mean())
