"""The residue maker: the same maps as the codec it was taken from, fixed weights, and codecs that make none."""

import pytest
import torch

from engine.encode.codec import load_codec
from engine.errors import CodecError
from engine.networks.residue_maker import ResidueMaker, residue_maker_of
from engine.networks.vae import VaeEncoder, VaeSettings
from tests.small_dgm import SETTINGS, write_dgm

FILMS = torch.linspace(-1, 1, 3 * 32 * 32).view(3, 1, 32, 32).sin()


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    return load_codec(write_dgm(tmp_path_factory.mktemp("dgm") / "codec"))


def test_maps_are_those_that_the_codec_decomposes(codec):
    maker = residue_maker_of(codec.encoder.network, codec.generator.network)
    residue = maker(FILMS)
    expected = codec.generator.network.decompose(codec.encode(FILMS))[1]
    torch.testing.assert_close(residue, expected, rtol=1e-5, atol=1e-6)
    assert residue.abs().max() > 1e-3


def test_weights_are_copies_and_take_no_gradient_but_films_do(codec):
    maker = residue_maker_of(codec.encoder.network, codec.generator.network)
    films = FILMS.clone().requires_grad_()
    maker.train()(films).square().sum().backward()
    assert films.grad.abs().max() > 0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in maker.parameters())
    theirs = {parameter.data_ptr() for parameter in (*codec.encoder.parameters(), *codec.generator.parameters())}
    assert theirs.isdisjoint(parameter.data_ptr() for parameter in maker.parameters())


def test_bad_input_gets_one_line(codec):
    with pytest.raises(CodecError, match=r"films \[N, 1, 32, 32\]: \[3, 1, 16, 16\]"):
        ResidueMaker(SETTINGS)(FILMS[..., :16, :16])
    with pytest.raises(CodecError, match=r"of `latentray train dgm`; its networks: VaeEncoder, DgmGenerator"):
        residue_maker_of(VaeEncoder(VaeSettings()), codec.generator.network)
    with pytest.raises(CodecError, match="its networks: NoneType, DgmGenerator"):
        residue_maker_of(None, codec.generator.network)
