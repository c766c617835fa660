"""StyleGAN's synthesis network against its forward pass written out once more from the paper, and what codecs ask of it."""

import math

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from engine.errors import CodecError
from engine.networks.stylegan import StyleGenerator, StyleSettings, blurred, styled

SMALL = {"channels": (8, 6, 4), "code_size": 5}


def network(**changes):
    """A small network whose every weight counts."""
    torch.manual_seed(0)
    net = StyleGenerator(StyleSettings(**{**SMALL, **changes})).eval()
    for name, value in net.named_parameters():
        if name.endswith(("bias", "strength", "constant")):
            torch.nn.init.normal_(value)
    return net


def written_out(state, w, *, blur):
    """Karras et al. 2019, figure 1b, on arrays: w [N, layers, C] float64 -> the activations after each style layer, and the film."""

    def convolved(x, weight):
        height, width = x.shape[-2:]
        side = weight.shape[-1]
        padded = torch.zeros(len(x), x.shape[1], height + side - 1, width + side - 1, dtype=x.dtype)
        padded[:, :, side // 2 : side // 2 + height, side // 2 : side // 2 + width] = x
        shifts = [(dy, dx) for dy in range(side) for dx in range(side)]
        parts = [torch.einsum("nihw,oi->nohw", padded[:, :, y : y + height, x : x + width], weight[:, :, y, x]) for y, x in shifts]
        return sum(parts)

    def filtered(x):
        kernel = torch.tensor([[1, 2, 1], [2, 4, 2], [1, 2, 1]], dtype=x.dtype) / 16
        return torch.stack([convolved(plane[:, None], kernel[None, None])[:, 0] for plane in x.unbind(1)], dim=1)

    def adain(x, scale, shift):
        y = torch.empty_like(x)
        for n in range(x.shape[0]):
            for c in range(x.shape[1]):
                mean = x[n, c].sum() / x[n, c].numel()
                variance = ((x[n, c] - mean) ** 2).sum() / x[n, c].numel()
                y[n, c] = (x[n, c] - mean) / math.sqrt(variance + 1e-8) * (1 + scale[n, c]) + shift[n, c]
        return y

    x, seen = state["constant"].repeat(len(w), 1, 1, 1), []
    for at in range(w.shape[1]):
        part = {name.removeprefix(f"layers.{at}."): value for name, value in state.items() if name.startswith(f"layers.{at}.")}
        if at and at % 2 == 0:
            x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        if at:
            x = convolved(x, part["conv.weight"])
        if at and at % 2 == 0 and blur:
            x = filtered(x)
        x = x + part["noise"] * part["strength"][:, None, None] + part["bias"][:, None, None]
        x = torch.where(x > 0, x, x * 0.2)
        style = w[:, at] @ part["style.weight"].T + part["style.bias"]
        x = adain(x, *style.split(x.shape[1], dim=1))
        seen.append(x)
    film = convolved(x, state["to_gray.weight"]) + state["to_gray.bias"][:, None, None]
    return seen, film


@pytest.mark.parametrize("blur", [True, False])
def test_equals_the_pass_of_the_paper(blur):
    net = network(space="w+", blur=blur).double()
    w = torch.randn(2, 6, 5, dtype=torch.float64)
    with torch.no_grad():
        features, film = written_out(net.state_dict(), w, blur=blur)
        torch.testing.assert_close(net(w), film)
        got = net.features(w)
    assert [x.shape for x in got] == [(2, 8, 4, 4), (2, 8, 4, 4), (2, 6, 8, 8), (2, 6, 8, 8), (2, 4, 16, 16), (2, 4, 16, 16)]
    for ours, expected in zip(got, features, strict=True):
        torch.testing.assert_close(ours, expected)


def test_size_is_the_published_one():
    """26,219,627 in the published RGB model of 1024x1024 ("26.2M", table 1 of the paper), with its mapping network of 8 x 512 x 513."""
    settings = StyleSettings(channels=(512, 512, 512, 512, 256, 128, 64, 32, 16))
    with torch.device("meta"):
        net = StyleGenerator(settings)
    assert (net.resolution, net.code_shape, settings.layers) == (1024, (1, 512), 18)
    colour = sum(3 * width + 3 for width in settings.channels)  # nine colour layers, where this one has one gray layer
    mapping = 8 * 512 * 513
    assert sum(value.numel() for value in net.parameters()) == 26_219_627 - colour - mapping + 16 + 1


def test_a_w_for_all_layers_is_that_of_each():
    net, wide = network(), network(space="w+")
    assert (net.code_shape, wide.code_shape) == ((1, 5), (6, 5))
    wide.load_state_dict(net.state_dict())
    w = torch.randn(3, 1, 5)
    torch.testing.assert_close(net(w), wide(w.repeat(1, 6, 1)))
    other = w.repeat(1, 6, 1)
    other[:, 4] += 1
    before, after = net.features(w), wide.features(other)
    assert [torch.allclose(a, b, atol=1e-4) for a, b in zip(before, after, strict=True)] == [True] * 4 + [False] * 2


def test_blur_is_the_binomial_filter_and_twice_differentiable():
    x = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    x[0, 0, 2, 1] = x[0, 0, 0, 4] = 16
    expected = [[0, 0, 0, 2, 4], [1, 2, 1, 1, 2], [2, 4, 2, 0, 0], [1, 2, 1, 0, 0], [0, 0, 0, 0, 0]]
    torch.testing.assert_close(blurred(x)[0, 0], torch.tensor(expected, dtype=torch.float64))
    assert torch.autograd.gradgradcheck(blurred, (torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True),))


