"""Stage 1: an encoder learns the codes of generated films, the generator stays."""

import pytest
import torch

from engine.encode.codec import load_codec
from engine.errors import CodecError, ConfigError
from tests.trainers.steps import CODE_SIZE, make_codec, same_bits, states, train
from trainers.presets.encoder import PRESETS, EncoderBootstrapConfig
from trainers.task import Batch
from trainers.tasks.encoder_bootstrap import build_encoder_bootstrap

CPU = torch.device("cpu")
TINY = {"depths": (1, 1), "widths": (8, 16), "stochastic_depth": 0.1, "quick": True, "batch": 8, "lr": 3e-3}


def config(**changes):
    return EncoderBootstrapConfig(**{"images": 64, "warm_up": 16, "horizon": 400, "distance": "sphere", **TINY, **changes})


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    return make_codec(tmp_path_factory.mktemp("codec"))


def build(codec, seed=1, **changes):
    return build_encoder_bootstrap(config(**changes), device=CPU, seed=seed, codec=codec)


def test_the_loss_falls_and_the_generator_stays(codec):
    task = build(codec, horizon=1600, stochastic_depth=0.0)
    before = {name: value.clone() for name, value in codec.generator.state_dict().items()}
    losses = train(task, 1600)
    assert sum(losses[-16:]) < 0.9 * sum(losses[:16])
    assert same_bits(before, codec.generator.state_dict())
    assert task.evaluate(None)["code_distance"] < 1.05  # of unrelated codes: about 1.13


def test_equation_2_is_learnt_as_well(codec):
    losses = train(build(codec, distance="l1"), 400)
    assert sum(losses[-8:]) < 0.97 * sum(losses[:8])


def test_on_the_sphere_the_length_of_a_code_counts_for_nothing(codec):
    task = build(codec, stochastic_depth=0.0)
    batch = Batch(numbers=range(4), films=None, seed=0, purpose="encoder/0", device=CPU)
    loss = task.loss(batch)["loss"]
    with torch.no_grad():
        task.encoder.network.classifier[-1].weight *= 7
        task.encoder.network.classifier[-1].bias *= 7
    torch.testing.assert_close(task.loss(batch)["loss"], loss)


def test_coarse_films_do_where_the_encoder_pools(codec):
    whole, coarse = build(codec, pool=2), build(codec, pool=2, generate_at=32)
    assert coarse.summary()["gflop_per_image"]["generator"] < 0.6 * whole.summary()["gflop_per_image"]["generator"]
    assert coarse.samples().shape == (16, 1, 32, 32)
    codes = whole.codec.project(torch.randn(4, 1, CODE_SIZE))
    with torch.no_grad():
        seen = [task.encoder.seen(task.films_of(codes)) for task in (whole, coarse)]
    assert seen[0].shape == (4, 1, 32, 32)
    assert (seen[0] - seen[1]).square().mean() < 2 * (1 - whole.codec.coarse[32].explained) * seen[0].var()


def test_films_are_judged_and_shown_without_stochastic_depth(codec):
    task = build(codec, stochastic_depth=0.5)
    assert task.evaluate(None) == task.evaluate(None)
    assert torch.equal(task.samples(), task.samples())
    assert task.encoder.training


def test_a_resumed_run_ends_as_an_uninterrupted_one(codec):
    whole, first, second = build(codec), build(codec), build(codec, seed=2)
    train(whole, 64)
    train(first, 24)
    for name, part in second.state().items():
        part.load_state_dict(first.state()[name].state_dict())
    train(second, 64, seen=24)
    assert same_bits(states(whole), states(second))


def test_the_codec_it_writes_has_this_encoder_and_the_generator_as_it_was(codec, tmp_path):
    task = build(codec, pool=2)
    train(task, 16)
    task.export(tmp_path / "out", {"images": 16})
    made = load_codec(tmp_path / "out")
    assert same_bits(made.generator.state_dict(), codec.generator.state_dict())
    assert made.coarse.keys() == codec.coarse.keys()
    torch.testing.assert_close(made.metric, codec.metric)
    torch.testing.assert_close(made.mean_latents(1), codec.mean_latents(1))
    assert made.spec.provenance["images"] == 16
    films = torch.rand(3, 1, 64, 64) * 2 - 1
    task.encoder.eval()
    with torch.no_grad():
        torch.testing.assert_close(made.encode(films), task.encoder(films), rtol=0, atol=0.02)  # weights are float16


def test_presets_are_settings_of_the_paper():
    weber = PRESETS["encoder-bootstrap"]["weber2022"]()
    assert (weber.lr_at(0), weber.lr_at(10**7), weber.batch, weber.images // weber.batch) == (5e-5, 5e-5, 64, 500_000)
    assert (weber.depths, weber.stochastic_depth, weber.distance) == ((3, 3, 27, 3), 0.4, "l1")


def test_what_does_not_fit_the_codec_is_refused(codec):
    with pytest.raises(ConfigError, match=r"generate_at must be .* \(4, 8, 16, 32\): 128"):
        build(codec, generate_at=128)
    with pytest.raises(ConfigError, match="pool must divide the 64 pixels of a film's side: 3"):
        build(codec, pool=3)
    with pytest.raises(ConfigError, match="must see films of 32 pixels or more a side: 16"):
        build(codec, pool=4)
    with pytest.raises(ConfigError, match="distance must be one of l1, sphere, mse: l3"):
        config(distance="l3")
    with pytest.raises(ConfigError, match="horizon must be 0 or more: -1"):
        config(horizon=-1)


def test_another_generator_is_refused(small_codec):
    with pytest.raises(CodecError, match="must be a pggan to train an encoder for it: pca"):
        build(load_codec(small_codec))
