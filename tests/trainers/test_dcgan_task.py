"""The deep convolutional GAN and the least-squares GAN as tasks: phases, statistics, what a resume brings back, and their codecs."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from engine.cli import main
from engine.encode.codec import load_codec
from engine.errors import ConfigError
from engine.frechet import INCEPTION_FILE
from engine.recipe import PixelRecipe
from engine.sliced_wasserstein import swd
from tests.trainers.small_films import write_films
from tests.trainers.steps import same_bits
from trainers import randomness
from trainers.catalogue import builder_of, settings_of
from trainers.checkpoint import checkpoints, read_checkpoint
from trainers.loop import Loop
from trainers.presets.dcgan import PRESETS as DCGAN
from trainers.presets.dcgan import DcganConfig
from trainers.presets.loop import LoopConfig
from trainers.presets.lsgan import PRESETS as LSGAN
from trainers.ranks import Ranks
from trainers.schedule import check_shares
from trainers.task import Batch
from trainers.tasks.dcgan import build_dcgan, build_lsgan

CPU = torch.device("cpu")
SMALL = DcganConfig(resolution=16, width=4, code_size=6, batch_size=4, lr=1e-3, images=100)
KUMAR = replace(SMALL, head="map", loss="least-squares", generator_steps=3)
AVERAGED = replace(SMALL, ema=0.9, codes="uniform")


class Films:
    """Films of 16x16 as a function of their number."""

    def batch(self, numbers, resolution):
        films = [torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(number)) * 2 - 1 for number in numbers]
        return torch.stack(films).contiguous(memory_format=torch.channels_last)

    def ahead(self, numbers, resolution):
        assert resolution == 16

    def held_out(self, resolution, *, limit=256):
        return self.batch(range(1000, 1012), resolution)


def trained(folder, *stops, cfg=KUMAR, feed=None):
    """A task after a run with a stop, and everything built anew, at each of `stops`."""
    for sitting, images in enumerate(stops):
        task = build_lsgan(cfg, device=CPU, seed=1)
        loop = Loop(task, feed or Films(), LoopConfig(images=images, seed=3), Ranks(device=CPU), folder, settings={})
        if sitting:
            loop.resume()
        loop.run()
    return task


def tensors(task):
    """Every tensor of a task's state by name, buffers and moments too."""
    found = {}
    for name, part in task.state().items():
        state = part.state_dict()
        moments = {f"{key}/{moment}": value for key, each in state.get("state", {}).items() for moment, value in each.items()}
        found |= {f"{name}/{key}": value.clone() for key, value in {**moments, **state}.items() if isinstance(value, torch.Tensor)}
    return found


def batch_of(task, *, purpose="p"):
    numbers = range(task.batch_size)
    return Batch(numbers=numbers, films=Films().batch(numbers, 16), seed=3, purpose=purpose, device=CPU)


def test_kumar_2024_is_what_was_published():
    cfg = LSGAN["kumar2024"]()
    task = build_lsgan(cfg, device=torch.device("cpu"), seed=0)
    assert task.summary()["parameters"] == {"generator": 3_606_976, "discriminator": 2_795_904}
    assert (cfg.lr, cfg.betas, cfg.batch_size, cfg.code_size, cfg.generator_steps, cfg.leak) == (2e-4, (0.5, 0.999), 64, 100, 3, 0.2)
    assert (cfg.loss, cfg.head, cfg.ema, cfg.images) == ("least-squares", "map", 0, 5 * 112_120)
    assert task.recipe == PixelRecipe(resolution=128, square="crop", equalise="histogram")
    assert [(phase.name, phase.repeats) for phase in task.phases()] == [("discriminator", 1), ("generator", 3)]
    assert [phase.optimiser.param_groups[0]["betas"] for phase in task.phases()] == [(0.5, 0.999)] * 2


