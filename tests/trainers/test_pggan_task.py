"""The progressive GAN as a task: its growth, its phases, what a resume brings back, and the codec that comes out."""

import hashlib
import json
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from engine.encode.codec import load_codec
from engine.errors import ConfigError
from engine.frechet import INCEPTION_FILE
from engine.networks.inception import InceptionV3
from engine.refine.weight_files import random_weights
from trainers.catalogue import settings_of
from trainers.loop import Loop
from trainers.nets.discriminator_file import load_discriminator
from trainers.presets.loop import LoopConfig
from trainers.presets.pggan import PRESETS, PgganConfig, Stage
from trainers.ranks import Ranks
from trainers.task import Batch
from trainers.tasks.pggan import build_pggan

CPU = torch.device("cpu")
SMALL = PgganConfig(
    channels=(8, 8, 6),
    code_size=8,
    batch_size=(8, 4, 4),
    group=(2,),
    fade_images=(0, 16, 16),
    stable_images=(16, 16, 100),
    fade_reals=True,
    images=200,
    lr=(1e-3, 2e-3, 3e-3),
)


class Films:
    """Films as a function of their number."""

    def batch(self, numbers, resolution):
        draw = torch.Generator()
        films = [torch.rand(1, 16, 16, generator=draw.manual_seed(number)) * 2 - 1 for number in numbers]
        return F.avg_pool2d(torch.stack(films), 16 // resolution).contiguous(memory_format=torch.channels_last)

    def ahead(self, numbers, resolution):
        assert len(numbers) > 0
        assert resolution in (4, 8, 16)

    def held_out(self, resolution):
        return self.batch(range(1000, 1012), resolution)


def build(cfg=SMALL, *, seed=1):
    return build_pggan(cfg, device=CPU, seed=seed)


def trained(folder, *stops, cfg=SMALL):
    """A task after a run with a stop, and everything built anew, at each of `stops`."""
    for sitting, images in enumerate(stops):
        task = build(cfg)
        loop = Loop(task, Films(), LoopConfig(images=images, seed=3), Ranks(device=CPU), folder, settings={})
        if sitting:
            loop.resume()
        loop.run()
    task.on_images(stops[-1])
    return task


def tensors(task):
    """Every tensor of a task's state by name."""
    found = {}
    for name, part in task.state().items():
        state = part.state_dict()
        moments = {f"{key}/{moment}": value for key, each in state.get("state", {}).items() for moment, value in each.items()}
        found |= {f"{name}/{key}": value.clone() for key, value in {**moments, **state}.items() if isinstance(value, torch.Tensor)}
    return found


def batch(task, *, seed=3, purpose="p", films=None):
    numbers = range(task.batch_size)
    return Batch(
        numbers=numbers, films=Films().batch(numbers, task.resolution) if films is None else films, seed=seed, purpose=purpose, device=CPU
    )


@pytest.mark.parametrize(
    ("preset", "seen", "level", "alpha"),
    [
        ("segal2021", 0, 0, None),
        ("segal2021", 799_999, 0, None),
        ("segal2021", 800_000, 1, 1.0),
        ("segal2021", 1_200_000, 1, 0.5),
        ("segal2021", 1_600_000, 1, None),
        ("segal2021", 2_400_000, 2, 1.0),
        ("segal2021", 12_400_000, 8, 0.5),
        ("segal2021", 12_800_000, 8, None),
        ("segal2021", 99_000_000, 8, None),
        ("cpu-small", 0, 3, None),
        ("cpu-small", 96, 4, 1.0),
        ("cpu-small", 1_596, 4, 0.75),
        ("cpu-small", 6_096, 4, None),
    ],
)
def test_growth_is_a_function_of_the_images_seen(preset, seen, level, alpha):
    assert PRESETS[preset]().stage(seen) == Stage(level=level, alpha=alpha)


def test_segal_2021_is_what_was_published():
    cfg = PRESETS["segal2021"]()
    assert sum(cfg.fade_images) + sum(cfg.stable_images) == cfg.images == 8 * 10**5 + 7 * 16 * 10**5 + 2 * 10**6
    assert [cfg.count("group", level) for level in range(9)] == [16, 16, 16, 16, 16, 16, 14, 8, 3]
    assert [cfg.count("batch_size", level) for level in range(9)] == [64, 64, 64, 64, 64, 64, 56, 32, 12]
    assert (cfg.gp_weight, cfg.drift, cfg.ema, cfg.lr, cfg.betas, cfg.epsilon) == (10, 1e-3, 0.999, (1e-3,), (0, 0.99), 1e-7)
    assert not cfg.fade_reals
    assert cfg.output_range == "unit"


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_end_at_their_last_level(preset):
    cfg = PRESETS[preset]()
    assert sum(cfg.fade_images) + sum(cfg.stable_images) == cfg.images
    assert cfg.stage(cfg.images) == Stage(level=len(cfg.channels) - 1, alpha=None)
    assert len(cfg.channels) == (5 if preset == "cpu-small" else 9)


def test_an_unknown_preset_is_refused():
    with pytest.raises(ConfigError, match="presets of pggan are default, segal2021, gpu-half-hour, cpu-small, demo: huge"):
        settings_of("pggan", "huge", {})


def test_settings_can_be_replaced_by_name():
    cfg = settings_of("pggan", "cpu-small", {"channels": [8, 8, 8, 8, 8], "lr": [0.002], "fade_reals": False})
    assert cfg == replace(PRESETS["cpu-small"](), channels=(8, 8, 8, 8, 8), lr=(0.002,), fade_reals=False)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"channels": ()}, "channels must have 1 to 11 levels: 0"),
        ({"group": (3,)}, "batch_size and part_size must be whole groups at level 0: 8, 0 in groups of 3"),
        ({"part_size": (3,)}, "batch_size and part_size must be whole groups at level 0: 8, 3 in groups of 2"),
        ({"lr": (1e-3, 1e-3)}, "lr must have one value, or one for each of 3 levels: 2"),
        ({"lr": (0.0,)}, r"lr must be above 0 and under 1: \(0.0,\)"),
        ({"betas": (0.0, 1.0)}, "betas must be two numbers of 0 or more and under 1"),
        ({"ema": 1.0}, "ema and leak must be under 1: 1.0, 0.2"),
        ({"output_range": "both"}, "output_range must be one of unit, signed: both"),
        ({"fade_images": (4, 0, 0)}, "the first level that is trained has none below it to fade from: 0"),
        ({"fade_images": (0,), "stable_images": (4, 0, 4)}, "levels above the first that is trained must fade in, .*: level 1"),
        ({"fade_images": (0, 16, 0)}, "levels above the first that is trained must fade in, fade_images must be 1 or more: level 2"),
        ({"batch_size": (0,)}, "batch_size must be 1 or more: 0"),
        ({"code_size": 0}, "code_size must be 1 or more: 0"),
    ],
)
def test_senseless_settings_are_refused(change, line):
    with pytest.raises(ConfigError, match=line):
        replace(SMALL, **change)


