"""The generator of a deep convolutional GAN: against a plain writing of it, its published size, films that do not look at each other."""

import math

import numpy as np
import pytest
import torch

from engine.errors import CodecError
from engine.networks.dcgan import DcganGenerator, DcganSettings

SMALL = {"channels": (6, 5, 4), "code_size": 7}


def network(**changes):
    """A small generator in float64 and evaluation mode, with statistics, gains and biases that are not those of a new one."""
    torch.manual_seed(0)
    net = DcganGenerator(DcganSettings(**SMALL | changes)).double().eval()
    with torch.no_grad():
        for norm in net.norms:
            norm.weight.uniform_(0.5, 2)
            norm.bias.normal_()
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.2, 2)
    return net


def transposed(x, weight, *, stride, crop_before, side):
    """x [C, h, w] through weight [C, D, k, k]: each value lays its kernel down `stride` places on; `side` places are cut out."""
    kernel, length = weight.shape[-1], x.shape[-1]
    wide = np.zeros((weight.shape[1], (length - 1) * stride + kernel + 1, (length - 1) * stride + kernel + 1))
    for row in range(length):
        for column in range(length):
            laid = np.einsum("c,cdij->dij", x[:, row, column], weight)
            wide[:, row * stride : row * stride + kernel, column * stride : column * stride + kernel] += laid
    part = slice(crop_before, crop_before + side)
    return wide[:, part, part]


def written_out(state, z, *, levels, kernel):
    """Figure 7 (right) of the paper in loops: transposed convolutions with batch norm and ReLU between them, tanh at the end."""
    x = transposed(z[:, None, None], state["first.weight"], stride=1, crop_before=0, side=4)
    for level in range(levels):
        mean, var, gain, bias = (state[f"norms.{level}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        x = (x - mean[:, None, None]) / np.sqrt(var[:, None, None] + 1e-5) * gain[:, None, None] + bias[:, None, None]
        x = np.maximum(x, 0)
        side = 2 * x.shape[-1]
        x = transposed(x, state[f"levels.{level}.weight"], stride=2, crop_before=(kernel - 1) // 2, side=side)
    return np.tanh(x)


@pytest.mark.parametrize("kernel", [4, 5])
def test_equals_the_documented_pass(kernel):
    net = network(kernel=kernel)
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    z = torch.randn(2, 1, 7, dtype=torch.float64)
    with torch.no_grad():
        films = net(z)
    assert films.shape == (2, 1, 32, 32)
    assert films.std() > 0.1
    for film, code in zip(films.numpy(), z.numpy(), strict=True):
        np.testing.assert_allclose(film, written_out(state, code[0], levels=3, kernel=kernel), rtol=1e-9, atol=1e-9)


def test_size_is_that_of_kumar_and_triana():
    with torch.device("meta"):
        net = DcganGenerator(DcganSettings())
    assert (net.code_shape, net.resolution) == ((1, 100), 128)
    assert sum(parameter.numel() for parameter in net.parameters()) == 3_606_976


def test_shapes_are_those_of_radford():
    with torch.device("meta"):
        net = DcganGenerator(DcganSettings(channels=(1024, 512, 256, 128), kernel=5))
    assert net.resolution == 64
    assert [tuple(level.weight.shape) for level in net.levels] == [(1024, 512, 5, 5), (512, 256, 5, 5), (256, 128, 5, 5), (128, 1, 5, 5)]
    assert net(torch.empty(2, 1, 100, device="meta")).shape == (2, 1, 64, 64)


def test_films_look_at_each_other_in_training_alone():
    net = network()
    z = torch.randn(5, 1, 7, dtype=torch.float64)
    torch.testing.assert_close(net(z)[3:4], net(z[3:4]))
    net.train()
    assert (net(z)[3:4] - net(z[3:4])).abs().max() > 1e-3


def test_the_length_of_z_counts():
    net = network()
    z = torch.randn(2, 1, 7, dtype=torch.float64)
    assert (net(z) - net(2 * z)).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_near(dtype):
    net = network().float()
    z = torch.randn(4, 1, 7)
    with torch.no_grad():
        exact = net(z)
        half = net.to(dtype)(z)
    assert half.dtype == dtype
    # four layers of two roundings each, and their gains
    assert (half.float() - exact).std() < 8 * math.sqrt(8) * torch.finfo(dtype).eps * exact.std()


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"channels": ()}, "dcgan.channels needs 1 to 9 levels: 0"),
        ({"channels": (1,) * 10}, "dcgan.channels needs 1 to 9 levels: 10"),
        ({"channels": (4, 0)}, r"dcgan widths must be 1 to 8192: 7, \(4, 0\)"),
        ({"code_size": 0}, "dcgan widths must be 1 to 8192: 0"),
        ({"kernel": 3}, "dcgan.kernel must be one of 4, 5: 3"),
        ({"epsilon": 0.0}, "dcgan.epsilon must be above 0 and at most 0.01: 0.0"),
    ],
)
def test_senseless_settings_are_refused(wrong, line):
    with pytest.raises(CodecError, match=line):
        DcganSettings(**SMALL | wrong)