def test_radford_2016_is_what_was_published():
    cfg = DCGAN["radford2016"]()
    assert (cfg.resolution, cfg.channels, cfg.kernel, cfg.codes, cfg.code_size) == (64, (1024, 512, 256, 128), 5, "uniform", 100)
    assert (cfg.lr, cfg.betas, cfg.batch_size, cfg.generator_steps, cfg.leak) == (2e-4, (0.5, 0.999), 128, 1, 0.2)
    assert (cfg.loss, cfg.head, cfg.ema) == ("cross-entropy", "single", 0)


@pytest.mark.parametrize("task", ["dcgan", "lsgan"])
def test_settings_can_be_replaced_by_name(task):
    cfg = settings_of(task, "cpu-small", {"resolution": 32, "width": 4, "equalise": "histogram", "lr": 1e-3})
    assert cfg.channels == (16, 8, 4)
    built = builder_of(task)(cfg, device=CPU, seed=0)
    assert (built.name, built.resolution, built.recipe.equalise) == (task, 32, "histogram")
    assert json.loads(json.dumps(built.summary()))["gflop_per_image"].keys() == {"32"}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"resolution": 48}, "resolution must be one of 8, 16, 32, 64, 128, 256, 512, 1024, 2048: 48"),
        ({"width": 0}, "width must be 1 or more: 0"),
        ({"batch_size": 1}, "batch_size must be 2 or more: 1"),
        ({"generator_steps": 0}, "generator_steps must be 1 or more: 0"),
        ({"codes": "even"}, "codes must be one of normal, uniform: even"),
        ({"head": "both"}, "head must be one of map, single: both"),
        ({"loss": "hinge"}, "loss must be one of cross-entropy, least-squares: hinge"),
        ({"square": "round"}, "square must be one of pad, crop, stretch: round"),
        ({"equalise": "clahe"}, "equalise must be one of none, histogram: clahe"),
        ({"kernel": 3}, "kernel must be one of 4, 5: 3"),
        ({"lr": 0.0}, "lr must be above 0 and under 1: 0.0"),
        ({"betas": (0.5,)}, r"betas must be two numbers of 0 or more and under 1: \(0.5,\)"),
        ({"ema": 1.0}, "ema and leak must be 0 or more and under 1: 1.0, 0.2"),
    ],
)
def test_senseless_settings_are_refused(change, line):
    with pytest.raises(ConfigError, match=line):
        replace(SMALL, **change)


def test_missing_inception_weights_are_named_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(ConfigError, match=f"--set inception=FILE: {INCEPTION_FILE}"):
        build_dcgan(replace(SMALL, inception=str(tmp_path)), device=CPU, seed=0)


def test_weights_depend_on_the_seed_alone():
    before = torch.random.get_rng_state()
    one = tensors(build_dcgan(SMALL, device=CPU, seed=1))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert same_bits(one, tensors(build_dcgan(SMALL, device=CPU, seed=1)))
    other = tensors(build_dcgan(SMALL, device=CPU, seed=2))
    assert not torch.equal(one["generator/first.weight"], other["generator/first.weight"])


@pytest.mark.parametrize("cfg", [KUMAR, AVERAGED], ids=["kumar", "averaged"])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, cfg):
    whole, resumed = tensors(trained(tmp_path / "whole", 24, cfg=cfg)), tensors(trained(tmp_path / "parts", 8, 16, 24, cfg=cfg))
    assert same_bits(whole, resumed)
    # a step of Kumar's: films once for the discriminator, and three times for the generator
    assert whole["generator/norms.0.num_batches_tracked"] == 6 * (1 + cfg.generator_steps)
    assert whole["discriminator/norms.0.num_batches_tracked"] == 6 * (2 + cfg.generator_steps)
    fresh = tensors(build_lsgan(cfg, device=CPU, seed=1))
    assert not torch.equal(whole["generator/norms.0.running_var"], fresh["generator/norms.0.running_var"])


