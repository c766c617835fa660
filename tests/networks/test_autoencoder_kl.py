"""The autoencoder of latent diffusion: sizes, what is refused, and strips that change nothing but the memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from engine.errors import CodecError
from engine.networks.autoencoder_kl import AutoencoderKlEncoder, AutoencoderKlGenerator, AutoencoderKlSettings
from engine.networks.registry import Role, build_network
from engine.networks.strips import convolved, normed
from tests.networks.live_bytes import peak_bytes

TINY: dict[str, Any] = {"resolution": 16, "widths": (8, 16, 8), "num_res_blocks": 1, "groups": 4, "code_channels": 3, "z_channels": 2}


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


def both(**changes: Any) -> tuple[nn.Module, nn.Module]:
    settings = AutoencoderKlSettings(**{**TINY, **changes})
    nets = AutoencoderKlEncoder(settings), AutoencoderKlGenerator(settings)
    for net in nets:
        for name, value in net.named_parameters():
            if "norm" in name:
                nn.init.normal_(value, mean=float(name.endswith("weight")), std=0.3)
    return nets[0].eval(), nets[1].eval()


def test_number_of_values_of_the_published_one() -> None:
    """83,653,863 of latent diffusion's kl-f8 network for RGB; gray planes, and a mean without its variance, need fewer."""
    with torch.device("meta"):
        settings = AutoencoderKlSettings(resolution=256)
        nets = AutoencoderKlEncoder(settings), AutoencoderKlGenerator(settings)
    ours = sum(value.numel() for net in nets for value in net.parameters())
    colours = 2 * 128 * 9 + 2 * (128 * 9 + 1)
    moments = (8 - 4) * (512 * 9 + 1) + 8 * 8 + 8
    assert ours + colours + moments == 83_653_863
    assert nets[0].code_shape == nets[1].code_shape == (4, 32, 32)


@pytest.mark.parametrize(("widths", "side"), [((8,), 16), ((8, 8), 8), ((8, 8, 16), 4)])
def test_shapes(widths: tuple[int, ...], side: int) -> None:
    encoder, generator = both(widths=widths)
    codes = encoder(torch.rand(3, 1, 16, 16))
    assert codes.shape == (3, 3, side, side)
    assert generator(codes).shape == (3, 1, 16, 16)


@torch.no_grad()
def test_codes_are_scaled_and_shifted() -> None:
    encoder, generator = both()
    scaled, back = both(code_scale=0.5, code_shift=0.25)
    scaled.load_state_dict(encoder.state_dict())
    back.load_state_dict(generator.state_dict())
    x = torch.rand(2, 1, 16, 16)
    mean = encoder(x)
    torch.testing.assert_close(scaled(x), (mean - 0.25) * 0.5)
    torch.testing.assert_close(back((mean - 0.25) * 0.5), generator(mean), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 3, 4, 16, 99])
@pytest.mark.parametrize("attention", [(), (0, 2)])
def test_strips_change_nothing(rows: int, attention: tuple[int, ...]) -> None:
    whole, strips = both(attention_levels=attention), both(attention_levels=attention, strip_rows=rows)
    inputs = torch.rand(3, 1, 16, 16) * 2 - 1, torch.randn(3, 3, 4, 4)
    for one, other, x in zip(whole, strips, inputs, strict=True):
        other.load_state_dict(one.state_dict())
        kept, wanted = x.clone(), one.double()(x.double())
        assert wanted.std() > 0.1
        torch.testing.assert_close(other(x), wanted.float(), rtol=0, atol=1e-5)
        assert torch.equal(x, kept)  # what lies outside the network is not written over


@torch.no_grad()
def test_strips_of_films_whose_norms_are_far_from_those_of_their_strips() -> None:
    """A film that is black above and bright below: norms of strips alone would be quite others."""
    (encoder, _), (strips, _) = both(), both(strip_rows=4)
    strips.load_state_dict(encoder.state_dict())
    film = torch.rand(1, 1, 16, 16) * 0.1 - 1
    film[:, :, 8:] += 1.8
    torch.testing.assert_close(strips(film), encoder(film), rtol=0, atol=1e-5)
    apart = torch.cat([encoder(half) for half in film.chunk(2, dim=2)], dim=2)
    assert (apart - encoder(film)).abs().max() > 0.1


