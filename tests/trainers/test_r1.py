"""The logistic losses and R1: value and gradient against the equations written out, and parts of a step against the whole."""

import pytest
import torch

from trainers.losses.r1 import discriminator_loss, generator_loss
from trainers.nets.pggan_discriminator import DiscriminatorSettings, GrowingDiscriminator

LEVEL, SIDE, GROUP = 1, 8, 2


@pytest.fixture
def judge():
    torch.manual_seed(0)
    network = GrowingDiscriminator(DiscriminatorSettings(channels=(6, 5), output_range="signed")).double()
    for name, value in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(value)
    return network


@pytest.fixture
def films():
    draw = torch.Generator().manual_seed(1)
    real, fake = (torch.rand(4, 1, SIDE, SIDE, dtype=torch.float64, generator=draw) * 2 - 1 for _ in range(2))
    return real, fake


def scores(judge):
    return lambda films: judge(films, LEVEL, group=GROUP)


def gradients(judge):
    return {name: value.grad.clone() for name, value in judge.named_parameters() if value.grad is not None}


def test_value_is_that_of_the_equations():
    """Of a linear discriminator D(x) = <a, x> + b, whose slope is a at every film."""
    a, b = torch.tensor([[0.5, -1.0], [2.0, 0.25]], dtype=torch.float64), -0.3
    real = torch.tensor([[[[1.0, 0.5], [0.2, 0.0]]], [[[0.0, -1.0], [0.5, 1.0]]]], dtype=torch.float64)
    fake = torch.tensor([[[[0.0, 0.0], [0.0, 1.0]]], [[[-1.0, 0.5], [0.0, 0.0]]]], dtype=torch.float64)

    def linear(films):
        return (films * a).sum(dim=(1, 2, 3)) + b

    on_real, on_fake = [0.5 - 0.5 + 0.4 - 0.3, 1.0 + 1.0 + 0.25 - 0.3], [0.25 - 0.3, -0.5 - 0.5 - 0.3]

    def logs(sign, values):  # -log of the probability that a film is what it is
        return torch.log1p(torch.exp(sign * torch.tensor(values, dtype=torch.float64))).mean()

    found = {name: value.detach() for name, value in discriminator_loss(linear, real, fake, gamma=3.0).items()}
    squares = 0.25 + 1.0 + 4.0 + 0.0625
    assert float(found["penalty"]) == pytest.approx(squares)
    torch.testing.assert_close(found["logistic"], logs(1, on_fake) + logs(-1, on_real))
    torch.testing.assert_close(found["loss"], logs(1, on_fake) + logs(-1, on_real) + 1.5 * squares)
    assert (float(found["on_real"]), float(found["on_fake"])) == pytest.approx((sum(on_real) / 2, sum(on_fake) / 2))
    torch.testing.assert_close(generator_loss(linear, fake)["loss"], logs(-1, on_fake))


def test_gradient_equals_finite_differences(judge, films):
    discriminator_loss(scores(judge), *films, gamma=4.0)["loss"].backward()
    ours = gradients(judge)
    draw = torch.Generator().manual_seed(2)
    for name, value in judge.named_parameters():
        if name not in ours:
            continue  # the gray layer of the level below takes no part
        direction = torch.randn(value.shape, dtype=torch.float64, generator=draw)
        sides = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                value.add_(direction, alpha=step)
            sides.append(discriminator_loss(scores(judge), *films, gamma=4.0)["loss"].item())
            with torch.no_grad():
                value.sub_(direction, alpha=step)
        found = float((ours[name] * direction).sum())
        assert found == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-5, abs=1e-6), name
    assert len(ours) == 12


def test_parts_of_whole_groups_add_up(judge, films):
    discriminator_loss(scores(judge), *films)["loss"].backward()
    whole = gradients(judge)
    judge.zero_grad()
    for part in zip(*(each.split(GROUP) for each in films), strict=True):
        (discriminator_loss(scores(judge), *part)["loss"] / 2).backward()
    for name, value in gradients(judge).items():
        torch.testing.assert_close(value, whole[name], rtol=1e-9, atol=1e-12)


def test_half_precision_stays_near(judge, films):
    judge.float()
    films = tuple(each.float() for each in films)
    discriminator_loss(scores(judge), *films)["loss"].backward()
    whole = torch.cat([value.flatten() for value in gradients(judge).values()])
    judge.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = discriminator_loss(scores(judge), *films)
    found["loss"].backward()
    half = torch.cat([value.flatten() for value in gradients(judge).values()])
    assert all(value.dtype == torch.float32 for value in found.values())
    assert torch.nn.functional.cosine_similarity(half, whole, dim=0) > 0.99
