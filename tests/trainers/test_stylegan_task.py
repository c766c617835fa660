"""StyleGAN as a task: its growth, its phases, style mixing, stop and resume through the command, and the codec that comes out."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from engine.cli import run_verb
from engine.encode.codec import load_codec
from engine.errors import ConfigError
from engine.frechet import INCEPTION_FILE
from tests.trainers.small_films import write_films
from trainers import randomness, train
from trainers.checkpoint import checkpoints
from trainers.nets.discriminator_file import load_discriminator
from trainers.nets.stylegan_file import load_mapping
from trainers.nets.trainable_stylegan import noise_size
from trainers.presets.pggan import Stage
from trainers.presets.stylegan import PRESETS, StyleganConfig
from trainers.task import Batch
from trainers.tasks.stylegan import build_stylegan, mixed

CPU = torch.device("cpu")
SMALL = StyleganConfig(
    channels=(8, 8, 6),
    code_size=8,
    mapping_layers=2,
    batch_size=(8, 4, 4),
    group=(2,),
    fade_images=(0, 16, 16),
    stable_images=(16, 16, 100),
    images=200,
    lr=(1e-3, 2e-3, 3e-3),
)
TINY = {"channels": [8, 8, 6, 4], "code_size": 8, "fade_images": [0, 0, 0, 32], "stable_images": [0, 0, 16, 100], "batch_size": [8]}


def build(cfg=SMALL, *, seed=1, seen=0):
    task = build_stylegan(cfg, device=CPU, seed=seed)
    task.on_images(seen)
    return task


def films(numbers, resolution, *, limit=256):
    """Films as a function of their number."""
    draw = torch.Generator()
    made = torch.stack([torch.rand(1, 16, 16, generator=draw.manual_seed(number)) * 2 - 1 for number in numbers])
    return F.avg_pool2d(made, 16 // resolution).contiguous(memory_format=torch.channels_last)


def held_out(resolution, *, limit=256):
    return films(range(1000, 1012), resolution)


def batch(task, *, numbers=None):
    numbers = numbers or range(task.batch_size)
    return Batch(numbers=numbers, films=films(numbers, task.resolution), seed=3, purpose="p", device=CPU)


def run(*argv):
    """The verb in this process, on one thread as `--threads 1` leaves it."""
    threads = torch.get_num_threads()
    try:
        return run_verb("train", train, ["stylegan", "--preset", "cpu-small", "--threads", "1", *argv])
    finally:
        torch.set_num_threads(threads)


def tiny():
    return [word for name, value in TINY.items() for word in ("--set", f"{name}={json.dumps(value)}")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_films(tmp_path_factory.mktemp("films"), 20)


@pytest.mark.parametrize(
    ("preset", "seen", "stage"),
    [
        ("saboo2020", 0, Stage(level=1, alpha=None)),
        ("saboo2020", 600_000, Stage(level=2, alpha=1.0)),
        ("saboo2020", 900_000, Stage(level=2, alpha=0.5)),
        ("saboo2020", 4_799_999, Stage(level=5, alpha=1 - 599_999 / 600_000)),
        ("saboo2020", 4_800_000, Stage(level=5, alpha=None)),
        ("cpu-small", 0, Stage(level=2, alpha=None)),
    ],
)
def test_growth_is_a_function_of_the_images_seen(preset, seen, stage):
    assert PRESETS[preset]().growth.stage(seen) == stage


def test_saboo_2020_is_what_karras_published_at_128():
    cfg = PRESETS["saboo2020"]()
    assert cfg.channels == tuple(min(512, 8192 // 2 ** (level + 1)) for level in range(6))
    assert (cfg.code_size, cfg.mapping_layers, cfg.mapping_multiplier, cfg.mixing, cfg.blur, cfg.space) == (512, 8, 0.01, 0.9, True, "w")
    assert (cfg.loss, cfg.gamma, cfg.betas, cfg.epsilon, cfg.images) == ("r1", 10, (0, 0.99), 1e-8, 25_000_000)
    assert cfg.ema == pytest.approx(0.5 ** (32 / 10_000), abs=1e-5)
    assert [cfg.growth.count("batch_size", level) for level in range(6)] == [512, 256, 128, 64, 32, 32]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_end_at_their_last_level(preset):
    cfg = PRESETS[preset]()
    assert sum(cfg.fade_images) + sum(cfg.stable_images) == cfg.images
    assert cfg.growth.stage(cfg.images) == Stage(level=len(cfg.channels) - 1, alpha=None)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"channels": ()}, "channels must have 1 to 11 levels: 0"),
        ({"group": (3,)}, "batch_size and part_size must be whole groups at level 0: 8, 0 in groups of 3"),
        ({"fade_images": (4, 0, 0)}, "the first level that is trained has none below it to fade from: 0"),
        ({"loss": "hinge"}, "loss must be one of r1, wgan-gp: hinge"),
        ({"space": "z"}, r"space must be one of w, w\+: z"),
        ({"mixing": 1.5}, "mixing must be 0 to 1: 1.5"),
        ({"gamma": -1.0}, "gamma must be 0 or more: -1.0"),
        ({"mapping_layers": 0}, "mapping_layers must be 1 or more: 0"),
        ({"mapping_multiplier": 0.0}, "mapping_multiplier must be above 0 and 1 at most: 0.0"),
        ({"lr": (0.0,)}, r"lr must be above 0 and under 1: \(0.0,\)"),
    ],
)
def test_senseless_settings_are_refused(change, line):
    with pytest.raises(ConfigError, match=line):
        replace(SMALL, **change)


def test_missing_inception_weights_are_named_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(ConfigError, match=f"weights for FID were not found .* with --set inception=FILE: {INCEPTION_FILE}"):
        build(replace(SMALL, inception=str(tmp_path)))


def test_styles_are_mixed_from_a_random_layer_on():
    pairs = torch.arange(8.0)[:, None]  # of four films: 0 and 1, 2 and 3, ...
    draws = torch.tensor([[0.1, 0.0], [0.89, 0.999], [0.5, 0.5], [0.9, 0.5]])
    expected = [[0, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 3], [4, 4, 4, 5, 5, 5], [6] * 6]
    assert mixed(pairs, draws, 6, 0.9)[:, :, 0].tolist() == expected
    assert mixed(pairs, draws, 6, 0.0)[:, :, 0].tolist() == [[first] * 6 for first in (0, 2, 4, 6)]


def test_mixing_is_as_likely_as_asked_for():
    n = 4000
    draws = randomness.uniform(0, "mixing", range(n), 2)
    layers = mixed(torch.tensor([[0.0], [1.0]]).repeat(n, 1), draws, 6, 0.9)[:, :, 0]
    seconds = layers.sum(dim=1).long().bincount(minlength=7) / n
    assert float(seconds[0]) == pytest.approx(0.1, abs=0.02)
    assert float(seconds[6]) == 0
    assert seconds[1:6].tolist() == pytest.approx([0.18] * 5, abs=0.03)


@pytest.mark.parametrize(("loss", "keys"), [("r1", {"logistic", "penalty"}), ("wgan-gp", {"distance", "penalty", "norm"})])
def test_a_phase_moves_its_own_networks_alone(loss, keys):
    task = build(replace(SMALL, loss=loss), seen=20)
    networks = {"discriminator": task.discriminator, "generator": task.generator}
    for phase in task.phases():
        before = {name: [value.clone() for value in network.parameters()] for name, network in networks.items()}
        for network in networks.values():
            network.requires_grad_(network in phase.modules)
        phase.optimiser.zero_grad(set_to_none=True)
        found = phase.loss(batch(task))
        found["loss"].backward()
        phase.optimiser.step()
        assert phase.name == "generator" or keys < found.keys()
        for name, network in networks.items():
            changed = [not torch.equal(old, new) for old, new in zip(before[name], network.parameters(), strict=True)]
            assert any(changed) == (name == phase.name)
        assert (phase.after is not None) == (phase.name == "generator")
    assert task.generator.mapping.linears[0].weight.grad.abs().max() > 0


def test_films_of_a_step_do_not_depend_on_its_parts():
    task = build(seen=20)
    with torch.no_grad():
        whole = task._fake(batch(task, numbers=range(8)))
        parts = torch.cat([task._fake(batch(task, numbers=range(first, first + 4))) for first in (0, 4)])
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    assert (whole[0] - whole[1]).abs().max() > 1e-3


def test_real_films_fade_with_the_generators():
    task = build(seen=20)
    pixels = films(range(4), 8)
    coarse = F.interpolate(F.avg_pool2d(pixels, 2), scale_factor=2.0)
    seen_as = task.stage.alpha * coarse + (1 - task.stage.alpha) * pixels
    expected = task.discriminator(seen_as, 1, task.stage.alpha, group=2).mean()
    found = task.phases()[0].loss(batch(task))["on_real"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_samples_and_figures():
    task = build(seen=60)
    shown = task.samples()
    assert shown.shape == (16, 1, 16, 16)
    assert torch.equal(shown, task.samples())
    found = task.evaluate(held_out)
    assert found == task.evaluate(held_out)
    assert set(found) == {"swd_16", "swd_mean", "judged_films"}
    assert found["judged_films"] == 12
    assert task.evaluate(None) == {}
    assert task.evaluate(lambda side: held_out(side)[:0]) == {}
    task.on_images(0)
    assert task.evaluate(held_out) == {}


def test_summary_is_plain_json():
    task = build()
    found = json.loads(json.dumps(task.summary()))
    g = task.generator
    counts = [sum(value.numel() for value in part.parameters()) for part in (g.mapping, g.synthesis, task.discriminator)]
    assert list(found["parameters"].items()) == list(zip(("mapping", "generator", "discriminator"), counts, strict=True))
    assert found["parameters"]["mapping"] == 2 * 8 * 9
    assert 0 < found["gflop_per_image"]["8"] < found["gflop_per_image"]["16"]


@pytest.mark.parametrize(("seen", "level"), [(20, 0), (70, 2)])
@pytest.mark.parametrize("space", ["w", "w+"])
def test_a_codec_of_the_last_complete_level_comes_out(tmp_path, seen, level, space):
    task = build(replace(SMALL, space=space), seen=seen)
    for value in task.average.module.parameters():  # an average of its own
        value.add_(0.1)
    task.export(tmp_path, {"preset": "tiny"})
    codec, side = load_codec(tmp_path), 4 << level
    layers = 2 * (level + 1)
    assert (codec.recipe.resolution, codec.has_encoder, codec.gauge) == (side, False, "none")
    assert codec.code_shape == (layers if space == "w+" else 1, 8)
    assert codec.spec.provenance == {"task": "stylegan", "weights": "average, decay 0.998", "preset": "tiny"}
    mapping = load_mapping(tmp_path / "mapping.safetensors", device=CPU)
    w = mapping(torch.randn(3, 8))
    noise = randomness.normal(1, "stylegan/constant-noise", range(1), noise_size(level)).expand(3, -1)
    with torch.no_grad():
        expected = task.average.module.synthesis(w[:, None].expand(-1, layers, -1), noise, level)
        got = codec.generator.network(w[:, None].expand(-1, *codec.code_shape))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    many = mapping(torch.randn(4000, 8, generator=torch.Generator().manual_seed(0)))
    assert (codec.mean_latents(1)[0] - many.mean(dim=0)).abs().max() < 0.1 * many.std()
    assert torch.equal(codec.mean_latents(1)[0, -1], mapping.mean)
    pixels = films(range(2), side)
    discriminator = load_discriminator(tmp_path / "discriminator.safetensors", device=CPU)
    torch.testing.assert_close(discriminator(pixels, discriminator.top), task.discriminator(pixels, level))


def test_stopped_and_resumed_mid_fade_equals_one_run(folder, tmp_path):
    every = [word for name in ("sample", "evaluate", "checkpoint") for word in (f"--{name}-images", "64")]
    again = ["--data", folder, *tiny(), *every]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(*again, "--out", str(whole), "--images", "64") == 0
    assert run(*again, "--out", str(parts), "--images", "40") == 0
    assert load_codec(parts).recipe.resolution == 16
    assert run(*again, "--out", str(parts), "--images", "64", "--resume") == 0
    one, other = (load_file(checkpoints(out / "checkpoints")[-1]) for out in (whole, parts))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert (whole / "mapping.safetensors").read_bytes() == (parts / "mapping.safetensors").read_bytes()
    codec = load_codec(whole)
    assert codec.spec.files() == load_codec(parts).spec.files()
    assert codec.recipe.resolution == 32
    assert list((whole / "samples").glob("*.png"))


def test_one_resolution_from_the_start():
    task = build(replace(SMALL, fade_images=(0,), stable_images=(0, 0, 100)))
    assert task.stage == Stage(level=2, alpha=None)
    for phase in task.phases():
        phase.loss(batch(task))["loss"].backward()
    assert task.generator.synthesis.layers[0].bias.grad.abs().max() > 0


def test_a_compiled_generator_makes_the_same_films(monkeypatch):
    """Inductor is left out: what counts is that the whole network is traced, once for a level that fades and once for a whole one."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 2)
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    plain, compiled = build(), build(replace(SMALL, compile=True))
    for seen in (16, 24, 40):
        for task in (plain, compiled):
            task.on_images(seen)
        with torch.no_grad():
            torch.testing.assert_close(compiled._fake(batch(compiled)), plain._fake(batch(plain)), rtol=1e-4, atol=1e-5)
    torch.compiler.reset()


def test_it_learns_how_bright_films_are():
    cfg = replace(SMALL, channels=(8,), batch_size=(8,), lr=(2e-2,), gamma=1.0, ema=0.9, fade_images=(0,), stable_images=(2000,))
    task = build(cfg)
    before = (task.samples() - 0.6).abs().mean().item()
    for first in range(0, 480, 8):
        numbers = range(first, first + 8)
        for phase in task.phases():
            for network in (task.generator, task.discriminator):
                network.requires_grad_(network in phase.modules)
            phase.optimiser.zero_grad(set_to_none=True)
            pixels = films(numbers, 4) * 0.1 + 0.6
            phase.loss(Batch(numbers=numbers, films=pixels, seed=3, purpose=phase.name, device=CPU))["loss"].backward()
            phase.optimiser.step()
            if phase.after is not None:
                phase.after()
    assert (task.samples() - 0.6).abs().mean().item() < 0.2 < before / 2
