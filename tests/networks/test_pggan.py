"""PGGAN against the forward pass as the papers' code documents it, written out once more with unfolded equalised learning rates."""

import math

import pytest
import torch

from engine.errors import CodecError
from engine.networks.pggan import PgganGenerator, PgganSettings
from engine.networks.pixel_norm import pixel_norm

SMALL = {"channels": (16, 16, 8, 4), "code_size": 16}


def written_out(state, settings, z):
    """The documented pass on raw weights: every layer's output, bias included, times sqrt(2 / fan_in); float64."""

    def scaled(name, x):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        he = math.sqrt(2 / math.prod(weight.shape[1:]))
        if weight.dim() == 2:
            return (torch.einsum("ni,oi->no", x, weight) + bias) * he
        side = weight.shape[-1]
        height, width = x.shape[-2:]
        padded = torch.nn.functional.pad(x, [side // 2] * 4)
        y = torch.zeros(len(x), len(weight), height, width, dtype=x.dtype) + bias[:, None, None]
        for dy in range(side):
            for dx in range(side):
                y += torch.einsum("nihw,oi->nohw", padded[:, :, dy : dy + height, dx : dx + width], weight[:, :, dy, dx])
        return y * he

    def leaky(x):
        return torch.where(x > 0, x, x * 0.2)

    def norm(x):
        return x / (x.pow(2).mean(1, keepdim=True) + 1e-8).sqrt()

    x = leaky(scaled("linear", norm(z))).view(len(z), -1, 4, 4)
    if settings.norm_after_linear:
        x = norm(x)
    x = norm(leaky(scaled("first", x)))
    for level in range(len(settings.channels) - 1):
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        x = norm(leaky(scaled(f"levels.{level}.first", x)))
        x = norm(leaky(scaled(f"levels.{level}.second", x)))
    film = scaled("to_gray", x)
    return 2 * film - 1 if settings.output_range == "unit" else film


def folded(state):
    return {name: value * math.sqrt(2 / math.prod(state[name.rsplit(".", 1)[0] + ".weight"].shape[1:])) for name, value in state.items()}


@pytest.mark.parametrize(("norm_after_linear", "output_range"), [(False, "unit"), (True, "signed")], ids=["segal", "karras"])
def test_equals_the_documented_pass(norm_after_linear, output_range):
    settings = PgganSettings(**SMALL, norm_after_linear=norm_after_linear, output_range=output_range)
    net = PgganGenerator(settings).double()
    draw = torch.Generator().manual_seed(0)
    state = {name: torch.randn(value.shape, generator=draw, dtype=torch.float64) for name, value in net.state_dict().items()}
    net.load_state_dict(folded(state))
    z = torch.randn(3, 16, generator=draw, dtype=torch.float64)
    with torch.no_grad():
        got = net(z.unsqueeze(1))
    assert got.shape == (3, 1, 32, 32)
    # pixel norm computes in float32 whatever its input
    torch.testing.assert_close(got, written_out(state, settings, z), rtol=1e-4, atol=1e-4)


def test_variants_differ():
    torch.manual_seed(0)
    nets = [PgganGenerator(PgganSettings(**SMALL, norm_after_linear=flag)) for flag in (False, True)]
    nets[1].load_state_dict(nets[0].state_dict())
    z = torch.randn(1, 1, 16)
    assert (nets[0](z) - nets[1](z)).abs().max() > 1e-3


def test_segals_size():
    with torch.device("meta"):
        net = PgganGenerator(PgganSettings())
    assert net.resolution == 1024
    assert net.code_shape == (1, 512)
    # 23,086,795 in the published RGB model, of which nine colour layers (3 x width + 3) give way to one gray one
    widths = net.settings.channels
    colour = sum(3 * width + 3 for width in widths)
    expected = 23_086_795 - colour + widths[-1] + 1
    assert sum(p.numel() for p in net.parameters()) == expected == 23_079_153


def test_the_length_of_z_has_no_effect():
    torch.manual_seed(0)
    net = PgganGenerator(PgganSettings(**SMALL)).eval()
    z = torch.randn(2, 1, 16)
    torch.testing.assert_close(net(z), net(3.7 * z), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_pixel_norm_at_the_ends_of_half_precision(dtype):
    x = torch.zeros(1, 4, 1, 4, dtype=dtype)
    x[0, :, 0, 1] = torch.tensor([300.0, -300.0, 300.0, -300.0])
    x[0, :, 0, 2] = torch.tensor([60000.0, 0.0, 0.0, 0.0])
    x[0, :, 0, 3] = torch.tensor([1e-3, -1e-3, 1e-3, -1e-3])
    y = pixel_norm(x)
    assert y.dtype == dtype
    assert torch.equal(y[0, :, 0, 0], torch.zeros(4, dtype=dtype))
    torch.testing.assert_close(y[0, :, 0, 1].float(), torch.tensor([1.0, -1.0, 1.0, -1.0]))
    torch.testing.assert_close(y[0, :, 0, 2].float(), torch.tensor([2.0, 0.0, 0.0, 0.0]), rtol=1e-2, atol=0)
    exact = 1e-3 / math.sqrt(1e-6 + 1e-8)
    torch.testing.assert_close(y[0, :, 0, 3].float().abs(), torch.full((4,), exact), rtol=1e-2, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_whole_network_in_half_precision_stays_near(dtype):
    torch.manual_seed(0)
    net = PgganGenerator(PgganSettings(**SMALL)).eval()
    z = torch.randn(2, 1, 16)
    with torch.no_grad():
        exact = net(z)
        half = net.to(dtype)(z)
    assert half.dtype == dtype
    # sixteen roundings, one after the other, of half an epsilon each: root mean square 2 epsilons
    assert (half.float() - exact).std() < 4 * torch.finfo(dtype).eps * exact.std()


def test_films_do_not_mix():
    torch.manual_seed(0)
    net = PgganGenerator(PgganSettings(**SMALL)).eval()
    z = torch.randn(5, 1, 16)
    torch.testing.assert_close(net(z)[3:4], net(z[3:4]), rtol=1e-4, atol=1e-4)


def test_channels_last_gives_the_same_films():
    torch.manual_seed(0)
    net = PgganGenerator(PgganSettings(**SMALL)).eval()
    z = torch.randn(2, 1, 16)
    plain = net(z)
    torch.testing.assert_close(net.to(memory_format=torch.channels_last)(z), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [{"channels": ()}, {"channels": (0,)}, {"code_size": 0}, {"output_range": "both"}, {"leak": 1.0}, {"epsilon": 0.0}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(CodecError, match="pggan"):
        PgganSettings(**wrong)