@pytest.mark.parametrize("task", ["dcgan", "lsgan"])
def test_stopped_and_resumed_on_the_command_line_equals_one_run(tmp_path, task):
    (tmp_path / "films").mkdir()
    films = write_films(tmp_path / "films", 12)
    small = [word for name in ("resolution=16", "width=4", "batch_size=4") for word in ("--set", name)]
    few = ["--threads", "1", "--sample-images", "24", "--evaluate-images", "24"]
    run = ["train", task, "--preset", "cpu-small", "--data", films, *few, *small]
    threads = torch.get_num_threads()
    try:
        assert main([*run, "--out", str(tmp_path / "whole"), "--images", "24"]) == 0
        assert main([*run, "--out", str(tmp_path / "parts"), "--images", "12"]) == 0
        assert main([*run, "--out", str(tmp_path / "parts"), "--images", "24", "--resume"]) == 0
    finally:
        torch.set_num_threads(threads)
    one, other = (read_checkpoint(checkpoints(tmp_path / out / "checkpoints")[-1]).states for out in ("whole", "parts"))
    for name in ("generator", "discriminator", "average"):
        assert any("running_mean" in key for key in one[name])
        assert same_bits(one[name], other[name]), name
    assert list(load_codec(tmp_path / "whole").spec.files().items()) == list(load_codec(tmp_path / "parts").spec.files().items())
    if task == "dcgan":
        return  # its codec is of the same kind
    archive = ["--archive", str(tmp_path / "codes.zarr"), "--codec", str(tmp_path / "whole"), "--film-size", "16"]
    assert main(["encode", films, *archive, "--refine-steps", "2", "--workers", "0", "--quiet"]) == 0
    assert main(["verify", str(tmp_path / "codes.zarr")]) == 0


def test_a_step_is_one_group_that_is_never_divided():
    task = build_lsgan(KUMAR, device=CPU, seed=1)
    assert task.group == task.part_size == task.batch_size == 4
    with pytest.raises(ConfigError):
        check_shares(task, 100, Ranks(rank=0, size=2, device=CPU))


@pytest.mark.parametrize("build", [build_dcgan, build_lsgan])
@pytest.mark.parametrize("cfg", [SMALL, KUMAR], ids=["cross-entropy", "least-squares"])
def test_losses_are_those_of_the_setting(build, cfg):
    """Real and made films are judged apart, in training mode, from codes that belong to the phase."""
    task, twin = build(cfg, device=CPU, seed=1), build(cfg, device=CPU, seed=1)
    judge, make = task.phases()
    batch = batch_of(task, purpose="discriminator/0")
    codes = randomness.normal(3, "discriminator/0/code", range(4), 1, 6)
    with torch.no_grad():
        on_real, on_fake = twin.discriminator(batch.films), twin.discriminator(twin.generator(codes))
    if cfg.loss == "least-squares":
        expected = ((on_real - 1) ** 2).mean() / 2 + (on_fake**2).mean() / 2
        of_generator = ((on_fake - 1) ** 2).mean() / 2
    else:
        ones = torch.ones_like(on_real)
        expected = F.binary_cross_entropy_with_logits(on_real, ones) + F.binary_cross_entropy_with_logits(on_fake, 0 * ones)
        of_generator = F.binary_cross_entropy_with_logits(on_fake, ones)
    torch.testing.assert_close(judge.loss(batch)["loss"], expected)
    torch.testing.assert_close(make.loss(batch)["loss"], of_generator)


def test_codes_are_uniform_where_asked_for():
    task = build_dcgan(AVERAGED, device=CPU, seed=1)
    batch = batch_of(task)
    expected = task.generator(2 * randomness.uniform(3, "p/code", range(4), 1, 6) - 1)
    with torch.no_grad():
        on_made = task.discriminator(expected)
    torch.testing.assert_close(task.phases()[1].loss(batch)["loss"], F.softplus(-on_made).mean())


def test_a_phase_moves_its_own_network_alone():
    task = build_lsgan(KUMAR, device=CPU, seed=1)
    for phase, moved in zip(task.phases(), ("discriminator", "generator"), strict=True):
        before = tensors(task)
        for network in (task.generator, task.discriminator):
            network.requires_grad_(network in phase.modules)
        phase.optimiser.zero_grad(set_to_none=True)
        phase.loss(batch_of(task))["loss"].backward()
        phase.optimiser.step()
        now = tensors(task)
        changed = {name.partition("/")[0] for name in before if name.endswith("weight") and not torch.equal(now[name], before[name])}
        assert changed == {moved}