def test_gradients_in_w_equal_finite_differences():
    net = network().double()
    w = torch.randn(2, 1, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, (w,), fast_mode=True)
    assert torch.autograd.gradcheck(lambda w: sum((at + 1) * x.abs().mean() for at, x in enumerate(net.features(w))), (w,), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_styled_holds_at_the_ends_of_half_precision(dtype):
    """A flat channel, one whose squares overflow half precision, and one whose deviation is below its resolution."""
    x = torch.zeros(1, 3, 2, 2, dtype=dtype)
    x[0, 1] = torch.tensor([[400.0, 800.0], [400.0, 800.0]])
    x[0, 2] = torch.tensor([[1e-3, 2e-3], [1e-3, 2e-3]])
    zero, style = torch.zeros(3, dtype=dtype), torch.tensor([[0.0] * 3 + [0.5] * 3], dtype=dtype)
    y = styled(x, torch.zeros(1, 1, 2, 2, dtype=dtype), zero, zero, style, leak=0.2, epsilon=1e-8)
    assert y.dtype == dtype
    assert torch.equal(y[0, 0], torch.full((2, 2), 0.5, dtype=dtype))
    for channel in (1, 2):
        torch.testing.assert_close(y[0, channel].float(), torch.tensor([[-0.5, 1.5], [-0.5, 1.5]]), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_whole_network_in_half_precision_stays_near(dtype):
    net = network()
    w = torch.randn(4, 1, 5)
    with torch.no_grad():
        exact = net(w)
        half = net.to(dtype)(w)
    assert half.dtype == dtype
    # six layers, each with a rounding of its convolution, of its style and of its result
    assert (half.float() - exact).std() < 6 * torch.finfo(dtype).eps * exact.std()


def test_films_do_not_mix_and_memory_may_be_channels_last():
    net = network()
    w = torch.randn(5, 1, 5)
    films = net(w)
    torch.testing.assert_close(films[3:4], net(w[3:4]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net.to(memory_format=torch.channels_last)(w), films, rtol=1e-4, atol=1e-4)


def test_noise_is_among_the_weights_and_has_a_say():
    net = network()
    w = torch.randn(1, 1, 5)
    film = net(w)
    assert torch.equal(film, net(w))
    assert [net.state_dict()[f"layers.{at}.noise"].shape[-1] for at in range(6)] == [4, 4, 8, 8, 16, 16]
    net.layers[3].noise.mul_(-1)
    assert (net(w) - film).abs().max() > 1e-3


def test_can_be_traced():
    net = network(channels=(4, 3)).requires_grad_(False)
    w = torch.randn(2, *net.code_shape)
    exported = torch.export.export(net, (w,), dynamic_shapes=({0: torch.export.Dim("films", min=2)},)).module()
    more = torch.randn(3, *net.code_shape)
    torch.testing.assert_close(exported(more), net(more))
    traced = make_fx(net)(w)
    torch.testing.assert_close(traced(w), net(w))


@pytest.mark.parametrize(
    "wrong",
    [{"channels": ()}, {"channels": (0,)}, {"code_size": 0}, {"space": "z"}, {"leak": 1.0}, {"epsilon": 0.0}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(CodecError, match="stylegan"):
        StyleSettings(**wrong)
