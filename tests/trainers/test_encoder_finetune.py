"""Stage 2: an encoder learns films through a frozen generator, by the terms of equation 4."""

import pytest
import torch

from engine.encode.codec import load_codec
from engine.errors import ConfigError
from tests.trainers.steps import CODE_SIZE, make_codec, same_bits, states, train
from trainers.presets.encoder import PRESETS, EncoderBootstrapConfig, EncoderFinetuneConfig
from trainers.tasks.encoder_bootstrap import build_encoder_bootstrap
from trainers.tasks.encoder_finetune import build_encoder_finetune

CPU = torch.device("cpu")
TINY = {"depths": (1, 1), "widths": (8, 16), "stochastic_depth": 0.0, "quick": True, "batch": 8, "lr": 3e-3}


def config(**changes):
    return EncoderFinetuneConfig(**{"images": 64, "warm_up": 16, "horizon": 400, **TINY, **changes})


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    return make_codec(tmp_path_factory.mktemp("codec"))


@pytest.fixture
def films(codec):
    """Films that the generator can make, so that there is something to find."""
    with torch.no_grad():
        made = codec.generate(codec.project(torch.randn(32, 1, CODE_SIZE, generator=torch.Generator().manual_seed(4))))

    def of(numbers, resolution):
        return torch.nn.functional.avg_pool2d(made[[number % 32 for number in numbers]], 64 // resolution)

    return of


def build(codec, seed=1, **changes):
    return build_encoder_finetune(config(**changes), device=CPU, seed=seed, codec=codec)


def test_the_loss_falls_and_the_generator_stays(codec, films):
    task = build(codec)
    before = {name: value.clone() for name, value in codec.generator.state_dict().items()}
    losses = train(task, 400, films=films)
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])
    assert same_bits(before, codec.generator.state_dict())


def test_coarse_films_are_learnt_from_as_well(codec, films):
    task = build(codec, generate_at=32, pool=2)
    assert task.resolution == 32
    losses = train(task, 400, films=films)
    assert sum(losses[-8:]) < 0.9 * sum(losses[:8])


def test_terms_that_look_through_networks_add_up(codec, films):
    weights = {"perceptual_weights": "random", "lpips_net": "alex"}
    batch = {"loss": build(codec, loss="mse=1,lpips=0.8", **weights), "mse": build(codec), "lpips": build(codec, loss="lpips=1", **weights)}
    found = {name: train(task, 8, films=films)[0] for name, task in batch.items()}
    assert found["lpips"] > 0
    assert found["loss"] == pytest.approx(found["mse"] + 0.8 * found["lpips"], rel=1e-4)


def test_figures_and_pictures_are_of_held_out_films(codec, films):
    task = build(codec)
    assert task.evaluate(None) == {}
    assert task.samples().shape == (8, 1, 64, 64)
    figures = task.evaluate(lambda resolution: films(range(6), resolution))
    assert figures.keys() == {"psnr", "ssim", "swd", "swd_random"}
    shown = task.samples()
    assert shown.shape == (12, 1, 64, 64)
    assert torch.equal(shown[::2], films(range(6), 64))
    error = (shown[::2] - shown[1::2]).square().mean(dim=(1, 2, 3)) / 4
    assert float(-10 * error.log10().mean()) == pytest.approx(figures["psnr"], abs=0.05)
    assert task.encoder.training


def test_films_are_judged_and_shown_without_stochastic_depth(codec, films):
    task = build(codec, stochastic_depth=0.5)
    figures = [task.evaluate(lambda resolution: films(range(10), resolution)) for _ in range(2)]
    assert figures[0] == figures[1]
    assert torch.equal(task.samples(), task.samples())
    assert task.encoder.training


def test_a_resumed_run_ends_as_an_uninterrupted_one(codec, films):
    whole, first, second = (
        build(codec, stochastic_depth=0.2),
        build(codec, stochastic_depth=0.2),
        build(codec, seed=2, stochastic_depth=0.2),
    )
    train(whole, 64, films=films)
    train(first, 24, films=films)
    for name, part in second.state().items():
        part.load_state_dict(first.state()[name].state_dict())
    train(second, 64, seen=24, films=films)
    assert same_bits(states(whole), states(second))


def test_it_goes_on_with_the_encoder_of_stage_1(codec, tmp_path):
    stage_1 = EncoderBootstrapConfig(**TINY, images=16, pool=2, storage="float32")
    first = build_encoder_bootstrap(stage_1, device=CPU, seed=1, codec=codec)
    first.export(tmp_path / "one", {})
    task = build(load_codec(tmp_path / "one"))
    assert same_bits(first.encoder.state_dict(), task.encoder.state_dict())
    assert task.encoder.side == 32
    assert not same_bits(first.encoder.state_dict(), build(load_codec(tmp_path / "one"), fresh=True, pool=2).encoder.state_dict())
    task.export(tmp_path / "two", {})
    assert load_codec(tmp_path / "two").spec.encoder.settings["pool"] == 2


def test_presets_are_settings_of_the_paper():
    weber = PRESETS["encoder-finetune"]["weber2022"]()
    assert (weber.lr_at(0), weber.batch, weber.loss) == (1e-5, 40, "mse=1,lpips=0.8,moco=0.1")
    assert not weber.fresh


def test_missing_weights_and_senseless_losses_are_refused(codec, tmp_path):
    with pytest.raises(ConfigError, match="alexnet"):
        build(codec, loss="lpips=1", perceptual_weights=str(tmp_path))
    with pytest.raises(ConfigError, match="unknown term"):
        build(codec, loss="beauty=1")
    with pytest.raises(ConfigError, match="loss must read like"):
        config(loss="mse")
    with pytest.raises(ConfigError, match="lr must be above 0 and under 1: 2"):
        config(lr=2.0)
