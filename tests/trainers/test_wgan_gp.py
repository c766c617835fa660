"""The Wasserstein losses: their value against a plain writing, their gradient against finite differences, and parts against the whole."""

import pytest
import torch

from trainers.losses.wgan_gp import critic_loss, generator_loss, gradient_norms
from trainers.nets.pggan_discriminator import DiscriminatorSettings, GrowingDiscriminator

LEVEL, SIDE, GROUP = 1, 8, 2


@pytest.fixture
def critic():
    torch.manual_seed(0)
    network = GrowingDiscriminator(DiscriminatorSettings(channels=(6, 5))).double()
    for name, value in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(value)
    return network


@pytest.fixture
def films():
    draw = torch.Generator().manual_seed(1)
    real, fake = (torch.rand(4, 1, SIDE, SIDE, dtype=torch.float64, generator=draw) * 2 - 1 for _ in range(2))
    return real, fake, torch.rand(4, 1, 1, 1, dtype=torch.float64, generator=draw)


def scores(critic):
    return lambda films: critic(films, LEVEL, group=GROUP)


def loss_of(critic, films, **options):
    return critic_loss(scores(critic), *films, slope=critic.slope, **options)


def gradients(critic):
    return {name: value.grad.clone() for name, value in critic.named_parameters() if value.grad is not None}


def test_value_is_that_of_the_papers(critic, films):
    real, fake, mix = films
    mixed = (mix * real + (1 - mix) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(scores(critic)(mixed).sum(), mixed)
    norms = 2 * slope.flatten(1).norm(dim=1)  # the network sees films in [0, 1], where slopes are twice as steep
    on_real, on_fake = scores(critic)(real), scores(critic)(fake)
    expected = on_fake.mean() - on_real.mean() + 7 * (norms - 1).square().mean() + 0.1 * on_real.square().mean()
    found = loss_of(critic, films, gp_weight=7, drift=0.1)
    torch.testing.assert_close(found["loss"], expected)
    torch.testing.assert_close(found["penalty"], (norms - 1).square().mean())
    torch.testing.assert_close(found["distance"], on_real.mean() - on_fake.mean())
    torch.testing.assert_close(generator_loss(scores(critic), fake)["loss"], -on_fake.mean())


def test_gradient_equals_torchs_own_second_gradient(critic, films):
    loss_of(critic, films)["loss"].backward()
    ours = gradients(critic)
    critic.zero_grad()
    real, fake, mix = films
    mixed = (mix * real + (1 - mix) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(plain_scores(critic, mixed).sum(), mixed, create_graph=True)
    on_real, on_fake = plain_scores(critic, real), plain_scores(critic, fake)
    penalty = (2 * slope.flatten(1).norm(dim=1) - 1).square().mean()
    (on_fake.mean() - on_real.mean() + 10 * penalty + 1e-3 * on_real.square().mean()).backward()
    for name, value in gradients(critic).items():
        torch.testing.assert_close(ours[name], value, rtol=1e-8, atol=1e-10, msg=name)


def plain_scores(critic, films):
    """The critic with torch's own convolutions, whose second gradients are independent of ours."""
    from torch.nn import functional as F

    def layer(part, x, padding):
        return F.conv2d(x, part.weight, part.bias, padding=padding) * part.scale

    block = critic.levels[0]
    x = layer(critic.from_gray[1], films / 2 + 0.5, 0)
    x = F.leaky_relu(layer(block.second, F.leaky_relu(layer(block.first, x, 1), 0.2), 1), 0.2)
    x = F.avg_pool2d(x, 2)
    planes = [(part.var(0, unbiased=False) + 1e-8).sqrt().mean().expand(len(part), 1, 4, 4) for part in x.split(GROUP)]
    x = F.leaky_relu(layer(critic.first, torch.cat([x, torch.cat(planes)], 1), 1), 0.2)
    x = F.leaky_relu(layer(critic.second, x, 0), 0.2).flatten(1)
    return ((x @ critic.linear.weight.T + critic.linear.bias) * critic.linear.scale)[:, 0]


def test_gradient_equals_finite_differences(critic, films):
    loss_of(critic, films)["loss"].backward()
    ours = gradients(critic)
    draw = torch.Generator().manual_seed(2)
    for name, value in critic.named_parameters():
        if name not in ours:
            continue  # the gray layer of the level below takes no part
        direction = torch.randn(value.shape, dtype=torch.float64, generator=draw)
        sides = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                value.add_(direction, alpha=step)
            sides.append(loss_of(critic, films)["loss"].item())
            with torch.no_grad():
                value.sub_(direction, alpha=step)
        found = float((ours[name] * direction).sum())
        assert found == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-5, abs=1e-6), name


def test_parts_of_whole_groups_add_up(critic, films):
    loss_of(critic, films)["loss"].backward()
    whole = gradients(critic)
    critic.zero_grad()
    for part in zip(*(each.split(GROUP) for each in films), strict=True):
        (loss_of(critic, part)["loss"] / 2).backward()
    for name, value in gradients(critic).items():
        torch.testing.assert_close(value, whole[name], rtol=1e-9, atol=1e-12)


def test_half_precision_stays_near(critic, films):
    critic.float()
    films = tuple(each.float() for each in films)
    loss_of(critic, films)["loss"].backward()
    whole = torch.cat([value.flatten() for value in gradients(critic).values()])
    critic.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss_of(critic, films)
    found["loss"].backward()
    half = torch.cat([value.flatten() for value in gradients(critic).values()])
    assert all(value.dtype == torch.float32 for value in found.values())
    assert torch.nn.functional.cosine_similarity(half, whole, dim=0) > 0.99


def test_a_flat_critic_has_a_finite_gradient():
    weight = torch.zeros(SIDE * SIDE, requires_grad=True)
    norms = gradient_norms(lambda films: films.flatten(1) @ weight, torch.rand(2, 1, SIDE, SIDE))
    (norms - 1).square().mean().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()