@pytest.mark.parametrize(("role", "share"), [("encoder", 0.5), ("generator", 0.6)])
@pytest.mark.parametrize("has_attention", [False, True])
def test_strips_take_half_the_memory_of_one_film_and_no_more_for_several(role: Role, share: float, has_attention: bool) -> None:
    def peak(rows: int, films: int) -> int:
        sizes = {"resolution": 256, "widths": [32, 64, 128], "code_channels": 1, "middle_attention": has_attention, "strip_rows": rows}
        with torch.device("meta"):
            network = build_network(role, "autoencoder_kl", sizes).requires_grad_(False)
        shape = (1, 256, 256) if role == "encoder" else (1, 64, 64)
        return peak_bytes(network, films, *shape)

    one_whole, one, three = peak(0, 1), peak(16, 1), peak(16, 3)
    assert peak(0, 3) > 2.9 * one_whole
    assert one < share * one_whole
    assert three < 1.05 * one


def test_gradients_go_through_whole_films() -> None:
    (_, whole), (_, strips) = both(), both(strip_rows=2)
    strips.load_state_dict(whole.state_dict())
    gradients = []
    for net in (whole, strips.requires_grad_(False)):
        codes = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4).requires_grad_()
        gradients += torch.autograd.grad(net(codes).square().sum(), codes)
    assert gradients[0].abs().max() > 0.1
    assert torch.equal(*gradients)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize("upsample", [False, True])
def test_one_convolution_by_strips(kernel: int, stride: int, upsample: bool) -> None:
    conv = nn.Conv2d(3, 5, kernel, stride=stride).double().requires_grad_(False)
    x = torch.randn(2, 3, 12, 10, dtype=torch.float64)
    before = x.repeat_interleave(2, 2).repeat_interleave(2, 3) if upsample else x
    pads = (0, 0) if kernel == 1 else (1, 1) if stride == 1 else (0, 1)
    wanted = conv(nn.functional.pad(before.tanh(), (*pads, *pads)))
    for rows in (1, 2, 5, 7, 30):
        found = convolved(conv, x, rows, before=torch.tanh, upsample=upsample)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
        onto = torch.ones_like(wanted)
        assert convolved(conv, x, rows, before=torch.tanh, upsample=upsample, onto=onto) is onto
        torch.testing.assert_close(onto, wanted + 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 4, 5, 100])
def test_one_norm_by_strips(rows: int) -> None:
    norm = nn.GroupNorm(2, 6, eps=1e-6).requires_grad_(False)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(3, 6, 9, 7) * torch.linspace(0.1, 5, 9)[:, None] + torch.linspace(-3, 20, 9)[:, None]
    found = normed(norm, x, rows)(x[:, :, 2:6])
    wanted = nn.functional.silu(norm.double()(x.double()))[:, :, 2:6]
    torch.testing.assert_close(found, wanted.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"widths": ()}, "autoencoder_kl.widths needs 1 to 8 levels: 0"),
        ({"widths": (8, 10)}, "autoencoder_kl.widths must be multiples of its 4 groups, up to 8192: [8, 10]"),
        ({"groups": 0}, "autoencoder_kl.groups must be 1 to 1024: 0"),
        ({"resolution": 18}, "autoencoder_kl.resolution must be a multiple of 4, up to 16384: 18"),
        ({"resolution": 0}, "autoencoder_kl.resolution must be a multiple of 4, up to 16384: 0"),
        ({"code_channels": 0}, "autoencoder_kl.code_channels must be 1 to 1024: 0"),
        ({"z_channels": 0}, "autoencoder_kl.z_channels must be 1 to 1024: 0"),
        ({"num_res_blocks": 0}, "autoencoder_kl.num_res_blocks must be 1 to 16: 0"),
        ({"attention_levels": (3,)}, "autoencoder_kl.attention_levels must be 0 to 2: [3]"),
        ({"code_scale": 0.0}, "autoencoder_kl.code_scale must be 1e-6 to 1e6: 0.0"),
        ({"strip_rows": -1}, "autoencoder_kl.strip_rows must be 0 (all rows at once) to 16384: -1"),
    ],
)
def test_senseless_settings(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(CodecError) as caught:
        build_network("encoder", "autoencoder_kl", {**TINY, **changes})
    assert str(caught.value) == says
