"""The growing networks against the same networks written straight down, and what leaves training against what was trained."""

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.models.plain_pggan import PlainPggan
from engine.errors import CodecError, TrainError
from engine.networks.frozen_ops import folded_upsampling
from engine.networks.pggan import PgganGenerator, PgganSettings
from trainers.nets.discriminator_file import load_discriminator, save_discriminator
from trainers.nets.double_backward import conv, leaky_relu_, without_weight_gradients
from trainers.nets.pggan_cost import step_gflop
from trainers.nets.pggan_discriminator import DiscriminatorSettings, GrowingDiscriminator, spread
from trainers.nets.pggan_generator import GrowingGenerator, folded
from trainers.presets.pggan import PRESETS, PgganConfig
from trainers.tasks.joined_codec import count_parameters

WIDTHS = (12, 10, 8, 6)
MOMENTS = pytest.mark.parametrize(("level", "alpha"), [(0, None), (1, 0.4), (3, None), (3, 0.25)])


def config(**changes):
    return PgganConfig(**{"channels": WIDTHS, "code_size": 16, "fade_images": (0, 1, 1, 1), "stable_images": (1,), "images": 4, **changes})


def networks(cfg):
    """The trainer's networks in float64, with biases that are not zero, so that their scale shows."""
    torch.manual_seed(0)
    settings = PgganSettings(
        channels=cfg.channels, code_size=cfg.code_size, norm_after_linear=cfg.norm_after_linear, output_range=cfg.output_range
    )
    ours = (
        GrowingGenerator(settings).double(),
        GrowingDiscriminator(DiscriminatorSettings(channels=cfg.channels, output_range=cfg.output_range)).double(),
    )
    for network in ours:
        for name, value in network.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(value)
    return ours


def plain(cfg, ours, level, alpha, group=2):
    net = PlainPggan(cfg, level, alpha=alpha, group=group)
    net.generator.double()
    net.discriminator.double()
    net.average.double()
    net.take(*ours)
    return net


@MOMENTS
@pytest.mark.parametrize("variant", [{}, {"norm_after_linear": True, "output_range": "signed"}], ids=["segal", "karras"])
def test_generator_equals_the_plain_one(level, alpha, variant):
    cfg = config(**variant)
    ours = networks(cfg)
    codes = torch.randn(3, 1, 16, dtype=torch.float64)
    got, expected = ours[0](codes, level, alpha), plain(cfg, ours, level, alpha).make(codes.flatten(1))
    assert got.shape == (3, 1, 4 * 2**level, 4 * 2**level)
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-4)  # norms and the film are made in float32