def test_the_level_sets_what_a_step_takes():
    task = build()
    for seen, side, size, lr in ((0, 4, 8, 1e-3), (16, 8, 4, 2e-3), (48, 16, 4, 3e-3)):
        task.on_images(seen)
        assert (task.resolution, task.batch_size, task.part_size, task.group) == (side, size, size, 2)
        assert {group["lr"] for phase in task.phases() for group in phase.optimiser.param_groups} == {lr}
    assert task.recipe.resolution == 16


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one = tensors(build())
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = tensors(build()), tensors(build(seed=2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["generator/linear.weight"], other["generator/linear.weight"])


@pytest.mark.parametrize("stop", [8, 20, 32, 52, 64])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, stop):
    whole, resumed = tensors(trained(tmp_path / "whole", 84)), tensors(trained(tmp_path / "parts", stop, 84))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_parts_of_a_step_add_up_to_it(tmp_path):
    whole, parts = trained(tmp_path / "whole", 84), trained(tmp_path / "parts", 84, cfg=replace(SMALL, part_size=(2,)))
    for name, value in whole.average.state_dict().items():
        torch.testing.assert_close(parts.average.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_a_phase_moves_its_own_network_alone(tmp_path):
    task = build()
    task.on_images(20)
    for phase, moved in zip(task.phases(), ("discriminator", "generator"), strict=True):
        before = tensors(task)
        for network in (task.generator, task.discriminator):
            network.requires_grad_(network in phase.modules)
        phase.optimiser.zero_grad(set_to_none=True)
        phase.loss(batch(task))["loss"].backward()
        phase.optimiser.step()
        changed = {name for name, value in tensors(task).items() if name in before and not torch.equal(value, before[name])}
        assert {name.partition("/")[0] for name in changed} == {moved}
        above = {name for name in changed if "/levels.1" in name or "gray.2" in name}
        assert not above, "levels that are not there yet must not move"
        assert (phase.after is not None) == (moved == "generator")


@pytest.mark.parametrize("fades", [True, False])
def test_real_films_fade_where_asked_for(fades):
    task = build(replace(SMALL, fade_reals=fades))
    task.on_images(20)
    films = Films().batch(range(4), 8)
    coarse = F.interpolate(F.avg_pool2d(films, 2), scale_factor=2.0)
    seen_as = task.stage.alpha * coarse + (1 - task.stage.alpha) * films if fades else films
    expected = task.discriminator(seen_as, 1, task.stage.alpha, group=2).mean()
    found = task.phases()[0].loss(batch(task, films=films))["on_real"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(task.discriminator(coarse, 1, task.stage.alpha, group=2).mean(), expected, rtol=1e-4)


def test_samples_are_films_of_the_same_codes():
    task = build()
    task.on_images(60)
    films = task.samples()
    assert films.shape == (16, 1, 16, 16)
    assert films.abs().max() <= 1
    assert torch.equal(films, task.samples())
    assert (films[0] - films[1]).abs().max() > 0


def test_figures_are_sliced_wasserstein_distances():
    task = build()
    task.on_images(60)
    found = task.evaluate(Films().held_out)
    assert found == task.evaluate(Films().held_out)
    assert set(found) == {"swd_16", "swd_mean", "judged_films"}
    assert found["judged_films"] == 12
    assert task.evaluate(None) == {}
    assert task.evaluate(lambda side: Films().held_out(side)[:0]) == {}
    task.on_images(0)
    assert task.evaluate(Films().held_out) == {}


def test_missing_inception_weights_are_named_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(ConfigError, match=f"weights for FID were not found .* with --set inception=FILE: {INCEPTION_FILE}"):
        build(replace(SMALL, inception=str(tmp_path)))


def test_inception_judges_two_films_or_more(tmp_path):
    file = tmp_path / INCEPTION_FILE
    torch.save(random_weights(InceptionV3().published_shapes(), 0), file)
    task = build(replace(SMALL, inception=str(file)))
    task.on_images(60)
    found = task.evaluate(lambda side: Films().held_out(side)[:2])
    assert list(found) == ["swd_16", "swd_mean", "judged_films", "fid", "fid_weights"]
    assert found["fid"] > 0
    assert found["fid_weights"] == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert set(task.evaluate(lambda side: Films().held_out(side)[:1])) == {"swd_16", "swd_mean", "judged_films"}
    assert task.evaluate(lambda side: Films().held_out(side)[:0]) == {}


def test_summary_is_plain_json():
    found = json.loads(json.dumps(build().summary()))
    assert found["parameters"] == {"generator": 3_697, "discriminator": 3_679}
    assert list(found["gflop_per_image"]) == ["4", "8", "16"]


@pytest.mark.parametrize(("images", "level"), [(8, 0), (24, 0), (36, 1), (56, 1), (72, 2)])
def test_a_codec_of_the_last_complete_level_comes_out(tmp_path, images, level):
    task = trained(tmp_path, images)
    (tmp_path / "train.json").write_text("{}")  # as the run leaves it
    task.export(tmp_path, {"preset": "tiny", "images": images})
    codec, side = load_codec(tmp_path), 4 << level
    assert codec.recipe.resolution == side
    assert not codec.has_encoder
    assert codec.gauge == "sphere"
    assert codec.spec.provenance["preset"] == "tiny"
    codes = torch.randn(3, 1, 8)
    with torch.no_grad():
        torch.testing.assert_close(codec.generator.network(codes), task.average.module(codes, level), rtol=1e-5, atol=1e-5)
    assert codec.generate(codec.mean_latents(2)).shape == (2, 1, side, side)
    discriminator = load_discriminator(tmp_path / "discriminator.safetensors", device=CPU)
    films = Films().batch(range(2), side)
    torch.testing.assert_close(discriminator(films, discriminator.top), task.discriminator(films, level))


@pytest.mark.slow
def test_a_compiled_generator_has_the_same_gradients():
    found = []
    for compiled in (False, True):
        task = build(replace(SMALL, compile=compiled))
        task.on_images(20)
        phase = task.phases()[1]
        phase.loss(batch(task))["loss"].backward()
        found.append({name: value.grad for name, value in task.generator.named_parameters() if value.grad is not None})
    plain, compiled = found
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_levels_do_not_add_up_to_the_limit_of_graphs(monkeypatch):
    """Inductor is left out: what counts is how often the generator is traced."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 2)  # a level's own: fading, then whole
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    task = build(replace(SMALL, compile=True))
    for seen in (0, 16, 24, 40, 48, 56, 64, 80):
        task.on_images(seen)
        task.phases()[1].loss(batch(task))
    torch.compiler.reset()


def test_it_learns_how_bright_films_are(tmp_path):
    class Bright(Films):
        def batch(self, numbers, resolution):
            return super().batch(numbers, resolution) * 0.1 + 0.6

    cfg = replace(SMALL, channels=(16,), batch_size=(8,), lr=(1e-2,), ema=0.9, fade_images=(0,), stable_images=(2000,))
    task = build(cfg)
    before = (task.samples() - 0.6).abs().mean().item()
    Loop(task, Bright(), LoopConfig(images=2000, seed=3), Ranks(device=CPU), tmp_path, settings={}).run()
    assert (task.samples() - 0.6).abs().mean().item() < 0.2 < before / 2
