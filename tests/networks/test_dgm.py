"""DGM's networks: tables 1 and 2 of the paper, the forward passes written out once more, and the head's file."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from engine.errors import CodecError
from engine.networks.dgm import DgmEncoder, DgmGenerator, DgmSettings
from engine.networks.dgm_head import DgmHead, DgmHeadSettings, head_to_file, load_head
from engine.networks.registry import build_network
from engine.networks.upsampled_conv import UpsampledConv

SMALL = {"resolution": 16, "widths": (4, 6), "blocks": 2, "mlp_width": 8}


def filled(network, seed=0):
    """The network in float64 with every weight drawn anew, so that biases and norms count."""
    draw = torch.Generator().manual_seed(seed)
    network = network.double()
    network.load_state_dict({name: torch.randn(value.shape, generator=draw).double() * 0.3 for name, value in network.state_dict().items()})
    return network


def conv(state, name, x, **how):
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **how)


def standardised(x, dims):
    return (x - x.mean(dims, keepdim=True)) / (x.var(dims, unbiased=False, keepdim=True) + 1e-5).sqrt()


def layer(state, name, x):
    return standardised(x, (1, 2, 3)) * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]


def levels(state, name, x, count):
    """Upsampling, 5x5, layer norm, ReLU; then 7x7 and tanh."""
    for place in range(count):
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        last = place == count - 1
        x = conv(state, f"{name}.{3 * place}", x, padding=3 if last else 2)
        x = x.tanh() if last else layer(state, f"{name}.{3 * place + 1}", x).relu()
    return x


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_upsampling_folded_into_a_convolution_changes_nothing(kernel_size):
    torch.manual_seed(1)
    folded, x = UpsampledConv(3, 4, kernel_size).double(), torch.randn(2, 3, 5, 6, dtype=torch.float64)
    plain = F.conv2d(F.interpolate(x, scale_factor=2.0), folded.weight, folded.bias, padding=kernel_size // 2)
    torch.testing.assert_close(folded(x), plain, rtol=1e-10, atol=1e-10)
    (gradient,) = torch.autograd.grad(folded(x).square().sum(), folded.weight)
    (expected,) = torch.autograd.grad(plain.square().sum(), folded.weight)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-10)
    assert set(folded.state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize("branch", ["normal", "residue"])
def test_an_encoder_equals_table_1(branch):
    encoder = filled(DgmEncoder(DgmSettings(**SMALL)))
    state, films = encoder.state_dict(), torch.randn(3, 1, 16, 16, dtype=torch.float64)

    def norm(x):
        return standardised(x, (2, 3)) if branch == "normal" else x

    x = norm(conv(state, f"{branch}.0", films, stride=2, padding=3)).relu()
    x = norm(conv(state, f"{branch}.3", x, stride=2, padding=1)).relu()
    for block in (6, 7):
        y = norm(conv(state, f"{branch}.{block}.first", x, padding=1)).relu()
        x = x + norm(conv(state, f"{branch}.{block}.second", y, padding=1))
    part = slice(0, 6) if branch == "normal" else slice(6, 12)
    torch.testing.assert_close(encoder(films)[:, part], x, rtol=1e-8, atol=1e-8)


def test_decoders_equal_table_2():
    generator = filled(DgmGenerator(DgmSettings(**SMALL)))
    state, codes = generator.state_dict(), torch.randn(3, 12, 4, 4, dtype=torch.float64)
    found = []
    for branch, part in (("normal", codes[:, :6]), ("residue", codes[:, 6:])):
        x = part
        for block in range(2):
            name = f"{branch}.blocks.{block}"
            y = layer(state, f"{name}.norms.0", conv(state, f"{name}.first", x, padding=1)).relu()
            x = x + layer(state, f"{name}.norms.1", conv(state, f"{name}.second", y, padding=1))
        found.append(levels(state, f"{branch}.levels", x, 2))
    normal, residue = generator.decompose(codes)
    torch.testing.assert_close(normal, found[0], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(residue, found[1], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(generator(codes), found[0] + found[1], rtol=1e-8, atol=1e-8)
    assert normal.abs().max() <= 1
    assert residue.abs().max() <= 1


def test_the_joint_decoder_takes_norms_from_c_s():
    generator = filled(DgmGenerator(DgmSettings(**SMALL, reconstruct="joint")))
    state, x = generator.state_dict(), torch.randn(3, 12, 4, 4, dtype=torch.float64)
    codes, y = x, x[:, 6:].mean((2, 3))
    for place in (0, 2, 4):
        y = F.linear(y, state[f"joint.mlp.{place}.weight"], state[f"joint.mlp.{place}.bias"])
        y = y.relu() if place < 4 else y
    norms = iter(y.split(6, dim=1))  # scale, then shift, of each convolution in turn
    for block in range(2):
        around = x if block else conv(state, "joint.blocks.0.around", x)
        for place, name in enumerate(("first", "second")):
            x = standardised(conv(state, f"joint.blocks.{block}.{name}", x.relu() if place else x, padding=1), (2, 3))
            x = x * next(norms)[:, :, None, None] + next(norms)[:, :, None, None]
        x = around + x
    torch.testing.assert_close(generator(codes), levels(state, "joint.levels", x, 2), rtol=1e-8, atol=1e-8)


def test_norms_of_a_new_joint_decoder_do_nothing_more():
    joint = DgmGenerator(DgmSettings(**SMALL, reconstruct="joint")).joint
    norms = joint.mlp(torch.randn(3, 6)).view(3, 2, 2, 2, 6)
    assert torch.equal(norms[:, :, :, 0], torch.ones(3, 2, 2, 6))
    assert not norms[:, :, :, 1].any()


def test_the_paper_s_sizes_are_the_default():
    settings = DgmSettings(reconstruct="joint")
    assert settings.code_shape == (1024, 7, 7)
    with torch.device("meta"):
        encoder, generator = DgmEncoder(settings), DgmGenerator(settings)
    strided = 49 * 64 + 64 + sum(16 * below * width + width for below, width in pairwise((64, 64, 128, 256, 512)))
    blocks = 8 * (9 * 512 * 512 + 512)
    assert counted(encoder) == {"normal": strided + blocks, "residue": strided + blocks}
    rising = sum(25 * below * width + 3 * width for below, width in pairwise((512, 512, 256, 128, 64))) + 49 * 64 + 1
    part = blocks + 8 * 2 * 512 + rising  # a scale and a shift a channel after each convolution but the last
    around, perceptron = 1024 * 512 + 512, (512 * 256 + 256) + (256 * 256 + 256) + (256 + 1) * 8 * 2 * 512
    joint = blocks + 9 * 512 * 512 + around + perceptron + rising
    assert counted(generator) == {"normal": part, "residue": part, "joint": joint}


def test_films_of_224_pixels_have_codes_of_7():
    settings = DgmSettings(widths=(2, 2, 2, 2, 3), blocks=1)
    films = torch.rand(2, 1, 224, 224)
    codes = DgmEncoder(settings)(films)
    assert codes.shape == (2, *settings.code_shape) == (2, 6, 7, 7)
    assert DgmGenerator(settings)(codes).shape == films.shape


def counted(network):
    return {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in network.named_children()}


def test_the_registry_knows_both_roles():
    settings = {"resolution": 16, "widths": [4, 6], "blocks": 1}
    encoder, generator = build_network("encoder", "dgm", settings), build_network("generator", "dgm", settings)
    assert encoder.code_shape == generator.code_shape == (12, 4, 4)
    assert encoder.resolution == generator.resolution == 16
    films = torch.rand(2, 1, 16, 16) * 2 - 1
    assert generator(encoder(films)).shape == films.shape
    assert generator.joint is None
    torch.testing.assert_close(encoder(films[:1]), encoder(films)[:1])  # films do not mix


def test_half_precision_codes_have_the_weights_type():
    settings = DgmSettings(**SMALL)
    encoder, generator = DgmEncoder(settings).bfloat16(), DgmGenerator(settings).bfloat16()
    codes = encoder(torch.rand(2, 1, 16, 16))
    assert codes.dtype == generator(codes.float()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"widths": (4,)}, "dgm needs 2 to 9 widths of 1 to 8192 each"),
        ({"widths": (4, 0)}, "dgm needs 2 to 9 widths of 1 to 8192 each"),
        ({"resolution": 18}, "dgm.resolution must be 8 or more and a multiple of 4: 18"),
        ({"resolution": 4}, "dgm.resolution must be 8 or more and a multiple of 4: 4"),
        ({"blocks": 0}, "dgm.blocks must be 1 to 100: 0"),
        ({"reconstruct": "both"}, "dgm.reconstruct must be one of sum, joint: both"),
    ],
)
def test_senseless_sizes_are_refused(change, line):
    with pytest.raises(CodecError, match=line):
        DgmSettings(**{**SMALL, **change})


def test_a_head_looks_at_c_s_alone():
    torch.manual_seed(2)
    head, codes = DgmHead(DgmHeadSettings(channels=6)), torch.randn(3, 12, 4, 4)
    expected = codes[:, 6:].mean((2, 3)) @ head.linear.weight[0] + head.linear.bias
    torch.testing.assert_close(head(codes), expected)
    torch.testing.assert_close(head.probability(codes), 1 / (1 + (-expected).exp()))


def test_a_head_comes_back_from_its_file(tmp_path):
    head = DgmHead(DgmHeadSettings(channels=6, label="abnormal: opacity?"))
    codes, file = torch.randn(3, 12, 4, 4), tmp_path / "head.safetensors"
    tensors, header = head_to_file(head)
    save_file(tensors, file, metadata=header)
    again = load_head(file, device=torch.device("cpu"))
    assert again.settings == head.settings
    assert torch.equal(again.probability(codes), head.probability(codes))
    save_file(tensors, file)
    with pytest.raises(CodecError, match="safetensors file holds no head of a dgm"):
        load_head(file, device=torch.device("cpu"))
    save_file({"linear.weight": tensors["linear.weight"]}, file, metadata=header)
    with pytest.raises(CodecError, match="head cannot be read"):
        load_head(file, device=torch.device("cpu"))
    with pytest.raises(CodecError, match="head cannot be read"):
        load_head(tmp_path / "none", device=torch.device("cpu"))