def test_films_of_the_average_have_statistics_of_their_own(tmp_path):
    task = trained(tmp_path, 40, cfg=replace(AVERAGED, lr=1e-2))
    average, before = task.average.module, tensors(task)
    finished = task.finished()
    assert torch.equal(finished.first.weight, average.first.weight)
    assert not torch.equal(finished.first.weight, task.generator.first.weight)
    assert not torch.equal(finished.first.weight, build_lsgan(AVERAGED, device=CPU, seed=1).generator.first.weight)
    codes = 2 * randomness.uniform(1, "dcgan/statistics/code", range(16 * 4), 1, 6) - 1
    with torch.no_grad():
        first = torch.stack([finished.first(part[:, 0, :, None, None]).mean(dim=(0, 2, 3)) for part in codes.split(4)]).mean(0)
    torch.testing.assert_close(finished.norms[0].running_mean, first)
    assert not torch.allclose(finished.norms[0].running_mean, average.norms[0].running_mean)
    task.evaluate(Films().held_out)
    assert same_bits(tensors(task), before), "looking at films leaves the state as it was"
    assert task.generator.training


def test_without_an_average_films_are_those_of_the_running_statistics(tmp_path):
    task = trained(tmp_path, 40)
    codes = randomness.normal(1, "dcgan/samples/code", range(16), 1, 6)
    films = task.samples()
    assert films.shape == (16, 1, 16, 16)
    assert torch.equal(films, task.samples())
    with torch.no_grad():
        torch.testing.assert_close(films, task.generator.eval()(codes))


def test_figures_are_sliced_wasserstein_distances(tmp_path):
    task = trained(tmp_path, 8)
    found = task.evaluate(Films().held_out)
    codes = randomness.normal(1, "dcgan/evaluation/code", range(12), 1, 6)
    with torch.no_grad():
        expected = swd(Films().held_out(16), task.generator.eval()(codes))
    assert found == {name: pytest.approx(value, rel=1e-4) for name, value in expected.items()} | {"judged_films": 12}
    assert task.evaluate(None) == {}
    assert task.evaluate(lambda side: Films().held_out(side)[:0]) == {}


@pytest.mark.parametrize("cfg", [KUMAR, AVERAGED], ids=["kumar", "averaged"])
def test_a_codec_without_encoder_comes_out(tmp_path, cfg):
    task = trained(tmp_path, 24, cfg=cfg)
    (tmp_path / "train.json").write_text("{}")  # as the run leaves it
    task.export(tmp_path, {"preset": "tiny"})
    codec = load_codec(tmp_path)
    assert (codec.name, codec.code_shape, codec.code_dims, codec.gauge) == ("lsgan-6-at-16", (1, 6), ("layer", "channel"), "none")
    assert not codec.has_encoder
    assert codec.spec.provenance["weights"] == (f"average, decay {cfg.ema}" if cfg.ema else "as trained")
    assert torch.equal(codec.mean_latents(2), torch.zeros(2, 1, 6))
    codes = torch.randn(3, 1, 6)
    with torch.no_grad():
        torch.testing.assert_close(codec.generate(codes), task.finished()(codes))


def test_it_learns_how_bright_films_are(tmp_path):
    class Bright(Films):
        def batch(self, numbers, resolution):
            return super().batch(numbers, resolution) * 0.1 + 0.6

    cfg = replace(KUMAR, lr=5e-3, batch_size=8, ema=0.9)
    before = (build_lsgan(cfg, device=CPU, seed=1).samples() - 0.6).abs().mean().item()
    after = (trained(tmp_path, 320, cfg=cfg, feed=Bright()).samples() - 0.6).abs().mean().item()
    assert after < 0.2 < before / 2
