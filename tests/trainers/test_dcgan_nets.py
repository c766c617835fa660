"""What a deep convolutional GAN is trained with: the discriminator, the weights that it starts from, and statistics taken anew."""

import numpy as np
import pytest
import torch

from engine.errors import ConfigError
from engine.networks.dcgan import DcganGenerator, DcganSettings
from trainers.nets.dcgan_cost import step_gflop
from trainers.nets.dcgan_discriminator import DcganDiscriminator, DcganDiscriminatorSettings, start_weights
from trainers.nets.standing_statistics import take_statistics

WIDTHS = (3, 4, 5)  # films of 32x32


def discriminator(**changes):
    torch.manual_seed(0)
    return DcganDiscriminator(DcganDiscriminatorSettings(**{"channels": WIDTHS} | changes)).double()


def convolved(x, weight, *, stride, padding):
    """x [N, C, h, h] through weight [D, C, k, k]."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    kernel = weight.shape[-1]
    places = (padded.shape[-1] - kernel) // stride + 1
    out = np.zeros((len(x), len(weight), places, places))
    for row in range(places):
        for column in range(places):
            patch = padded[:, :, row * stride : row * stride + kernel, column * stride : column * stride + kernel]
            out[:, :, row, column] = np.einsum("ncij,dcij->nd", patch, weight)
    return out


def written_out(state, films, *, head, kernel):
    """Figure 7 (left) in loops, in training mode."""
    padding = (kernel - 1) // 2
    x = convolved(films, state["first.weight"], stride=2, padding=padding)
    x = np.where(x > 0, x, 0.2 * x)
    for level in range(len(WIDTHS) - 1):
        x = convolved(x, state[f"levels.{level}.weight"], stride=2, padding=padding)
        mean, var = x.mean(axis=(0, 2, 3), keepdims=True), x.var(axis=(0, 2, 3), keepdims=True)
        gain, bias = (state[f"norms.{level}.{part}"][:, None, None] for part in ("weight", "bias"))
        x = (x - mean) / np.sqrt(var + 1e-5) * gain + bias
        x = np.where(x > 0, x, 0.2 * x)
    x = convolved(x, state["head.weight"], **({"stride": 2, "padding": 1} if head == "map" else {"stride": 1, "padding": 0}))
    return x.reshape(len(films), -1)


@pytest.mark.parametrize(("head", "kernel", "places"), [("map", 4, 4), ("single", 5, 1)], ids=["kumar", "radford"])
def test_equals_the_documented_pass(head, kernel, places):
    net = discriminator(head=head, kernel=kernel)
    with torch.no_grad():
        for norm in net.norms:
            norm.weight.uniform_(0.5, 2)
            norm.bias.normal_()
    films = torch.rand(3, 1, 32, 32, dtype=torch.float64) * 2 - 1
    expected = written_out({name: value.numpy() for name, value in net.state_dict().items()}, films.numpy(), head=head, kernel=kernel)
    with torch.no_grad():
        scores = net(films)
    assert scores.shape == (3, places)
    assert scores.dtype == torch.float32
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_size_is_that_of_kumar_and_triana():
    with torch.device("meta"):
        net = DcganDiscriminator(DcganDiscriminatorSettings())
    assert net.resolution == 128
    assert net(torch.empty(2, 1, 128, 128, device="meta")).shape == (2, 4)
    assert sum(parameter.numel() for parameter in net.parameters()) == 2_795_904


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"channels": ()}, "discriminator levels must be 1 or more: 0"),
        ({"channels": (4, 0)}, "discriminator channels must be 1 or more: 0"),
        ({"kernel": 3}, "kernel must be one of 4, 5: 3"),
        ({"head": "both"}, "head must be one of map, single: both"),
        ({"leak": 1.0}, "leak must be 0 or more and under 1: 1.0"),
    ],
)
def test_senseless_settings_are_refused(wrong, line):
    with pytest.raises(ConfigError, match=line):
        DcganDiscriminatorSettings(**wrong)


def test_weights_start_small_and_normal():
    torch.manual_seed(1)
    for net in (DcganGenerator(DcganSettings(channels=(64, 32))), DcganDiscriminator(DcganDiscriminatorSettings(channels=(32, 64)))):
        start_weights(net)
        weights = torch.cat([value.detach().flatten() for name, value in net.named_parameters() if "norms" not in name])
        assert abs(weights.mean()) < 3e-4
        assert weights.std().item() == pytest.approx(0.02, rel=0.02)
        assert weights.abs().max() > 0.06, "a normal distribution has no such sharp end as a uniform one of this spread (0.035)"
        gains = torch.cat([norm.weight.detach() for norm in net.norms])
        assert gains.mean().item() == pytest.approx(1, abs=0.01)
        assert gains.std().item() == pytest.approx(0.02, rel=0.35)
        assert all(torch.equal(norm.bias, torch.zeros_like(norm.bias)) for norm in net.norms)


def test_statistics_are_plain_means_over_batches():
    torch.manual_seed(2)
    net = torch.nn.Sequential(torch.nn.BatchNorm2d(2), torch.nn.ReLU(), torch.nn.BatchNorm2d(2)).double().eval()
    weights = {name: value.clone() for name, value in net.named_parameters()}
    batches = [torch.randn(4, 2, 3, 3, dtype=torch.float64) * spread for spread in (1, 2, 5)]
    take_statistics(net, iter(batches))
    first = np.stack([batch.numpy().mean(axis=(0, 2, 3)) for batch in batches])
    spread = np.stack([batch.numpy().var(axis=(0, 2, 3), ddof=0) * 36 / 35 for batch in batches])  # torch keeps the unbiased one
    np.testing.assert_allclose(net[0].running_mean.numpy(), first.mean(axis=0))
    np.testing.assert_allclose(net[0].running_var.numpy(), spread.mean(axis=0))
    second = []
    for batch in batches:
        x = batch.numpy()
        x = np.maximum((x - x.mean(axis=(0, 2, 3), keepdims=True)) / np.sqrt(x.var(axis=(0, 2, 3), keepdims=True) + 1e-5), 0)
        second.append(x.mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(net[2].running_mean.numpy(), np.mean(second, axis=0))
    assert not any(module.training for module in net.modules())
    assert net[0].momentum == 0.1
    assert all(torch.equal(value, weights[name]) for name, value in net.named_parameters())


def test_cost_of_a_step_adds_up():
    """Multiply-adds of the layers by hand: a weight is used once for each place of the smaller map of its layer."""
    generator, judge = DcganSettings(channels=(6, 4), code_size=7), DcganDiscriminatorSettings(channels=(4, 6), head="map")
    make = [7 * 6 * 16, 6 * 4 * 16 * 16, 4 * 16 * 64]
    read = [4 * 16 * 64, 4 * 6 * 16 * 16, 6 * 16 * 4]
    # a layer costs as much again for the gradient in its weights, and in its inputs, which the first one of a network is not asked for
    of_discriminator = sum(make) + 2 * (3 * sum(read) - read[0])
    of_generator = 3 * sum(make) - make[0] + 2 * sum(read)
    expected = 2 * (of_discriminator + 3 * of_generator) / 1e9
    assert step_gflop(generator, judge, batch_size=5, generator_steps=3) == pytest.approx(expected, rel=1e-9)
