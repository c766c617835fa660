"""StyleGAN's networks as they are trained, against their equations written out, against what is exported, and through their file."""

import math

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import CodecError, TrainError
from engine.networks.stylegan import StyleGenerator, StyleSettings
from trainers.nets.mapping_network import MappingNetwork, MappingSettings, ScaledLinear
from trainers.nets.stylegan_file import load_mapping, save_mapping
from trainers.nets.trainable_stylegan import GrowingSynthesis, noise_planes, noise_size

CPU = torch.device("cpu")
WIDTHS = (7, 6, 4, 3)


def mapping(**changes):
    torch.manual_seed(0)
    net = MappingNetwork(MappingSettings(**{"code_size": 6, "layers": 3, **changes}))
    for linear in net.linears:
        torch.nn.init.normal_(linear.bias)
    return net


def synthesis(**changes):
    """A small network whose every weight counts."""
    torch.manual_seed(0)
    net = GrowingSynthesis(StyleSettings(**{"channels": WIDTHS, "code_size": 5, **changes}))
    for name, value in net.named_parameters():
        if name.endswith(("bias", "strength", "constant")):
            torch.nn.init.normal_(value)
    return net


def drawn(net, level, films=3):
    return torch.randn(films, 2 * (level + 1), net.settings.code_size), torch.randn(films, noise_size(level))


