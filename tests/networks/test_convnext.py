"""The ConvNeXt encoder is torchvision's own network, names, weights and codes alike."""

import pytest
import torch
from torchvision.models import convnext_small
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from engine.errors import CodecError
from engine.networks.convnext import ConvNextEncoder, ConvNextSettings, sum_input_planes

TINY = {"depths": (1, 2), "widths": (8, 16), "code_size": 12}


def tiny_pair():
    """A trained-looking torchvision network on RGB and ours with its weights."""
    torch.manual_seed(0)
    theirs = ConvNeXt(
        [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 2)], stochastic_depth_prob=0.4, num_classes=12, layer_scale=0.5
    ).eval()
    ours = ConvNextEncoder(ConvNextSettings(**TINY, in_channels=3)).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def test_equals_torchvision_on_a_gray_film_in_unit_range():
    theirs, ours = tiny_pair()
    film = torch.rand(3, 1, 64, 64)
    expected = theirs(film.repeat(1, 3, 1, 1))
    torch.testing.assert_close(ours(film * 2 - 1), expected.unsqueeze(1), rtol=1e-5, atol=1e-5)


def test_one_input_plane_gives_the_same_codes():
    theirs, three = tiny_pair()
    one = ConvNextEncoder(ConvNextSettings(**TINY, in_channels=1)).eval()
    one.load_state_dict(sum_input_planes(theirs.state_dict()))
    film = torch.rand(2, 1, 64, 64) * 2 - 1
    assert three(film).abs().max() > 0.1
    torch.testing.assert_close(one(film), three(film), rtol=1e-5, atol=1e-5)


def test_webers_network_has_torchvisions_names_and_size():
    with torch.device("meta"):
        theirs = convnext_small(num_classes=512).state_dict()
        ours = ConvNextEncoder(ConvNextSettings(in_channels=3))
        gray = ConvNextEncoder(ConvNextSettings())
    assert {name: value.shape for name, value in ours.state_dict().items()} == {name: value.shape for name, value in theirs.items()}
    assert len(theirs) == 344
    assert sum(p.numel() for p in ours.parameters()) == sum(value.numel() for value in theirs.values()) == 49_848_416
    assert gray.state_dict()["features.0.0.weight"].shape == (96, 1, 4, 4)
    assert ours.code_shape == (1, 512)


def test_films_do_not_mix_and_any_size_will_do():
    _, ours = tiny_pair()
    films = torch.rand(4, 1, 96, 96)
    torch.testing.assert_close(ours(films)[2:3], ours(films[2:3]), rtol=1e-4, atol=1e-5)


def test_a_pooling_encoder_sees_the_mean_of_each_square():
    _, whole = tiny_pair()
    pooling = ConvNextEncoder(ConvNextSettings(**TINY, in_channels=3, pool=4)).eval()
    pooling.load_state_dict(whole.state_dict())
    films = torch.rand(2, 1, 256, 256) * 2 - 1
    small = films.reshape(2, 1, 64, 4, 64, 4).mean((3, 5))
    torch.testing.assert_close(pooling(films), whole(small), rtol=1e-5, atol=1e-5)
    with pytest.raises(CodecError, match=r"squares of 4 pixels.*: 258"):
        pooling(torch.zeros(1, 1, 258, 258))


@pytest.mark.parametrize(
    "wrong",
    [{"depths": (3, 3)}, {"depths": (1,), "widths": (8,)}, {"code_size": 0}, {"in_channels": 2}, {"stochastic_depth": 1.0}, {"pool": 0}],
    ids=["lengths", "one block", "code_size", "in_channels", "stochastic_depth", "pool"],
)
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(CodecError, match="convnext"):
        ConvNextSettings(**wrong)
