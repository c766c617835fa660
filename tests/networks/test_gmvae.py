"""The GM-VAE's networks: published features and numbers of weights, the transition net, labels in the code, both decoders."""

import pytest
import torch
import torch.nn.functional as F
import torchvision

from engine.errors import CodecError
from engine.networks.gmvae import GmVaeEncoder, GmVaeEncoderSettings, GmVaeGenerator, GmVaeGeneratorSettings, TransitionNet
from engine.networks.imagenet_features import ImagenetFeatures
from engine.refine.weight_files import random_weights

PLAIN = {"features": "plain", "normalise": False, "widths": (4, 6), "convolutions": (1, 1)}
DECODER_1, DECODER_2 = (14, 6, 3, 3, 3), (128, 64, 32, 16, 3)


def numbers(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("channels", "weights"), [(DECODER_1, 1_920), (DECODER_2, 172_800)])
def test_decoders_have_the_published_numbers_of_weights(channels, weights):
    """Table 5 counts no biases, though tables 2 and 3 have them."""
    with torch.device("meta"):
        net = GmVaeGenerator(GmVaeGeneratorSettings(channels=channels, code_size=2000))
        assert net(torch.empty(1, 1, 2000)).shape == (1, 1, 224, 224)
    convolutions = [layer for layer in net.layers if isinstance(layer, torch.nn.ConvTranspose2d)]
    assert sum(layer.weight.numel() for layer in convolutions) == weights
    assert [layer.bias.numel() for layer in convolutions] == list(channels[1:])
    assert net.linear.out_features == channels[0] * 14 * 14


def test_features_are_those_of_the_paper():
    with torch.device("meta"):
        vgg, dense = (GmVaeEncoder(GmVaeEncoderSettings(features=name)) for name in ("vgg16", "densenet121"))
        assert vgg(torch.empty(2, 1, 224, 224)).shape == dense(torch.empty(2, 1, 224, 224)).shape == (2, 1, 1000)
    assert numbers(vgg.features) == 14_714_688  # of table 5
    assert numbers(vgg.transition) == 512 * 300 + 300 + 2 * 300
    assert numbers(dense.transition) == 1024 * 300 + 300 + 2 * 300


def test_without_a_transition_net_the_whole_map_is_seen():
    with torch.device("meta"):
        net = GmVaeEncoder(GmVaeEncoderSettings(transition=False))
    assert net.mean.in_features == 512 * 7 * 7


def published(name):
    """torchvision's features with random weights, and these as its file has them."""
    if name == "vgg16":  # whose classifier, which nobody needs, takes long to draw
        with torch.device("meta"):
            theirs = torchvision.models.vgg16().features
        state = random_weights({f"features.{key}": tuple(value.shape) for key, value in theirs.state_dict().items()}, seed=1)
        theirs.load_state_dict({key.removeprefix("features."): value for key, value in state.items()}, assign=True)
    else:
        theirs = torchvision.models.densenet121().features
        for layer in theirs.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(std=0.1)
                layer.running_var.uniform_(0.5, 2)
    return theirs.eval(), {f"features.{key}": value for key, value in theirs.state_dict().items()}


@pytest.mark.parametrize("name", ["vgg16", "densenet121"])
def test_features_equal_torchvisions_on_three_equal_planes(name):
    torch.manual_seed(0)
    theirs, state = published(name)
    ours = ImagenetFeatures(name, normalise=True).eval()
    assert set(ours.published_shapes()) <= set(state)
    ours.load_published(state)
    films = torch.rand(2, 1, 32, 32)
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).reshape(2, 1, 3, 1, 1)
    with torch.no_grad():
        expected = F.relu(theirs((films.repeat(1, 3, 1, 1) - mean) / deviation))
        found = ours(films)
        ours.normalise = False
        otherwise = ours(films)
    assert (found - expected).norm() < 1e-4 * expected.norm()
    assert (otherwise - expected).norm() > 1e-2 * expected.norm()


def test_transition_net_is_a_maximum_over_all_places():
    torch.manual_seed(0)
    net = TransitionNet(5).eval()
    maps = torch.randn(2, 5, 3, 3)
    convolution = net.layers[0]
    by_hand = torch.einsum("oc,ncyx->noyx", convolution.weight[:, :, 0, 0], maps) + convolution.bias[:, None, None]
    by_hand = (by_hand / (1 + 1e-5) ** 0.5).clamp_min(0).amax(dim=(2, 3))
    torch.testing.assert_close(net(maps), by_hand, rtol=1e-5, atol=1e-6)


def test_probabilities_of_labels_follow_the_code():
    torch.manual_seed(0)
    net = GmVaeEncoder(GmVaeEncoderSettings(resolution=16, code_size=5, labels=3, transition=True, **PLAIN)).eval()
    films = torch.rand(2, 1, 16, 16) * 2 - 1
    code = net(films)
    hidden = net.hidden(films)
    assert net.code_shape == (1, 8)
    assert hidden.shape == (2, 300)
    torch.testing.assert_close(code[:, 0, :5], net.mean(hidden))
    torch.testing.assert_close(code[:, 0, 5:], 1 / (1 + torch.exp(-net.labels(hidden))))
    assert GmVaeEncoder(GmVaeEncoderSettings(resolution=16, code_size=5, **PLAIN)).labels is None


def test_generator_takes_the_mean_of_three_channels():
    torch.manual_seed(0)
    net = GmVaeGenerator(GmVaeGeneratorSettings(resolution=8, code_size=4, channels=(5, 4, 3)))
    codes = torch.randn(2, 1, 4)
    x = F.linear(codes[:, 0], net.linear.weight, net.linear.bias).reshape(2, 5, 2, 2)
    for layer in (net.layers[1], net.layers[3]):
        x = F.conv_transpose2d(x.clamp_min(0), layer.weight, layer.bias, stride=2, padding=1)
    torch.testing.assert_close(net(codes), (x[:, :1] + x[:, 1:2] + x[:, 2:]) / 3 * 2 - 1, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"features": "resnet"}, "gmvae.features must be one of plain, vgg16, densenet121: resnet"),
        ({"features": "plain"}, "gmvae.normalise is of use only with features of ImageNet: plain"),
        ({"resolution": 48}, "must be a multiple of 32"),
        ({"labels": -1}, "gmvae.labels must be 0 to 1000: -1"),
        ({"code_size": 0}, "widths must be 1 to 8192: 0"),
    ],
)
def test_senseless_encoders_are_refused(change, says):
    with pytest.raises(CodecError) as caught:
        GmVaeEncoder(GmVaeEncoderSettings(**change))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"channels": (4,)}, "gmvae.channels must be 2 to 9 widths"),
        ({"resolution": 40}, "gmvae.resolution must be a multiple of 16, 4096 at most: 40"),
    ],
)
def test_senseless_generators_are_refused(change, says):
    with pytest.raises(CodecError) as caught:
        GmVaeGeneratorSettings(**change)
    assert says in str(caught.value)