def test_mapping_is_that_of_the_paper():
    """Normalised z, then layers of weight * sqrt(2 / fan_in) * multiplier and bias * multiplier, each with leaky ReLU."""
    net = mapping().double()
    z = torch.randn(4, 6, dtype=torch.float64)
    x = z / (z.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
    for linear in net.linears:
        x = x @ (linear.weight * math.sqrt(2 / 6) * 0.01).T + linear.bias * 0.01
        x = torch.where(x > 0, x, 0.2 * x)
    torch.testing.assert_close(net(z), x, rtol=1e-5, atol=1e-6)  # z is normalised in float32


def test_mapping_ignores_the_length_of_z_and_autocast():
    net = mapping()
    z = torch.randn(4, 6)
    torch.testing.assert_close(net(z), net(5 * z))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(net(z), net(z).float())
        torch.testing.assert_close(net(z), net(z * 1.0))
    assert net(z).dtype == torch.float32


def test_a_multiplier_slows_a_layer_and_changes_nothing_else():
    torch.manual_seed(1)
    slow = ScaledLinear(400, 300, multiplier=0.01).double()
    torch.manual_seed(1)
    plain = ScaledLinear(400, 300).double()
    x = torch.randn(8, 400, dtype=torch.float64)
    torch.testing.assert_close(slow(x), plain(x), rtol=1e-5, atol=1e-6)
    assert float(plain(x).std().detach()) == pytest.approx(math.sqrt(2), rel=0.05)
    moved = []
    for layer in (slow, plain):
        before = layer.scaled()[0].detach()
        optimiser = torch.optim.Adam(layer.parameters(), lr=1e-3, betas=(0.0, 0.99), eps=1e-12)
        layer(x).square().mean().backward()
        optimiser.step()
        moved.append((layer.scaled()[0] - before).abs().mean().item())
    assert moved[0] == pytest.approx(0.01 * moved[1], rel=1e-3)


def test_the_mean_w_and_truncation():
    net = mapping()
    z = torch.randn(3000, 6)
    assert not net.mean.any()
    mean = net.find_mean(z)
    torch.testing.assert_close(mean, net(z).detach().mean(dim=0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(net.truncated(z[:2], 0.7), mean + 0.7 * (net(z[:2]) - mean))
    torch.testing.assert_close(net.truncated(z[:2], 0.0), mean.expand(2, 6))


def test_noise_is_divided_into_planes():
    assert [noise_size(level) for level in range(3)] == [32, 160, 672]
    noise = torch.arange(2 * 160.0).reshape(2, 160)
    planes = noise_planes(noise, 1)
    assert [plane.shape for plane in planes] == [(2, 1, 4, 4)] * 2 + [(2, 1, 8, 8)] * 2
    assert torch.equal(torch.cat([plane.flatten(1) for plane in planes], dim=1), noise)


@pytest.mark.parametrize("level", [0, 1, 3])
@pytest.mark.parametrize("blur", [True, False])
def test_what_is_exported_makes_the_trained_films(level, blur):
    """The engine's network, which is tested against the paper, has weights without scales, and upsamples before it convolves."""
    net = synthesis(blur=blur)
    codes, noise = drawn(net, level, films=1)
    settings, weights = net.plain(level, noise)
    exported = StyleGenerator(StyleSettings(**{**vars(settings), "space": "w+"}))
    exported.load_state_dict(weights)
    with torch.no_grad():
        film = net(codes, noise, level)
        torch.testing.assert_close(exported(codes), film, rtol=1e-4, atol=1e-4)
    assert film.shape == (1, 1, 4 << level, 4 << level)
    he = math.sqrt(2 / (9 * WIDTHS[0]))
    torch.testing.assert_close(weights["layers.1.conv.weight"], net.layers[1].weight.detach() * he)
    torch.testing.assert_close(weights["layers.1.style.weight"], net.layers[1].style.weight.detach() / math.sqrt(5))
    torch.testing.assert_close(weights["to_gray.weight"].flatten(), net.to_gray[level].weight.detach()[0] / math.sqrt(WIDTHS[level]))


def test_fade_goes_from_the_level_below_to_the_level():
    net = synthesis()
    codes, noise = drawn(net, 2)
    below = net(codes[:, :4], noise[:, : noise_size(1)], 1)
    torch.testing.assert_close(net(codes, noise, 2, 1.0), below.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(net(codes, noise, 2, 0.0), net(codes, noise, 2))
    torch.testing.assert_close(net(codes, noise, 2, 0.3), 0.3 * net(codes, noise, 2, 1.0) + 0.7 * net(codes, noise, 2))


def test_levels_that_are_not_there_get_no_gradient():
    net = synthesis()
    net(*drawn(net, 1), 1).square().mean().backward()
    moved = {name for name, value in net.named_parameters() if value.grad is not None and value.grad.abs().max() > 0}
    assert {name.split(".")[1] for name in moved if name.startswith("layers")} == {"0", "1", "2", "3"}
    assert {name for name in moved if name.startswith("to_gray")} == {"to_gray.1.weight", "to_gray.1.bias"}


def test_half_precision_stays_near():
    net = synthesis(channels=(16, 16, 8))
    codes, noise = drawn(net, 2)
    with torch.no_grad():
        whole = net(codes, noise, 2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = net(codes, noise, 2)
    assert half.dtype == torch.float32
    assert (half - whole).std() < 0.03 * whole.std()


def test_a_mapping_comes_back_from_its_file(tmp_path):
    net = mapping(multiplier=0.02)
    z = torch.randn(100, 6)
    net.find_mean(z)
    for name in ("one", "two"):
        save_mapping(tmp_path / name, net)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    again = load_mapping(tmp_path / "one", device=CPU)
    assert again.settings == net.settings
    assert torch.equal(again.mean, net.mean)
    assert torch.equal(again(z), net(z))
    assert not any(value.requires_grad for value in again.parameters())


@pytest.mark.parametrize("header", ["{", "7", "{}", '{"format": "latentray-mapping-1"}'])
def test_a_damaged_header_is_one_line(header, tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "m", metadata={"latentray": header})
    with pytest.raises(TrainError, match=r"^(mapping network cannot be read .*|.*holds no mapping network of this trainer): .*m$"):
        load_mapping(tmp_path / "m", device=CPU)


def test_other_files_are_no_mappings(tmp_path):
    (tmp_path / "torn").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    for name in ("torn", "missing"):
        with pytest.raises(TrainError, match=rf"mapping network cannot be read .*: .*{name}"):
            load_mapping(tmp_path / name, device=CPU)
    with pytest.raises(TrainError, match=r"mapping network cannot be written .*: .*nowhere"):
        save_mapping(tmp_path / "nowhere" / "m", mapping())


@pytest.mark.parametrize(
    "wrong", [{"code_size": 0}, {"layers": 0}, {"multiplier": 0.0}, {"leak": 1.0}], ids=lambda wrong: next(iter(wrong))
)
def test_senseless_mappings_are_refused(wrong):
    with pytest.raises(CodecError, match="mapping"):
        MappingSettings(**wrong)
