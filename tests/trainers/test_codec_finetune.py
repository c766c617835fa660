"""Joint training: from nothing and from a codec, level by level, with and without a critic; what it writes is what it trained."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from engine.encode.codec import load_codec
from engine.errors import CodecError, ConfigError
from engine.networks.frozen_ops import folded_upsampling
from engine.networks.pggan import PgganSettings
from tests.trainers.steps import CODE_SIZE, make_codec, same_bits, states, train
from trainers.nets.discriminator_file import DISCRIMINATOR
from trainers.nets.evaluating import evaluating
from trainers.nets.sided_encoder import without_common_gradient
from trainers.nets.trainable_pggan import TrainablePggan, folded
from trainers.presets.codec import PRESETS, CodecFinetuneConfig, Level
from trainers.task import Batch
from trainers.tasks.codec_finetune import build_codec_finetune

CPU = torch.device("cpu")
GROWS_AT = 48
UNEVEN = 44  # images of a level that grows at the same moment: its last batch is whole
LEVELS = (Level(resolution=32, images=GROWS_AT, batch=8, lr=3e-3), Level(resolution=64, images=64, batch=4, fade=24, part=2))


def config(**changes):
    tiny = {
        "channels": (16, 16, 8, 8, 4),
        "code_size": 12,
        "depths": (1, 1),
        "widths": (8, 16),
        "encoder_side": 32,
        "warm_up": 16,
        "wait": 16,
        "settle": 32,
    }
    return CodecFinetuneConfig(**{"levels": LEVELS, **tiny, **changes})


def build(seed=1, codec=None, discriminator=None, **changes):
    return build_codec_finetune(config(**changes), device=CPU, seed=seed, codec=codec, discriminator=discriminator)


@pytest.fixture(scope="module")
def films():
    """Twenty soft films; their number gives a film at any resolution."""
    coarse = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(2)) * 1.6 - 0.8
    whole = F.interpolate(coarse, size=(64, 64), mode="bilinear")

    def of(numbers, resolution):
        return F.avg_pool2d(whole[[number % 20 for number in numbers]], 64 // resolution)

    return of


def test_from_nothing_the_loss_falls_through_a_change_of_level(films):
    task = build(levels=(replace(LEVELS[0], images=800), replace(LEVELS[1], images=200)), wait=160, settle=800)
    start = [task.level, task.resolution, task.batch_size, task.part_size, task.group]
    assert start == [32, 32, 8, 8, 8]
    losses = train(task, 1000, films=films)
    assert [task.level, task.resolution, task.batch_size, task.part_size, task.group, task.alpha] == [64, 64, 4, 2, 1, None]
    assert sum(losses[92:100]) < 0.5 * sum(losses[:8])
    assert sum(losses[-8:]) < 0.6 * sum(losses[:8])
    figures = task.evaluate(lambda resolution: films(range(10), resolution))
    assert figures.keys() == {"psnr", "ssim", "swd", "swd_random"}
    assert figures["psnr"] > -10 * math.log10(sum(losses[:8]) / 8) + 2


def test_a_film_does_not_jump_where_a_level_begins(films):
    task = build()
    train(task, GROWS_AT, films=films)
    assert (task.level, task.alpha) == (64, 1.0)
    codes = torch.randn(3, 1, 12)
    with torch.no_grad():
        below, above = task.generator(codes, 32), task.generator(codes, 64, torch.tensor(task.alpha))
    assert torch.equal(F.interpolate(below, scale_factor=2.0, mode="nearest"), above)


@pytest.mark.parametrize(
    ("stop", "adversarial", "fade"),
    [(8, 0.0, 24), (24, 0.0, 24), (GROWS_AT, 0.0, 24), (56, 0.0, 24), (100, 0.0, 24), (56, 0.01, 24), (GROWS_AT, 0.01, 0)],
)
def test_a_resumed_run_ends_as_an_uninterrupted_one(films, stop, adversarial, fade):
    options = {"adversarial": adversarial, "group": 4, "critic_every": 1, "levels": (LEVELS[0], replace(LEVELS[1], fade=fade))}
    whole, first, second = build(**options), build(**options), build(**options)
    train(whole, stop, films=films)
    whole.evaluate(lambda resolution: films(range(2), resolution))  # changes nothing of what comes after
    train(whole, 112, seen=stop, films=films)
    train(second, 8, films=films)  # not as it was built
    train(first, stop, films=films)
    for name, part in second.state().items():
        part.load_state_dict(first.state()[name].state_dict())
    train(second, 112, seen=stop, films=films)
    assert same_bits(states(whole), states(second))


def test_a_fresh_encoder_waits_and_then_learns(films):
    task = build()
    before = {name: value.clone() for name, value in task.encoder.state_dict().items() if "classifier" not in name}
    train(task, 16, films=films)
    assert same_bits(before, {name: task.encoder.state_dict()[name] for name in before})
    with torch.no_grad():
        raw = task.encoder.raw(films(range(8), 32))  # those of the first step, to which its last layer was fitted
    torch.testing.assert_close(raw.mean(dim=0), torch.zeros(1, 12), rtol=0, atol=1e-3)
    torch.testing.assert_close(raw.square().mean(), torch.tensor(1.0), rtol=1e-3, atol=0)
    train(task, 32, seen=16, films=films)
    assert not same_bits(before, {name: task.encoder.state_dict()[name] for name in before})


@pytest.mark.parametrize(("images", "below", "fade"), [(GROWS_AT, 32, 24), (UNEVEN, 32, 24), (UNEVEN, 32, 0), (UNEVEN, 16, 0)])
def test_a_level_begins_with_the_films_of_the_one_below(films, tmp_path, images, below, fade):
    task = build(levels=(replace(LEVELS[0], images=images, resolution=below), replace(LEVELS[1], batch=8, fade=fade)))
    train(task, GROWS_AT, films=films)
    assert task.level == 64
    codes, whole = torch.randn(3, 1, 12), torch.tensor(0.0)

    def distance():
        with torch.no_grad():
            enlarged = F.interpolate(task.generator(codes, below), size=(64, 64), mode="bilinear")
            return (task.generator(codes, 64, whole) - enlarged).square().mean()

    before = distance()
    batch = Batch(numbers=range(GROWS_AT, GROWS_AT + 8), films=films(range(8), 64), seed=0, purpose="codec/0", device=CPU)
    task.phases()[0].loss(batch)
    assert distance() < 0.5 * before
    fitted = {name: value.clone() for name, value in states(task).items()}
    task.phases()[0].loss(batch)  # the same fit again, for another part of the step
    task.samples()
    assert same_bits(fitted, states(task))
    task.export(tmp_path, {})
    assert load_codec(tmp_path).recipe.resolution == below
    train(task, GROWS_AT + 8, seen=GROWS_AT, films=films)
    trained = {name: value.clone() for name, value in states(task).items()}
    task.samples()
    assert same_bits(trained, states(task))


def test_a_size_trained_twice_is_not_fitted_anew(films):
    task = build(levels=(*LEVELS, replace(LEVELS[1], fade=0)))
    train(task, 112, films=films)
    trained = {name: value.clone() for name, value in states(task).items()}
    task.samples()
    assert (task.level, task.alpha) == (64, None)
    assert same_bits(trained, states(task))


def test_films_are_judged_and_shown_without_stochastic_depth(films):
    task = build(stochastic_depth=0.5)
    figures = [task.evaluate(lambda resolution: films(range(10), resolution)) for _ in range(2)]
    assert figures[0] == figures[1]
    assert torch.equal(task.samples(), task.samples())
    assert task.encoder.training
    with pytest.raises(ConfigError), evaluating(task.encoder):
        config(noise=-1.0)
    assert task.encoder.training


def test_codes_without_a_common_gradient():
    raw = torch.randn(8, 1, 3, requires_grad=True)
    weights = torch.randn(8, 1, 3) + 5
    same = without_common_gradient(raw, 4)
    torch.testing.assert_close(same, raw)
    (same * weights).sum().backward()
    expected = weights.view(2, 4, 1, 3) - weights.view(2, 4, 1, 3).mean(dim=1, keepdim=True)
    torch.testing.assert_close(raw.grad, expected.view(8, 1, 3))


def test_the_training_form_equals_the_stored_generator():
    generator = TrainablePggan(PgganSettings(channels=(12, 8, 6), code_size=5, norm_after_linear=True))
    codes = torch.randn(3, 1, 5)
    for resolution in (4, 8, 16):
        torch.testing.assert_close(generator(codes, resolution), generator.up_to(resolution)(codes), rtol=1e-4, atol=1e-5)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(folded(weight), folded_upsampling(weight))
    assert torch.autograd.gradcheck(folded, weight)


def test_the_codec_it_writes_is_what_it_trained(films, tmp_path):
    task = build(mean_images=40)
    train(task, 112, films=films)
    task.export(tmp_path, {"images": 112})
    codec = load_codec(tmp_path)
    assert (codec.name, codec.recipe.resolution, codec.gauge, codec.loss) == ("convnext-pggan-12-at-64", 64, "sphere", "mse=1")
    assert codec.spec.encoder.settings["pool"] == 2
    assert set(codec.coarse) == {4, 8, 16, 32}
    assert codec.metric is not None
    assert codec.spec.provenance["settings"]["noise"] == 0.15
    pixels = films(range(6), 64)
    task.encoder.eval()
    with torch.no_grad():
        torch.testing.assert_close(codec.encode(pixels), task.encoder(pixels), rtol=0, atol=0.05)  # weights are float16
        error = codec.generate(codec.encode(pixels)) - task._reconstruct(pixels).clamp(-1, 1)
    assert error.square().mean() < 1e-5  # 56 dB
    towards = torch.cosine_similarity(codec.mean_latents(1).flatten(), codec.encode(films(range(20), 64)).mean(dim=0).flatten(), dim=0)
    assert towards > 0.9
    again = build_codec_finetune(config(), device=CPU, seed=3, codec=codec)
    assert again.encoder.side == 32
    again.on_images(112)
    assert (again._reconstruct(pixels).clamp(-1, 1) - codec.generate(codec.encode(pixels))).square().mean() < 1e-9


def test_before_its_last_level_is_whole_it_writes_the_one_below(films, tmp_path):
    task = build()
    train(task, GROWS_AT + 8, films=films)
    task.export(tmp_path / "fading", {})
    assert load_codec(tmp_path / "fading").recipe.resolution == 32
    seeing_more = build(encoder_side=64)
    seeing_more.export(tmp_path / "coarse", {})
    assert not load_codec(tmp_path / "coarse").has_encoder


def test_it_starts_from_a_codec_and_its_coarse_levels(films, tmp_path):
    codec = make_codec(tmp_path)
    task = build(codec=codec)
    codes = torch.randn(4, 1, CODE_SIZE)
    with torch.no_grad():
        whole, coarse = codec.generate(codes), task.generator(codes, 32)
        torch.testing.assert_close(task.generator(codes, 64).clamp(-1, 1), whole, rtol=1e-4, atol=1e-5)
    unexplained = 1 - codec.coarse[32].explained
    assert unexplained < 0.2
    assert (coarse - F.avg_pool2d(whole, 2)).square().mean() < 2 * unexplained * whole.var()
    assert task.recipe == codec.recipe
    task.on_images(GROWS_AT)
    assert (task.level, task.alpha) == (64, None)  # nothing to fade in
    losses = train(task, 112, films=films)
    assert sum(losses[-4:]) < sum(losses[:4])
    task.export(tmp_path / "out", {})
    assert load_codec(tmp_path / "out").spec.provenance["generator"] == codec.spec.provenance


def test_a_critic_pulls_at_the_generator_alone(films, tmp_path):
    task = build(adversarial=0.1, group=4)
    assert [phase.name for phase in task.phases()] == ["critic", "codec"]
    batch = Batch(numbers=range(4), films=films(range(4), 32), seed=0, purpose="codec/0", device=CPU)
    found = task.phases()[1].loss(batch)
    torch.testing.assert_close(found["loss"], found["mse"] + 0.1 * found["adversarial"])
    train(task, 112, films=films)
    assert task.summary()["parameters"].keys() == {"encoder", "generator", "critic"}
    task.export(tmp_path, {})
    again = build(adversarial=0.1, group=4, codec=load_codec(tmp_path), discriminator=str(tmp_path / DISCRIMINATOR))
    assert same_bits(again.critic.state_dict(), task.critic.state_dict())


def test_the_schedule_is_a_function_of_images():
    cfg = config()
    assert cfg.images == 112
    first, rising, last = cfg.moment(0), cfg.moment(GROWS_AT + 3), cfg.moment(10_000)
    assert (first.at, rising.at, rising.seen, last.at) == (0, 1, 3, 1)
    assert first.lr == pytest.approx(3e-3 / 16)
    assert rising.lr == pytest.approx(1e-3 * 4 / 16, rel=0.02)
    assert last.lr == pytest.approx(1e-3 * 0.05)
    uneven = config(levels=(replace(LEVELS[0], images=UNEVEN), replace(LEVELS[1], images=62)))
    assert (uneven.images, uneven.moment(UNEVEN).at, uneven.moment(GROWS_AT).at, uneven.moment(GROWS_AT).seen) == (112, 0, 1, 0)
    demo, films = PRESETS["demo"](), PRESETS["films"]()
    assert (demo.images, films.images) == (37_600, 22_000)
    assert replace(films, levels=demo.levels, images=demo.images) == demo  # of the same networks, so that one begins where the other ended
    assert demo.levels[-1].resolution == films.levels[-1].resolution == 4 * 2 ** (len(demo.channels) - 1) == 1024


def test_a_schedule_is_cut_to_a_codec_and_ends_with_it(tmp_path):
    higher = Level(resolution=128, images=16, batch=4, fade=8)
    longer = config(levels=(*LEVELS, higher))
    assert longer.images == 128
    assert longer.cut_to(64) == longer.cut_to(64).cut_to(64) == config()
    assert longer.cut_to(32).images == GROWS_AT
    assert replace(longer, images=40).cut_to(64) == replace(config(), images=40)
    assert longer.cut_to(256) == longer
    alone = config(levels=(higher,)).cut_to(64)
    assert (alone.levels, alone.images) == ((replace(higher, resolution=64),), 16)
    assert build(codec=make_codec(tmp_path), levels=(*LEVELS, higher)).cfg == config()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"levels": ()}, "needs a level or more: 0"),
        ({"levels": LEVELS[::-1]}, "from coarse to fine: 64, 32"),
        ({"levels": LEVELS[:1]}, "the last level must be the 64 pixels of the generator's films: 32"),
        ({"levels": (replace(LEVELS[0], resolution=16), LEVELS[1])}, "level.fade must be 0 but .*: 64 after 16"),
        ({"levels": (*LEVELS, LEVELS[1])}, "level.fade must be 0 but .*: 64 after 64"),
        ({"noise": -1.0}, "noise must be 0 or more: -1.0"),
        ({"storage": "int8"}, "storage must be one of float16, float32: int8"),
        ({"encoder_side": 48}, "encoder_side must divide the 64 pixels of a film's side: 48"),
        ({"encoder_side": 16}, "must see films of 32 pixels or more a side: 16"),
        ({"betas": (0.9, 1.0)}, "betas must be"),
        ({"group": 3}, "whole groups of 3: 8"),
        ({"loss": "mse"}, "loss must read like"),
        ({"encoder_rate": 0.0}, "encoder_rate must be above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, line):
    with pytest.raises(ConfigError, match=line):
        build(**changes)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"resolution": 48}, "power of two from 4 up: 48"),
        ({"fade": 9}, "0 to the level's 8 images: 9"),
        ({"lr": 0.0}, "above 0 and under 1"),
    ],
)
def test_levels_that_make_no_sense_are_refused(changes, line):
    with pytest.raises(ConfigError, match=line):
        Level(**{"resolution": 32, "images": 8, "batch": 4, **changes})


def test_files_that_do_not_fit_are_refused(small_codec, tmp_path):
    with pytest.raises(CodecError, match="must be a pggan"):
        build(codec=load_codec(small_codec))
    with pytest.raises(ConfigError, match="only with adversarial above 0: 0"):
        build(discriminator=str(tmp_path / DISCRIMINATOR))