@MOMENTS
@pytest.mark.parametrize("output_range", ["unit", "signed"])
def test_discriminator_equals_the_plain_one(level, alpha, output_range):
    cfg = config(output_range=output_range)
    ours = networks(cfg)
    films = torch.rand(4, 1, 4 * 2**level, 4 * 2**level, dtype=torch.float64) * 2 - 1
    got, expected = ours[1](films, level, alpha, group=2), plain(cfg, ours, level, alpha).judge(films)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_fade_goes_from_the_level_below_to_the_level():
    generator, discriminator = networks(config())
    codes = torch.randn(2, 1, 16, dtype=torch.float64)
    below, above = generator(codes, 2), generator(codes, 3)
    torch.testing.assert_close(generator(codes, 3, 1.0), below.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(generator(codes, 3, 0.0), above)
    films = torch.rand(2, 1, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(discriminator(films, 3, 1.0), discriminator(torch.nn.functional.avg_pool2d(films, 2), 2))
    torch.testing.assert_close(discriminator(films, 3, 0.0), discriminator(films, 3))


def test_spread_is_the_deviation_within_each_group():
    x = torch.zeros(4, 1, 1, 2)
    x[0] += 2.0  # first group: 2 and 0 in both pixels, so a deviation of 1; second group: none
    torch.testing.assert_close(spread(x, 2)[:, 0, 0, 0], torch.tensor([1.0, 1.0, 1e-4, 1e-4]))
    x[3, 0, 0, 1] = 6.0  # a deviation of 3 in one of two pixels
    torch.testing.assert_close(spread(x, 2)[2:], torch.full((2, 1, 1, 2), 1.5), rtol=1e-3, atol=0)


def test_groups_do_not_see_one_another():
    discriminator = networks(config())[1]
    films = torch.rand(8, 1, 16, 16, dtype=torch.float64)
    together = discriminator(films, 2, group=4)
    torch.testing.assert_close(torch.cat([discriminator(part, 2, group=4) for part in films.split(4)]), together)
    assert (discriminator(films, 2, group=8) - together).abs().max() > 1e-6


def test_upsampling_folds_as_the_engine_folds_it():
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(folded(weight), folded_upsampling(weight))
    assert torch.autograd.gradcheck(folded, (weight,))


@pytest.mark.parametrize(("side", "padding"), [(3, 1), (1, 0), (4, 0)])
def test_gradients_of_gradients(side, padding):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, side, side, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)

    def ours(x, weight, bias):
        return leaky_relu_(conv(x, weight, bias, padding=padding), 0.2)

    assert torch.autograd.gradcheck(ours, (x, weight, bias))

    def slope(weight, bias):
        with without_weight_gradients():
            (gradient,) = torch.autograd.grad(ours(x, weight, bias).square().sum(), x, create_graph=True)
        return gradient.square().sum()

    assert torch.autograd.gradcheck(slope, (weight, bias))


def test_what_is_exported_makes_the_trained_films():
    generator, _ = networks(config())
    generator.float()
    codes = torch.randn(3, 1, 16)
    for level in (1, 3):
        settings, weights = generator.plain(level)
        exported = PgganGenerator(settings)
        exported.load_state_dict(weights)
        with torch.no_grad():
            films = generator(codes, level)
            assert (exported(codes) - films).abs().max() < 1e-5 * films.abs().max()


def test_segals_size():
    cfg = PRESETS["segal2021"]()
    with torch.device("meta"):
        generator, discriminator = GrowingGenerator(PgganSettings(channels=cfg.channels)), GrowingDiscriminator(DiscriminatorSettings())
    colour = sum(3 * width + 3 for width in cfg.channels)  # the published model has nine colour layers, this one nine gray ones
    gray = sum(width + 1 for width in cfg.channels)
    found = count_parameters({"generator": generator, "discriminator": discriminator})
    assert found == {"generator": 23_086_795 - colour + gray, "discriminator": 23_082_161}


def test_cost_grows_with_the_level_and_not_with_the_batch():
    settings = PgganSettings(channels=WIDTHS, code_size=16), DiscriminatorSettings(channels=WIDTHS)
    costs = [step_gflop(*settings, level, batch_size=64) for level in range(4)]
    assert costs == sorted(costs)
    assert step_gflop(*settings, 3, batch_size=32) == pytest.approx(costs[3], rel=0.05)  # the folding of weights is shared


def test_a_discriminator_comes_back_from_its_file(tmp_path):
    _, discriminator = networks(config())
    discriminator.float()
    file = tmp_path / "discriminator.safetensors"
    save_discriminator(file, discriminator, 2)
    again = load_discriminator(file, device=torch.device("cpu"))
    assert again.top == 2
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    films = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(again(films, 2), discriminator(films, 2))


def test_equal_discriminators_are_equal_bytes(tmp_path):
    _, discriminator = networks(config())
    for number in range(20):
        save_discriminator(tmp_path / str(number), discriminator, 2)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize("header", ["{", "7", "{}", '{"format": "latentray-discriminator-1"}'])
def test_a_damaged_header_is_one_line(header, tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "d", metadata={"latentray": header})
    with pytest.raises(TrainError, match=r"^(discriminator cannot be read .*|.*holds no discriminator of this trainer): .*d$"):
        load_discriminator(tmp_path / "d", device=torch.device("cpu"))


def test_other_files_are_no_discriminators(tmp_path):
    (tmp_path / "torn").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    save_file({"weight": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(TrainError, match=r"discriminator cannot be read .*: .*torn"):
        load_discriminator(tmp_path / "torn", device=torch.device("cpu"))
    with pytest.raises(TrainError, match=r"discriminator cannot be read .*: .*missing"):
        load_discriminator(tmp_path / "missing", device=torch.device("cpu"))
    with pytest.raises(TrainError, match=r"holds no discriminator of this trainer: .*other"):
        load_discriminator(tmp_path / "other", device=torch.device("cpu"))


@pytest.mark.parametrize(
    "wrong", [{"channels": ()}, {"channels": (0,)}, {"output_range": "both"}, {"leak": 1.0}], ids=lambda wrong: next(iter(wrong))
)
def test_senseless_discriminators_are_refused(wrong):
    with pytest.raises(CodecError, match="discriminator"):
        DiscriminatorSettings(**wrong)
