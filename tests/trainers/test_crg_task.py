"""The cyclic reverse generator as a task: its two updates, stop and resume through the command, its codec, and what it refuses."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from skimage.metrics import structural_similarity

from engine.cli import run_verb
from engine.encode.codec import load_codec
from engine.errors import CodecError, ConfigError, SettingsChanged, TrainError
from tests.trainers.small_films import write_films
from tests.trainers.steps import make_codec, same_bits, states
from tests.trainers.steps import train as take_steps
from trainers import randomness, train
from trainers.checkpoint import checkpoints
from trainers.nets.mapping_network import MappingNetwork, MappingSettings
from trainers.nets.stylegan_file import load_mapping, save_mapping
from trainers.presets.crg import PRESETS, CrgConfig
from trainers.task import Batch
from trainers.tasks.crg import build_crg
from trainers.tasks.crg_figures import judge_inversion

CPU = torch.device("cpu")
TINY = CrgConfig(blocks=(1, 1), widths=(6, 8), stem=2, hidden=8, grid=2, batch=8, lr=3e-3, images=64)
STYLEGAN = {"channels": [8, 8, 6], "code_size": 8, "fade_images": [0], "stable_images": [0, 0, 100], "batch_size": [8], "mapping_layers": 2}
SIDE, LAYERS, SIZE = 16, 6, 8


def run(task, *argv):
    """The verb in this process, on one thread as `--threads 1` leaves it."""
    threads = torch.get_num_threads()
    try:
        return run_verb("train", train, [task, "--preset", "cpu-small", "--threads", "1", *argv])
    finally:
        torch.set_num_threads(threads)


def settings(values):
    return [word for name, value in values.items() for word in ("--set", f"{name}={json.dumps(value)}")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_films(tmp_path_factory.mktemp("films"), 20)


@pytest.fixture(scope="module")
def stylegan(folder, tmp_path_factory):
    """The directory of a StyleGAN that has seen a few films."""
    out = tmp_path_factory.mktemp("stylegan") / "run"
    assert run("stylegan", "--data", folder, *settings(STYLEGAN), "--out", str(out), "--images", "16") == 0
    return out


def build(stylegan, *, seed=1, **changes):
    return build_crg(replace(TINY, **changes), device=CPU, seed=seed, codec=load_codec(stylegan), codec_folder=stylegan)


def films(numbers, resolution, *, limit=256):
    draw = torch.Generator()
    made = torch.stack([torch.rand(1, 4, 4, generator=draw.manual_seed(number)) * 2 - 1 for number in numbers])
    return torch.nn.functional.interpolate(made, size=(resolution, resolution), mode="bilinear")


def held_out(resolution, *, limit=256):
    return films(range(1000, 1006), resolution)


def batch(purpose="p"):
    return Batch(numbers=range(8), films=films(range(8), SIDE), seed=3, purpose=purpose, device=CPU)


def similarity(made, others):
    pairs = zip((made[:, 0].double() + 1) / 2, (others[:, 0].double() + 1) / 2, strict=True)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return sum(structural_similarity(a.numpy(), b.numpy(), **options) for a, b in pairs) / len(made)


WEIGHTS = {"code": 2.0, "films": 3.0, "ssim": 0.5, "content": 0.25}


@pytest.mark.parametrize("space", ["w", "w+"])
def test_the_synthetic_loss_is_the_papers_sum(stylegan, space):
    task = build(stylegan, space=space, **WEIGHTS)
    found = {name: float(value.detach()) for name, value in task.phases()[0].loss(batch()).items()}
    generator = load_codec(stylegan).generator.network
    with torch.no_grad():
        w = load_mapping(stylegan / "mapping.safetensors", device=CPU)(batch().normal("z", SIZE))[:, None]
        x = generator(w).clamp(-1, 1)
        w_hat = build(stylegan, space=space).encoder(x)  # fresh, in training mode, as it was
        x_hat = generator(w_hat).clamp(-1, 1)
        content = sum(float((a - b).abs().sum()) / a.numel() for a, b in zip(generator.features(w), generator.features(w_hat), strict=True))
    code = sum(float((w_hat[:, at] - w[:, 0]).abs().mean()) for at in range(w_hat.shape[1])) / w_hat.shape[1]
    assert w_hat.shape == (8, LAYERS if space == "w+" else 1, SIZE)
    expected = {"code": code, "mse": float((x - x_hat).square().mean()) / 4, "ssim": 1 - similarity(x_hat, x), "content": content}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-3, abs=1e-5)
    total = 2 * found["code"] + 3 * found["mse"] + 0.5 * found["ssim"] + 0.25 * found["content"]
    assert found["loss"] == pytest.approx(total, rel=1e-5)
    assert found["content"] > 0.01


def test_the_real_loss_is_the_papers_sum(stylegan):
    task = build(stylegan, **WEIGHTS)
    found = {name: float(value.detach()) for name, value in task.phases()[1].loss(batch()).items()}
    fresh, generator, pixels = build(stylegan).encoder, load_codec(stylegan).generator.network, batch().films
    with torch.no_grad():
        codes, maps = fresh.coded(pixels)
        made = generator(codes).clamp(-1, 1)
        content = sum(float((a - b).abs().sum()) / a.numel() for a, b in zip(maps, fresh.features(made), strict=True))
    expected = {"mse": float((pixels - made).square().mean()) / 4, "ssim": 1 - similarity(made, pixels), "content": content}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert found["loss"] == pytest.approx(3 * found["mse"] + 0.5 * found["ssim"] + 0.25 * found["content"], rel=1e-5)
    assert found.keys() == {"loss", "mse", "ssim", "content"}


def test_a_phase_moves_the_encoder_alone(stylegan):
    task = build(stylegan)
    fixed = {"generator": task.generator, "mapping": task.mapping}
    before = {name: {key: value.clone() for key, value in part.state_dict().items()} for name, part in fixed.items()}
    optimisers = [phase.optimiser for phase in task.phases()]
    assert [phase.name for phase in task.phases()] == ["synthetic", "real"]
    assert optimisers[0] is not optimisers[1]
    for phase in task.phases():
        was = [value.clone() for value in task.encoder.parameters()]
        phase.optimiser.zero_grad(set_to_none=True)
        phase.loss(batch(phase.name))["loss"].backward()
        assert all(value.grad is not None and value.grad.isfinite().all() for value in task.encoder.parameters())
        phase.optimiser.step()
        assert any(not torch.equal(old, new) for old, new in zip(was, task.encoder.parameters(), strict=True))
        assert phase.modules == [task.encoder]
    for name, part in fixed.items():
        assert same_bits(before[name], part.state_dict())
        assert all(value.grad is None for value in part.parameters())


def test_codes_are_found_again_after_training(stylegan):
    task = build(stylegan)
    before = task.evaluate(None)
    assert before.keys() == {"code_distance", "psnr_generated"}
    take_steps(task, 240, films=films)
    after = task.evaluate(None)
    assert after["code_distance"] < before["code_distance"]
    assert after["psnr_generated"] > before["psnr_generated"] + 1


def test_a_resumed_run_ends_as_an_uninterrupted_one(stylegan):
    whole, first, second = build(stylegan), build(stylegan), build(stylegan, seed=2)
    take_steps(whole, 32, films=films)
    take_steps(first, 16, films=films)
    for name, part in second.state().items():
        part.load_state_dict(first.state()[name].state_dict())
    take_steps(second, 32, seen=16, films=films)
    assert same_bits(states(whole), states(second))


def test_figures_and_pictures(stylegan):
    task = build(stylegan)
    assert task.samples().shape == (16, 1, SIDE, SIDE)
    figures = task.evaluate(held_out)
    assert figures.keys() == {"psnr", "ssim", "swd", "code_distance", "psnr_generated"}
    assert figures == task.evaluate(held_out)
    shown = task.samples()
    assert shown.shape == (16 + 12, 1, SIDE, SIDE)
    assert torch.equal(shown[16::2], held_out(SIDE))
    error = (shown[16::2] - shown[17::2]).square().mean(dim=(1, 2, 3)) / 4
    assert float(-10 * error.log10().mean()) == pytest.approx(figures["psnr"], abs=0.05)
    assert task.encoder.training


def test_summary_is_plain_json(stylegan):
    task = build(stylegan)
    found = json.loads(json.dumps(task.summary()))
    assert found["parameters"]["encoder"] == sum(value.numel() for value in task.encoder.parameters())
    assert found["parameters"]["mapping"] == 2 * SIZE * (SIZE + 1)
    assert set(found["gflop_per_image"]) == {"synthetic", "real"}


@pytest.mark.parametrize("space", ["", "w+"])
def test_a_codec_comes_out(stylegan, tmp_path, space):
    task = build(stylegan, space=space)
    take_steps(task, 16, films=films)
    task.export(tmp_path, {"preset": "tiny"})
    start, codec = load_codec(stylegan), load_codec(tmp_path)
    assert codec.code_shape == ((LAYERS, SIZE) if space else (1, SIZE))
    assert same_bits(start.generator.network.state_dict(), codec.generator.network.state_dict())
    assert torch.equal(codec.mean_latents(1)[0], start.mean_latents(1)[0].expand(codec.code_shape))
    assert (codec.spec.encoder.network, codec.spec.generator.network) == ("crg", "stylegan")
    told = codec.spec.provenance
    assert (told["task"], told["preset"], told["start"], told["start_digest"]) == ("crg", "tiny", start.name, start.digest)
    assert told["generator"] == start.spec.provenance
    pixels = held_out(SIDE)
    task.encoder.eval()
    with torch.no_grad():
        expected = task.encoder(pixels)
        torch.testing.assert_close(codec.encode(pixels), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(codec.generate(expected), start.generator.network(expected).clamp(-1, 1), rtol=1e-5, atol=1e-6)
    again = build(tmp_path)  # a codec of this task is one to start from as well
    assert same_bits(again.mapping.state_dict(), task.mapping.state_dict())


def test_w_from_a_codec_of_w_plus_takes_one_mean_code(stylegan, tmp_path):
    build(stylegan, space="w+").export(tmp_path, {})
    task = build(tmp_path, space="w")
    assert task.encoder.code_shape == (1, SIZE)
    torch.testing.assert_close(task.mean, load_codec(stylegan).mean_latents(1)[0])


def test_stopped_and_resumed_equals_one_run(stylegan, folder, tmp_path):
    every = [word for name in ("sample", "evaluate", "checkpoint") for word in (f"--{name}-images", "16")]
    tiny = settings({"blocks": [1, 1], "widths": [6, 8], "hidden": 8, "grid": 2, "batch": 8})
    again = ["--codec", str(stylegan), "--data", folder, *tiny, *every]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run("crg", *again, "--out", str(whole), "--images", "32") == 0
    assert run("crg", *again, "--out", str(parts), "--images", "16") == 0
    assert run("crg", *again, "--out", str(parts), "--images", "32", "--resume") == 0
    one, other = (load_file(checkpoints(out / "checkpoints")[-1]) for out in (whole, parts))
    assert same_bits(one, other)
    assert load_codec(whole).spec.files() == load_codec(parts).spec.files()
    assert (whole / "mapping.safetensors").read_bytes() == (stylegan / "mapping.safetensors").read_bytes()
    assert load_codec(whole).has_encoder
    assert list((whole / "samples").glob("*.png"))


def test_encoder_and_direct_optimisation_are_compared(stylegan, tmp_path):
    task = build(stylegan)
    take_steps(task, 16, films=films)
    task.export(tmp_path, {})
    codec, mapping = load_codec(tmp_path), load_mapping(tmp_path / "mapping.safetensors", device=CPU)
    few, more = (judge_inversion(codec, mapping, seed=5, count=3, steps=steps) for steps in (2, 20))
    assert (few.films, few.steps) == (3, 2)
    assert few.mean_code < few.direct < more.direct
    assert (more.encoder, more.mean_code) == (few.encoder, few.mean_code)
    assert more.behind == pytest.approx(more.direct - more.encoder)
    with torch.no_grad():
        x = codec.generate(mapping(randomness.normal(5, "crg/inversion", range(3), SIZE))[:, None])
        error = (codec.generate(codec.encode(x)) - x).square().mean(dim=(1, 2, 3)) / 4
    assert few.encoder == pytest.approx(float(-10 * error.log10().mean()), abs=1e-3)
    with pytest.raises(CodecError, match="no encoder"):
        judge_inversion(load_codec(stylegan), mapping, seed=5, count=3, steps=2)
    with pytest.raises(ConfigError, match="steps must be 1 or more: 0"):
        judge_inversion(codec, mapping, seed=5, count=3, steps=0)


def test_other_codecs_are_refused(stylegan, folder, tmp_path, capsys):
    make_codec(tmp_path / "pggan")
    assert run("crg", "--codec", str(tmp_path / "pggan"), "--data", folder, "--out", str(tmp_path / "out")) == 2
    assert "codec's generator must be a stylegan to train crg for it: pggan" in capsys.readouterr().err
    alone = tmp_path / "alone"
    shutil.copytree(stylegan, alone, ignore=shutil.ignore_patterns("mapping.safetensors", "checkpoints", "films"))
    assert run("crg", "--codec", str(alone), "--data", folder, "--out", str(tmp_path / "out")) == 2
    line = f"`latentray train stylegan` leaves beside its codec; missing: {alone / 'mapping.safetensors'}"
    assert line in capsys.readouterr().err
    save_mapping(alone / "mapping.safetensors", MappingNetwork(MappingSettings(code_size=5, layers=1)))
    with pytest.raises(ConfigError, match="w of one size, these are of another codec: 5 and 8"):
        build(alone)
    (alone / "mapping.safetensors").write_bytes(b"torn")
    with pytest.raises(TrainError, match="mapping network cannot be read"):
        build(alone)
    assert run("crg", "--data", folder, "--out", str(tmp_path / "out")) == 2
    assert "crg needs --codec" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_mapping_network_is_another_run(stylegan, tmp_path):
    shutil.copytree(stylegan, tmp_path / "other")
    save_mapping(tmp_path / "other" / "mapping.safetensors", MappingNetwork(MappingSettings(code_size=SIZE, layers=1)))
    one, other = build(stylegan), build(tmp_path / "other")
    one.state()["mapping"].load_state_dict(one.state()["mapping"].state_dict())
    with pytest.raises(SettingsChanged, match=r"mapping network was \w+, is \w+"):
        other.state()["mapping"].load_state_dict(one.state()["mapping"].state_dict())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"space": "z"}, r"space must be one of , w, w\+: z"),
        ({"batch": 1}, "batch must be 2 or more: 1"),
        ({"code": -1.0}, "code must be 0 or more: -1.0"),
        ({"lr": 0.0}, "lr must be above 0 and under 1: 0.0"),
        ({"betas": (0.9,)}, r"betas must be two numbers of 0 or more and under 1: \(0.9,\)"),
        ({"floor": 2.0}, "floor must be 0 to 1: 2.0"),
        ({"stem": 3}, "crg.stem must be one of 1, 2, 4: 3"),
        ({"films": 0.0, "ssim": 0.0, "content": 0.0}, "or films teach nothing: 0.0, 0.0, 0.0"),
    ],
)
def test_senseless_settings_are_refused(change, line):
    with pytest.raises(ConfigError, match=line):
        replace(TINY, **change)


def test_saboo_2020_is_the_paper():
    cfg = PRESETS["saboo2020"]()
    assert (cfg.blocks, cfg.widths, cfg.space) == ((3, 4, 23, 3), (64, 128, 256, 512), "w")
    assert (cfg.code, cfg.films, cfg.ssim, cfg.content) == (1, 1, 1, 1)
    assert cfg.lr_at(0) == cfg.lr_at(10**6) == cfg.lr
    small = PRESETS["cpu-small"]()
    assert small.lr_at(small.images) == pytest.approx(small.floor * small.lr)
