"""The VAE's networks: the published numbers of weights, shapes, and what a film becomes on its way."""

import pytest
import torch
import torch.nn.functional as F

from engine.errors import CodecError
from engine.networks.vae import VaeEncoder, VaeGenerator, VaeSettings

SMALL = VaeSettings(resolution=16, widths=(4, 6), convolutions=(2, 1), code_size=5)


def numbers(*modules):
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_at_128_pixels_it_has_the_published_numbers_of_weights():
    with torch.device("meta"):
        encoder, generator = VaeEncoder(VaeSettings(resolution=128)), VaeGenerator(VaeSettings(resolution=128))
    assert numbers(encoder.trunk) == 4_711_648
    assert numbers(encoder.mean) == 8_389_632
    assert numbers(generator) == 11_184_033
    assert numbers(encoder.trunk, generator) + 2 * numbers(encoder.mean) == 32_674_945


def test_it_sees_224_pixels():
    with torch.device("meta"):
        encoder, generator = VaeEncoder(VaeSettings()), VaeGenerator(VaeSettings())
        assert encoder(torch.empty(2, 1, 224, 224)).shape == (2, 1, 1024)
        assert generator(torch.empty(2, 1, 1024)).shape == (2, 1, 224, 224)
    assert encoder.trunk.layers[-1](torch.empty(1, 512, 14, 14)).shape == (1, 512, 7, 7)


def test_figure_4_as_drawn_can_be_had():
    with torch.device("meta"):
        drawn = VaeEncoder(VaeSettings(convolutions=(1, 1, 1, 2, 1)))
    assert [layer.out_channels for layer in drawn.trunk.layers if isinstance(layer, torch.nn.Conv2d)] == [32, 64, 128, 256, 256, 512]


def test_encoder_is_convolutions_leaky_relu_and_pooling_of_films_in_0_to_1():
    torch.manual_seed(0)
    net = VaeEncoder(SMALL)
    films = torch.rand(3, 1, 16, 16) * 2 - 1
    first, second, third = (layer for layer in net.trunk.layers if isinstance(layer, torch.nn.Conv2d))
    x = (films + 1) / 2
    for convs in ((first, second), (third,)):
        for conv in convs:
            x = F.conv2d(x, conv.weight, conv.bias, padding=1)
            x = torch.where(x > 0, x, 0.2 * x)
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // 2, 2, w // 2, 2).amax(dim=(3, 5))
    expected = x.reshape(3, -1) @ net.mean.weight.T + net.mean.bias
    torch.testing.assert_close(net(films), expected[:, None], rtol=1e-5, atol=1e-6)


def test_generator_has_norms_but_after_its_last_layer():
    torch.manual_seed(0)
    net = VaeGenerator(SMALL).eval()
    kinds = [type(layer).__name__ for layer in net.layers]
    assert kinds == ["ConvTranspose2d", "BatchNorm2d", "ReLU", "ConvTranspose2d"]
    net.layers[1].running_mean.normal_()
    codes = torch.randn(2, 1, 5)
    up, norm, _, last = net.layers
    x = F.linear(codes[:, 0], net.linear.weight, net.linear.bias).reshape(2, 6, 4, 4)
    x = F.conv_transpose2d(x, up.weight, up.bias, stride=2, padding=1)
    x = (x - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt()
    x = F.conv_transpose2d(x.clamp_min(0), last.weight, last.bias, stride=2, padding=1)
    torch.testing.assert_close(net(codes), 2 * x - 1, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"resolution": 40}, "vae.resolution must be a multiple of 32, 4096 at most: 40"),
        ({"resolution": 0}, "vae.resolution must be a multiple of 32"),
        ({"convolutions": (1, 2)}, "vae.convolutions must be one number, or one for each of 5 stages: (1, 2)"),
        ({"widths": ()}, "vae.widths must be 1 to 8: ()"),
        ({"code_size": 0}, "vae widths must be 1 to 8192: 0"),
        ({"convolutions": (0,)}, "vae.convolutions must be 1 to 8 a stage"),
        ({"leak": 1.0}, "vae.leak must be 0 or more and under 1: 1.0"),
    ],
)
def test_senseless_settings_are_refused(change, says):
    with pytest.raises(CodecError) as caught:
        VaeSettings(**change)
    assert says in str(caught.value)
