"""VAE and GM-VAE as tasks: the bound that they minimise, what a resume brings back, and the codecs that come out."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.cli import run_verb
from engine.encode.codec import load_codec
from engine.errors import ConfigError
from tests.trainers.packs import write_films, write_manifest
from trainers import train
from trainers.catalogue import settings_of
from trainers.checkpoint import checkpoints, read_checkpoint
from trainers.nets.evaluating import evaluating
from trainers.presets.gmvae import PRESETS as GMVAE
from trainers.presets.vae import PRESETS as VAE
from trainers.task import Batch
from trainers.tasks.gmvae import MIXTURE, build_gmvae
from trainers.tasks.vae import build_vae

CPU = torch.device("cpu")
NETS = {"resolution": 16, "widths": (4, 6), "convolutions": (2,), "code_size": 5, "batch_size": 8, "lr": 1e-3, "storage": "float32"}
SMALL_VAE = replace(VAE["cpu-small"](), **NETS, warm_up=32, beta=0.5)
SMALL = replace(GMVAE["cpu-small"](), **NETS, warm_up=32, beta=0.5, components=3, kept=24, mixture_at=16)
LABELLED = replace(SMALL, labels=("sick", "old"), judge_by="left")


class Films:
    """Held-out films: noise, with labels by their number."""

    def __call__(self, resolution, *, limit=256):
        draw = torch.Generator().manual_seed(1)
        return torch.rand(12, 1, resolution, resolution, generator=draw) * 2 - 1

    def labels(self, *, limit=256):
        return torch.tensor([[n % 2, n % 3 == 0, n < 6] for n in range(12)]).float()


def batch(task, *, marks=True):
    films = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    labels = torch.tensor([[n % 2, n % 3 == 0, n < 4] for n in range(8)]).float()[:, : len(task.labels)]
    return Batch(numbers=range(8), films=films, seed=3, purpose="elbo/0", device=CPU, labels=labels if marks else None)


@pytest.mark.parametrize("over", ["sum", "mean"])
def test_vae_minimises_the_bound(over):
    task = build_vae(replace(SMALL_VAE, over=over), device=CPU, seed=1)
    task.on_images(16)
    given = batch(task, marks=False)
    found = task.phases()[0].loss(given)
    with torch.no_grad():
        features = task.encoder.trunk((given.pixels + 1) / 2).flatten(1)
        mean, log_variance = task.encoder.mean(features), task.variance(features)
        z = mean + (log_variance / 2).exp() * given.normal("z", 5)
        made = task.generator(z[:, None])
    errors = ((made - given.pixels) / 2).square().sum(dim=(1, 2, 3)) / (1 if over == "sum" else 256)
    kl = [
        sum(0.5 * (math.exp(v) + m * m - 1 - v) for m, v in zip(*row, strict=True))
        for row in zip(mean.tolist(), log_variance.tolist(), strict=True)
    ]
    assert found["rec"].item() == pytest.approx(errors.mean().item(), rel=1e-5)
    assert found["kl"].item() == pytest.approx(np.mean(kl), rel=1e-4)
    assert found["loss"].item() == pytest.approx(errors.mean().item() + 0.25 * np.mean(kl), rel=1e-5)


def test_gmvae_minimises_the_bound_with_labels():
    task = build_gmvae(LABELLED, device=CPU, seed=1)
    task.on_images(32)
    given = batch(task)
    found = task.phases()[0].loss(given)
    with torch.no_grad():
        hidden = task.encoder.hidden(given.pixels)
        mean, log_variance, logits = task.encoder.mean(hidden), task.variance(hidden), task.encoder.labels(hidden)
        z = mean + (log_variance / 2).exp() * given.normal("z", 5)
        made = task.generator(torch.cat([z, given.marks[:, :2]], dim=1)[:, None])
        q = torch.distributions.Normal(mean, (log_variance / 2).exp()).log_prob(z).sum(dim=1)
        parts = [
            torch.distributions.Normal(task.mixture.means[k], (task.mixture.log_variances[k] / 2).exp()).log_prob(z).sum(dim=1)
            for k in range(3)
        ]
        p = torch.stack([part.double().exp() for part in parts]).mean(dim=0).log()
        rec = ((made - given.pixels) / 2).square().sum(dim=(1, 2, 3)).mean()
        chances = torch.sigmoid(logits)
        labels = -torch.where(given.marks[:, :2] > 0, chances, 1 - chances).log().sum(dim=1).mean()
    assert found["kl"].item() == pytest.approx((q - p).mean().item(), rel=1e-4)
    assert found["labels"].item() == pytest.approx(labels.item(), rel=1e-5)
    assert found["loss"].item() == pytest.approx((rec + 0.5 * (q - p).mean() + labels).item(), rel=1e-5)


def test_training_does_not_see_the_label_it_is_judged_by():
    task = build_gmvae(LABELLED, device=CPU, seed=1)
    task.on_images(32)
    given = batch(task)
    other = replace(given, labels=given.marks * torch.tensor([1.0, 1, 0]))
    (phase,) = task.phases()
    assert torch.equal(phase.loss(given)["loss"], phase.loss(other)["loss"])
    assert not torch.equal(phase.loss(given)["loss"], phase.loss(replace(given, labels=1 - given.marks))["loss"])


def test_the_mixture_is_put_where_codes_lie():
    task = build_gmvae(SMALL, device=CPU, seed=1)
    (phase,) = task.phases()
    fresh = task.mixture.means.detach().clone()
    for seen in (0, 8, 16):
        task.on_images(seen)
        found = phase.loss(batch(task))
        phase.after()
        assert torch.equal(task.mixture.means, fresh) == (seen < 8)
        found["loss"].backward()
        assert (task.mixture.means.grad is None) == (seen < 16)
        phase.optimiser.zero_grad(set_to_none=True)
    assert int(task.recent.seen) == 16
    distances = torch.cdist(task.recent.codes(), task.mixture.means).amin(dim=1)
    assert distances.mean() < torch.cdist(task.recent.codes(), fresh).amin(dim=1).mean()


def test_fresh_decoders_make_gray_films():
    for task in (build_vae(SMALL_VAE, device=CPU, seed=1), build_gmvae(replace(SMALL, decoder=(6, 4, 3)), device=CPU, seed=1)):
        with torch.no_grad():
            films = task.generator(torch.randn(8, 1, 5, generator=torch.Generator().manual_seed(4)))
        assert films.abs().mean() < 0.3


def test_judging_leaves_networks_as_they_were():
    task = build_gmvae(SMALL, device=CPU, seed=1)
    before = {name: value.clone() for name, value in task.generator.state_dict().items()}
    modes = [module.training for module in task.generator.modules()]
    found = task.evaluate(Films())
    assert found == task.evaluate(Films())
    assert set(found) == {"psnr", "ssim", "swd", "swd_random"}
    assert [module.training for module in task.generator.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in task.generator.state_dict().items())
    with evaluating(task.generator):
        assert not task.generator.layers[1].training
    assert task.generator.layers[1].training


def test_figures_of_labels_and_clusters():
    task = build_gmvae(LABELLED, device=CPU, seed=1)
    found = task.evaluate(Films())
    assert set(found) == {
        *("psnr", "ssim", "swd", "swd_random", "accuracy_sick", "accuracy_old"),
        *("cluster_accuracy", "cluster_accuracy_by_chance", "clusters_used"),
    }
    with torch.no_grad(), evaluating(task.encoder):
        codes = task.encoder(Films()(16))[:, 0]
    marks = Films().labels()
    assert found["accuracy_sick"] == pytest.approx(((codes[:, 5] > 0.5) == (marks[:, 0] > 0)).float().mean().item())
    nearest = torch.cdist(codes[:, :5], task.mixture.means).argmin(dim=1)  # all variances are 1 as yet
    rightly = sum(max(marks[nearest == k, 2].sum().item(), (1 - marks[nearest == k, 2]).sum().item()) for k in range(3)) / 12
    assert found["cluster_accuracy"] == pytest.approx(rightly)


def test_samples_show_films_reconstructions_and_components():
    task = build_gmvae(LABELLED, device=CPU, seed=1)
    assert task.samples().shape == (24, 1, 16, 16)
    task.evaluate(Films())
    task.on_images(32)
    shown = task.samples()
    assert shown.shape == (16 + 24, 1, 16, 16)
    torch.testing.assert_close(shown[0:16:2], Films()(16)[:8])
    assert torch.equal(shown, task.samples())
    vae = build_vae(SMALL_VAE, device=CPU, seed=1)
    assert vae.samples().shape == (16, 1, 16, 16)
    vae.evaluate(Films())
    assert vae.samples().shape == (32, 1, 16, 16)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """24 films of 16x16 with three labels."""
    folder = write_films(tmp_path_factory.mktemp("source") / "films", 24)
    cells = {"sick": [n % 2 for n in range(24)], "old": [int(n % 3 == 0) for n in range(24)], "left": [int(n < 12) for n in range(24)]}
    return str(write_manifest(folder, cells))


def run(task, manifest, out, images, *more, nets=None):
    shape = {**NETS, "warm_up": 32, **(nets or {})}
    sets = [word for name, value in shape.items() for word in ("--set", f"{name}={json.dumps(value) if name != 'storage' else value}")]
    argv = [task, "--preset", "cpu-small", "--data", manifest, "--out", str(out), "--images", str(images), "--threads", "1", *sets, *more]
    threads = torch.get_num_threads()
    try:
        return run_verb("train", train, argv)
    finally:
        torch.set_num_threads(threads)


GMVAE_SETS = {"components": 3, "kept": 16, "mixture_at": 32, "labels": ["sick", "old"], "judge_by": "left"}


@pytest.mark.parametrize(
    ("task", "nets", "stop"),
    [
        ("vae", {}, 20),
        ("gmvae", GMVAE_SETS, 16),
        ("gmvae", GMVAE_SETS, 40),
        ("gmvae", {**GMVAE_SETS, "mixture_at": 0, "transition": True, "decoder": [6, 4, 3], "labels": []}, 24),
    ],
    ids=["vae", "before-the-mixture", "after-it", "transition-net"],
)
def test_stopped_and_resumed_equals_one_run(manifest, tmp_path, task, nets, stop):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(task, manifest, whole, 56, nets=nets) == 0
    assert run(task, manifest, parts, stop, nets=nets) == 0
    assert run(task, manifest, parts, 56, "--resume", nets=nets) == 0
    one, other = (load_file(checkpoints(out / "checkpoints")[-1]) for out in (whole, parts))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    codecs = [load_codec(out) for out in (whole, parts)]
    assert codecs[0].spec.files() == codecs[1].spec.files()
    check_codec(codecs[0], whole, read_checkpoint(checkpoints(whole / "checkpoints")[-1]).states, nets)


def check_codec(codec, folder, state, nets):
    labels = len(nets.get("labels", []))
    assert (codec.code_shape, codec.gauge, codec.recipe.resolution) == ((1, 5 + labels), "none", 16)
    assert (codec.recipe.square, codec.recipe.equalise) == ("crop", "histogram") if not nets else True
    films = Films()(16)
    codes = codec.encode(films)
    assert codes.shape == (12, 1, 5 + labels)
    assert codec.generate(codes).shape == films.shape
    assert state["generator"].keys() == codec.generator.network.state_dict().keys()
    if nets:
        mixture = load_file(folder / MIXTURE)
        assert torch.equal(mixture["means"], state["mixture"]["means"])
        torch.testing.assert_close(codec.mean_latents(1)[0, 0, :5], mixture["means"].mean(dim=0))
        if labels:
            assert ((codes[..., 5:] > 0) & (codes[..., 5:] < 1)).all()
    else:
        assert codec.mean_latents(1).abs().max() == 0


def test_they_learn_what_films_look_like(tmp_path):
    """Four films by heart: far nearer than their mean."""
    films = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(5)).repeat_interleave(4, 2).repeat_interleave(4, 3) * 2 - 1
    given = Batch(numbers=range(8), films=films.repeat(2, 1, 1, 1), seed=3, purpose="elbo/0", device=CPU)
    nets = {**NETS, "widths": (8, 16), "convolutions": (1,), "lr": 1e-2, "beta": 0.01}
    for task in (
        build_vae(replace(SMALL_VAE, **nets), device=CPU, seed=1),
        build_gmvae(replace(SMALL, **nets, mixture_at=0), device=CPU, seed=1),
    ):
        (phase,) = task.phases()
        for step in range(120):
            task.on_images(8 * step)
            phase.optimiser.zero_grad(set_to_none=True)
            phase.loss(replace(given, numbers=range(8 * step, 8 * step + 8)))["loss"].backward()
            phase.optimiser.step()
        with torch.no_grad(), evaluating(task.encoder, task.generator):
            error = (task.generator(task.encoder(films)) - films).square().mean()
        assert error < 0.25 * films.var(dim=0, unbiased=False).mean(), task.name


def test_published_presets_are_table_4():
    rows = {
        "gmvae-v3": (1000, 50, False, True, "vgg16", 1),
        "gmvae-v4": (1000, 50, True, True, "vgg16", 1),
        "gmvae-v5": (1000, 50, False, True, "vgg16", 2),
        "gmvae-v6": (2000, 300, True, True, "densenet121", 2),
        "gmvae-v7": (2000, 300, False, False, "vgg16", 2),
        "gmvae-v8": (2000, 300, True, True, "vgg16", 2),
        "fs-gmvae-v3": (1000, 50, True, True, "vgg16", 1),
    }
    decoders = {(14, 6, 3, 3, 3): 1, (128, 64, 32, 16, 3): 2}
    for name, row in rows.items():
        cfg = GMVAE[name]()
        assert (cfg.code_size, cfg.components, cfg.transition, cfg.normalise, cfg.features, decoders[cfg.decoder]) == row
        assert (cfg.resolution, cfg.batch_size, cfg.lr, cfg.betas) == (224, 64, 1e-4, (0.9, 0.999))
    assert set(GMVAE) == {"default", "cpu-small", *rows}
    cfg = VAE["kumar2024"]()
    assert (cfg.resolution, cfg.batch_size, cfg.lr, cfg.betas, cfg.beta, cfg.over) == (224, 64, 1e-4, (0.9, 0.999), 0.1, "mean")
    assert (cfg.recipe.resolution, cfg.recipe.square, cfg.recipe.equalise) == (224, "crop", "histogram")


def test_published_features_come_from_a_file_and_stay(tmp_path):
    cfg = replace(GMVAE["gmvae-v4"](), resolution=32, code_size=4, components=2, kept=4, batch_size=2, decoder=(4, 3), labels=(), images=4)
    with pytest.raises(ConfigError, match=r"frozen features need their weights .*--set imagenet_weights=FILE: vgg16"):
        build_gmvae(cfg, device=CPU, seed=1)
    with pytest.raises(ConfigError, match=r"weights of vgg16 were not found: .*nowhere"):
        build_gmvae(replace(cfg, imagenet_weights=str(tmp_path / "nowhere")), device=CPU, seed=1)
    with pytest.raises(ConfigError, match="imagenet_weights are of use only for features of ImageNet"):
        build_gmvae(replace(SMALL, imagenet_weights="x"), device=CPU, seed=1)
    fresh = build_gmvae(replace(cfg, frozen=False), device=CPU, seed=1).encoder.features
    state = {f"features.{name}": value.contiguous() for name, value in fresh.net.state_dict().items()}
    save_file(state, tmp_path / "vgg16.safetensors")
    task = build_gmvae(replace(cfg, imagenet_weights=str(tmp_path / "vgg16.safetensors")), device=CPU, seed=2)
    assert torch.equal(task.encoder.features.net[0].weight, fresh.net[0].weight)
    trained = {id(parameter) for module in task.phases()[0].modules for parameter in module.parameters()}
    assert not trained & {id(parameter) for parameter in task.encoder.features.parameters()}
    assert {id(parameter) for parameter in task.encoder.transition.parameters()} <= trained


@pytest.mark.parametrize(
    ("task", "change", "says"),
    [
        ("vae", {"over": "max"}, "over must be one of sum, mean: max"),
        ("vae", {"batch_size": 1}, "batch_size must be 2 or more: 1"),
        ("vae", {"beta": -1.0}, "beta must be 0 or more: -1.0"),
        ("vae", {"lr": 0.0}, "lr must be above 0 and under 1: 0.0"),
        ("vae", {"betas": [0.9]}, "betas must be two numbers"),
        ("vae", {"resolution": 24}, "vae.resolution must be a multiple of 16"),
        ("vae", {"equalise": "much"}, "recipe.equalise must be one of"),
        ("gmvae", {"components": 0}, "components must be 1 or more: 0"),
        ("gmvae", {"kept": 2}, "kept must be 300 or more: 2"),
        ("gmvae", {"judge_by": "view="}, "a label is made of COLUMN"),
        ("gmvae", {"features": "resnet"}, "gmvae.features must be one of"),
        ("gmvae", {"storage": "float8"}, "storage must be one of float16, float32: float8"),
    ],
)
def test_senseless_settings_are_refused(task, change, says):
    with pytest.raises(ConfigError) as caught:
        settings_of(task, "cpu-small", change)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_summaries_are_plain_json():
    for task in (build_vae(SMALL_VAE, device=CPU, seed=1), build_gmvae(LABELLED, device=CPU, seed=1)):
        found = json.loads(json.dumps(task.summary()))
        assert found["parameters"]["encoder"] == sum(parameter.numel() for parameter in task.encoder.parameters())
        assert found["gflop_per_image"]["16"] > 0
        assert task.group == task.part_size == task.batch_size == 8
