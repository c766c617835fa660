"""The generator with fixed weights makes the films and the gradients of the plain one, whole and at lower levels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.networks.coarse import Head, fit_heads, heads_from_tensors, heads_to_tensors, shrink
from engine.networks.freezing import frozen
from engine.networks.frozen_ops import conv3x3, folded_upsampling, leaky_pixel_norm, turned, upsample_conv3x3
from engine.networks.pca import PcaGenerator, PcaSettings
from engine.networks.pggan import PgganGenerator, PgganSettings
from engine.networks.pixel_norm import pixel_norm


def random_generator(**settings) -> PgganGenerator:
    torch.manual_seed(0)
    generator = PgganGenerator(PgganSettings(channels=(32, 32, 24, 16), code_size=16, **settings)).requires_grad_(False)
    for module in generator.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):  # as wide as they are trained: a norm near zero would blow rounding up
            nn.init.kaiming_normal_(module.weight, a=0.2)
            nn.init.normal_(module.bias)
    return generator


def codes(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 1, 16, generator=torch.Generator().manual_seed(seed))


def gradient(generate, latents: Tensor) -> Tensor:
    latents = latents.detach().requires_grad_()
    films = generate(latents)
    weights = torch.randn(films.shape, generator=torch.Generator().manual_seed(2))
    return torch.autograd.grad((films * weights).sum(), latents)[0]


def relative(rows: Tensor, expected: Tensor) -> float:
    """The largest relative difference of an image, in Euclidean norms."""
    return ((rows - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)).max().item()


@pytest.mark.parametrize("settings", [{}, {"norm_after_linear": True}, {"output_range": "signed"}, {"leak": 0.0}])
def test_films_and_gradients_are_those_of_the_plain_generator(settings):
    plain = random_generator(**settings)
    fast = frozen(plain, dtype=torch.float32)
    assert fast.resolution == plain.resolution == 32
    assert relative(fast(codes(3)), plain(codes(3))) < 1e-5
    assert relative(gradient(fast, codes(3)), gradient(plain, codes(3))) < 1e-5


def test_half_precision_errs_no_more_than_autocast():
    plain = random_generator()
    fast = frozen(plain, dtype=torch.bfloat16)

    def cast(latents: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return plain(latents).float()

    assert fast(codes(3)).dtype == torch.float32
    assert relative(fast(codes(3)), plain(codes(3))) < 1.5 * relative(cast(codes(3)), plain(codes(3)))
    expected = gradient(plain, codes(3))
    assert relative(gradient(fast, codes(3)), expected) < 1.5 * relative(gradient(cast, codes(3)), expected)


def test_the_plain_generator_is_left_as_it_was():
    plain = random_generator()
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    fast = frozen(plain, dtype=torch.float32)
    for buffer in fast.buffers():
        buffer.fill_(torch.nan)
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())


def test_a_network_without_a_frozen_form_has_none():
    assert frozen(PcaGenerator(PcaSettings(components=4, resolution=8)), dtype=torch.float32) is None


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (5, 4)])
def test_folded_upsampling_is_upsampling_and_convolution(height, width):
    draw = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((2, 3, height, width), (5, 3, 3, 3), (5,)))
    expected = F.conv2d(F.interpolate(x, scale_factor=2.0), weight, bias, padding=1)
    torch.testing.assert_close(upsample_conv3x3(x, folded_upsampling(weight), bias), expected)


@pytest.mark.parametrize(
    "layer",
    [
        lambda x: conv3x3(x, WEIGHT, BIAS, turned(WEIGHT)),
        lambda x: conv3x3(x, WEIGHT, None, turned(WEIGHT)),
        lambda x: upsample_conv3x3(x, folded_upsampling(WEIGHT), BIAS),
    ],
)
def test_layers_have_the_gradient_of_their_values(layer):
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(3))
    assert torch.autograd.gradcheck(layer, x)


def test_norm_is_pixel_norm_of_leaky_relu_and_has_its_gradient():
    # its values pass through float32 by design, so its gradient is held against autograd's and not against differences
    x = torch.randn(2, 6, 4, 5, generator=torch.Generator().manual_seed(3)).requires_grad_()
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(4))
    expected = pixel_norm(F.leaky_relu(x, 0.2))
    found = leaky_pixel_norm(x, leak=0.2, epsilon=1e-8)
    assert torch.equal(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, expected)))


WEIGHT = torch.randn(5, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
BIAS = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(6))


def fitted() -> tuple[PgganGenerator, dict[int, Head]]:
    plain = random_generator()
    return plain, fit_heads(plain.coarse_activations, plain, iter([codes(24, seed) for seed in range(3)]))


def test_heads_make_coarse_films():
    plain, heads = fitted()
    assert set(heads) == {4, 8, 16}
    films = plain(codes(5, seed=9))
    for resolution, head in heads.items():
        coarse = frozen(plain, dtype=torch.float32, head=head)(codes(5, seed=9))
        expected = shrink(films, resolution)
        assert coarse.shape == expected.shape == (5, 1, resolution, resolution)
        left = (coarse - expected).square().mean() / (expected - expected.mean()).square().mean()
        assert left < 1.5 * (1 - head.explained) + 0.01  # on codes that it was not fitted on
        # no constant does as well: what the head explains is the film
        assert left < 0.9


def test_head_is_the_least_squares_solution():
    plain, heads = fitted()
    batches = [codes(24, seed) for seed in range(3)]
    activations = dict(plain.coarse_activations(torch.cat(batches)))[8].permute(0, 2, 3, 1).flatten(0, 2).double()
    target = shrink(plain(torch.cat(batches)), 8).flatten().double()
    solution = torch.linalg.lstsq(torch.cat((activations, torch.ones(len(activations), 1)), 1), target[:, None]).solution[:, 0]
    predicted = activations @ heads[8].weight.double().flatten() + heads[8].bias.double()
    expected = activations @ solution[:-1] + solution[-1]
    assert (predicted - expected).abs().max() < 1e-2 * (expected - target).std()
    assert heads[8].explained == pytest.approx(1 - ((expected - target).square().mean() / target.var(correction=0)).item(), abs=1e-4)


def test_level_with_too_few_pixels_gets_no_head():
    plain = random_generator()
    assert set(fit_heads(plain.coarse_activations, plain, iter([codes(1)]))) == {16}


def test_heads_travel_as_tensors():
    _, heads = fitted()
    back = heads_from_tensors(heads_to_tensors(heads))
    assert back.keys() == heads.keys()
    assert all(torch.equal(back[r].weight, head.weight) and torch.equal(back[r].bias, head.bias) for r, head in heads.items())
    assert back[8].explained == pytest.approx(heads[8].explained)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"8.bias": None}, "lacks its tensor: 8.bias"),
        ({"eight.weight": torch.ones(1)}, "of this name: eight.weight"),
        ({"8.colour": torch.ones(1)}, "of this name: 8.colour"),
        ({"8.weight": torch.ones(2, 3, 1, 1)}, r"must be \[1, C, 1, 1\] and its bias \[1\]: 8"),
    ],
)
def test_tensors_that_are_no_heads_are_refused(change, message):
    named = heads_to_tensors({8: Head(resolution=8, weight=torch.ones(1, 3, 1, 1), bias=torch.ones(1), explained=0.5)}) | change
    with pytest.raises(ValueError, match=message):
        heads_from_tensors({name: value for name, value in named.items() if value is not None})


def test_shrink_refuses_a_side_that_does_not_divide():
    with pytest.raises(ValueError, match="side that does not divide it: 5"):
        shrink(torch.zeros(1, 1, 16, 16), 5)
