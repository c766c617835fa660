"""Classifiers as a task: what is minimised, the plateau, what a resume brings back, the directory that comes out, bad requests."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models.densenet import DenseNet

from engine.classify.classifier import load_classifier
from engine.classify.roc import auc
from engine.cli import run_verb
from engine.errors import ConfigError, TrainError
from engine.networks.densenet import DenseNetClassifier, DenseNetSettings
from engine.networks.pggan_discriminator import PgganDiscriminator
from tests.trainers.small_densenet import CPU, SETTINGS, SIDE, TINY, HeldOutFilms, batch, run, state, write_source
from trainers import train
from trainers.checkpoint import checkpoints, read_checkpoint
from trainers.losses.weighted_cross_entropy import class_weights
from trainers.nets.discriminator_classifier import DiscriminatorClassifier
from trainers.nets.discriminator_file import save_discriminator
from trainers.nets.imagenet_densenet import load_imagenet
from trainers.nets.pggan_discriminator import DiscriminatorSettings, GrowingDiscriminator
from trainers.plateau import Plateau
from trainers.presets.densenet import PRESETS
from trainers.task import KnowsFilms
from trainers.tasks.densenet import build_densenet


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("source") / "films")


@pytest.fixture(scope="module")
def discriminator(tmp_path_factory):
    file = tmp_path_factory.mktemp("gan") / "discriminator.safetensors"
    torch.manual_seed(2)
    save_discriminator(file, GrowingDiscriminator(DiscriminatorSettings(channels=(6, 5, 4, 3))), 3)
    return str(file)


@pytest.mark.parametrize("network", ["densenet", "discriminator"])
@pytest.mark.parametrize("stop", [24, 40])
def test_a_resumed_run_ends_as_an_uninterrupted_one(source, discriminator, tmp_path, network, stop):
    """Stopped between judgements of the plateau and at one, evaluated at other moments; the learning rate is cut on the way."""
    again = [*("--preset", "cpu-small", "--data", source, "--augment", "segal2021", "--stratify", "--validation", "0.25"), *SETTINGS]
    if network == "discriminator":
        again += ["--set", "network=discriminator", "--discriminator", discriminator, "--set", "part=4"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(*again, "--out", whole, "--images", "96", "--checkpoint-images", "8") == 0
    assert run(*again, "--out", parts, "--images", stop, "--evaluate-images", "8") == 0
    assert run(*again, "--out", parts, "--images", "96", "--resume") == 0
    one, other = state(whole), state(parts)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    plateaus = [read_checkpoint(checkpoints(out / "checkpoints")[-1]).states["plateau"] for out in (whole, parts)]
    assert plateaus[0] == plateaus[1]
    assert plateaus[0]["cuts"] > 0
    one, other = load_classifier(whole), load_classifier(parts)
    assert one.spec.files() == other.spec.files()
    assert one.thresholds == other.thresholds


def test_what_a_run_leaves(source, tmp_path):
    assert (
        run("--preset", "cpu-small", "--data", source, "--out", tmp_path, "--images", "32", "--stratify", "--validation", "0.25", *SETTINGS)
        == 0
    )
    found = load_classifier(tmp_path)
    assert (found.labels, found.resolution) == (("bright", "left"), SIDE)
    assert found.logits(torch.rand(2, 1, 3 * SIDE, 3 * SIDE)).shape == (2, 2)
    about = found.spec.provenance
    assert (about["task"], about["preset"], about["images"]) == ("densenet", "cpu-small", 32)
    judged = about["held_out"]["labels"]["bright"]
    assert (judged["train_with"], judged["train_without"]) == (12, 12)
    assert judged["low"] <= judged["auc"] <= judged["high"]
    assert judged["threshold"] == found.thresholds[0]
    assert about["held_out"]["films"] == 8
    row = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()][-1]
    assert row["macro_auc"] == pytest.approx((row["auc_bright"] + row["auc_left"]) / 2)
    assert row["macro_auc"] == about["held_out"]["macro"]["auc"]
    assert row["macro_auc_low"] <= row["macro_auc"] <= row["macro_auc_high"]


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["--set", 'labels=["unsure"]'], 2, "label unsure (column unsure) says neither yes nor no for 1 of 32 films: film05"),
        (["--set", 'labels=["never"]'], 2, "label never cannot be learned, not one of"),
        (["--set", 'labels=["gout"]'], 2, "source has no such column for a label, it has patient, bright, side, unsure, never: gout"),
        (["--set", 'labels=["bright","bright"]'], 2, "labels must have names of their own: bright, bright"),
        (["--set", "labels=[]"], 2, "labels must name one column or more"),
        (["--set", 'labels=["a="]'], 2, "a label is made of COLUMN, COLUMN=VALUE or COLUMN?: a="),
        (["--set", "network=resnet"], 2, "network must be one of densenet, discriminator: resnet"),
        (["--set", "network=discriminator"], 2, "network needs --discriminator: discriminator"),
        (["--discriminator", "{discriminator}"], 2, "only network discriminator starts from --discriminator: densenet"),
        (["--set", "network=discriminator", "--discriminator", "{source}"], 2, "discriminator cannot be read"),
        (
            ["--set", "imagenet_weights=nowhere.pth"],
            2,
            "weights of densenet were not found; name the file with --set imagenet_weights=FILE",
        ),
        (["--set", "imagenet_weights={source}"], 2, "weights file is damaged, or holds more than plain tensors"),
        (["--set", "resolution=16", "--set", "blocks=[1,1,1,1]"], 2, "resolution must be 32 or more for 4 blocks: 16"),
        (["--set", "batch=1"], 2, "batch must be 2 or more, since batch norm looks at several films: 1"),
        (["--set", "part=2"], 2, "part must be 0, or for a discriminator divide the batch of 8: 2"),
        (["--set", "cut=0"], 2, "cut must be above 0 and under 1: 0"),
    ],
)
def test_bad_requests_get_one_line_before_training(source, discriminator, tmp_path, capfd, argv, code, says):
    words = [word.format(source=source, discriminator=discriminator) if word[0] != "l" else word for word in argv]
    assert run("--preset", "cpu-small", "--data", source, "--out", tmp_path / "out", *SETTINGS, *words) == code
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("latentray train: ")]
    assert says in line
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def test_other_tasks_take_no_stratify(source, tmp_path, capfd):
    assert run_verb("train", train, ["pggan", "--preset", "cpu-small", "--data", source, "--out", str(tmp_path), "--stratify"]) == 2
    assert "--stratify needs a task that learns from labels" in capfd.readouterr().err


def test_segal_2021_is_what_was_published():
    cfg = PRESETS["segal2021"]()
    assert (cfg.blocks, cfg.growth, cfg.stem, cfg.bottleneck) == ((6, 12, 24, 16), 32, 64, 4)
    assert (cfg.lr, cfg.cut, cfg.horizon, cfg.warm_up, cfg.imagenet_weights, cfg.bootstrap) == (1e-3, 0.1, 0, 0, "hub", 10_000)
    assert len(cfg.names) == 15
    assert {"No Finding", "Hernia", "Pleural_Thickening"} <= set(cfg.names)


def test_weights_of_the_loss_are_those_of_the_films_that_train():
    task, held_out = build_densenet(TINY, device=CPU, seed=0), HeldOutFilms()
    assert isinstance(task, KnowsFilms)
    task.on_films([(1, 3), (2, 2)], held_out)
    assert torch.equal(task.weights, class_weights([(1, 3), (2, 2)]))
    torch.manual_seed(4)  # dropout draws: the same draws, the same loss
    found = task.loss(batch(task, held_out))["loss"]
    torch.manual_seed(4)
    p, y = torch.sigmoid(task.network(held_out.films[:8])).detach().double(), held_out.marks[:8]
    by_hand = -(torch.tensor([4.0, 2.0]) * y * p.log() + torch.tensor([4 / 3, 2.0]) * (1 - y) * (1 - p).log()).mean()
    assert found.detach().item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_a_step_of_a_densenet_is_never_divided():
    task = build_densenet(TINY, device=CPU, seed=0)
    assert (task.group, task.part_size, task.batch_size) == (8, 8, 8)


def test_the_plateau_lowers_the_learning_rate():
    cfg = replace(TINY, patience=2, cut=0.1, horizon=0)
    task = build_densenet(cfg, device=CPU, seed=0)
    task.on_films([(1, 1), (1, 1)], HeldOutFilms())
    rates = []
    for seen in range(0, 160, 8):
        task.on_images(seen)
        rates.append(task.phases()[0].optimiser.param_groups[0]["lr"])
        task.phases()[0].after()  # no step is made, so the figure stands still: judged at 16, 32, 48 ...
    assert rates[0] == rates[5] == pytest.approx(1e-2)  # until image 48 the second standstill has not come
    assert rates[6] == rates[9] == pytest.approx(1e-3)
    assert rates[10] == pytest.approx(1e-4)
    assert rates[14] == rates[19] == pytest.approx(1e-5), "three cuts at most"


def test_a_plateau_is_its_state():
    one, other = Plateau(patience=2, cut=0.5, most=2), Plateau(patience=2, cut=0.5, most=2)
    factors = []
    for number, figure in enumerate((0.5, 0.6, 0.6, float("nan"), 0.55, 0.7, 0.7, 0.7, 0.7, 0.7)):
        one.judge(figure)
        factors.append(one.factor)
        fresh = Plateau(patience=2, cut=0.5, most=2)
        fresh.load_state_dict(json.loads(json.dumps(other.state_dict())))
        other = fresh
        other.judge(figure)
        assert other.state_dict() == one.state_dict(), number
    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    never = Plateau(patience=0)
    for _ in range(9):
        never.judge(0.5)
    assert never.factor == 1


def test_figures_are_those_of_the_held_out_films():
    task, held_out = build_densenet(TINY, device=CPU, seed=0), HeldOutFilms()
    found = task.evaluate(held_out)
    with torch.no_grad():
        logits = task.network.eval()(held_out.films).numpy()
    marks = held_out.marks.numpy()
    assert found["auc_bright"] == pytest.approx(auc(logits[:, 0], marks[:, 0]))
    assert found["macro_auc"] == pytest.approx(np.mean([auc(logits[:, c], marks[:, c]) for c in (0, 1)]))
    held_out.marks[:, 1] = 1
    assert {name for name in task.evaluate(held_out) if "left" in name} == set()
    held_out.films, held_out.marks = held_out.films[:0], held_out.marks[:0]
    assert task.evaluate(held_out) == task.evaluate(None) == {}


def test_without_held_out_films_thresholds_are_zero(tmp_path):
    task = build_densenet(TINY, device=CPU, seed=0)
    task.export(tmp_path, {"preset": "tiny"})
    found = load_classifier(tmp_path)
    assert found.thresholds == (0.0, 0.0)
    assert found.spec.provenance["held_out"]["macro"] == {"auc": None, "low": None, "high": None}


@pytest.mark.parametrize("network", ["densenet", "discriminator"])
def test_it_learns_what_gray_tells(discriminator, network):
    cfg = replace(TINY, labels=("bright",), dropout=0.0, patience=0, network=network)
    task = build_densenet(cfg, device=CPU, seed=0, discriminator=discriminator if network == "discriminator" else None)
    held_out = HeldOutFilms(64)
    held_out.marks = held_out.marks[:, :1]
    task.on_films([(1, 1)], held_out)
    (phase,) = task.phases()
    for step in range(40):
        first = step * 8 % 48
        phase.optimiser.zero_grad()
        phase.loss(batch(task, held_out, range(first, first + 8)))["loss"].backward()
        phase.optimiser.step()
    assert task.evaluate(held_out)["macro_auc"] > 0.95


@pytest.mark.parametrize("network", ["densenet", "discriminator"])
def test_dry_run_says_what_it_takes(source, discriminator, tmp_path, capfd, network):
    more = ["--set", "network=discriminator", "--discriminator", discriminator] if network == "discriminator" else []
    assert run("--preset", "cpu-small", "--data", source, "--out", tmp_path / "out", *SETTINGS, *more, "--dry-run", "--json") == 0
    told = json.loads(capfd.readouterr().out)
    assert not (tmp_path / "out").exists()
    assert told["parameters"]["classifier"] > 100
    assert told["gflop_per_image"]["classifier"] > 0
    assert [stage["resolution"] for stage in told["stages"]] == [SIDE]


def test_weights_depend_on_the_seed_alone():
    one, again, other = (build_densenet(TINY, device=CPU, seed=seed).network.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


def test_a_discriminator_judges_as_it_is_stored(discriminator, tmp_path):
    """The plain network of the exported directory gives the logits of the equalised one, and all but its last layer is the file's."""
    cfg = replace(TINY, network="discriminator", part=4)
    task, other = (build_densenet(cfg, device=CPU, seed=seed, discriminator=discriminator) for seed in (0, 1))
    assert (task.resolution, task.group, task.part_size) == (32, 4, 4)
    task.export(tmp_path, {})
    found = load_classifier(tmp_path)
    assert isinstance(found.network, PgganDiscriminator)
    assert found.spec.provenance["start"].startswith("discriminator sha256:")
    films = torch.rand(3, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(found.logits(films), task.network(films), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.features(films), task.network.embed(films), rtol=1e-4, atol=1e-5)
        assert torch.equal(task.network.embed(films), other.network.embed(films))
        assert not torch.equal(task.network(films), other.network(films))
    assert task.summary()["parameters"]["classifier"] == sum(value.numel() for value in found.network.parameters())


def test_a_discriminator_keeps_its_score_when_the_layer_is_put_back():
    torch.manual_seed(0)
    original = GrowingDiscriminator(DiscriminatorSettings(channels=(6, 5, 4)))
    films = torch.rand(2, 1, 16, 16) * 2 - 1
    score, last = original(films, 2, group=1), original.linear
    network = DiscriminatorClassifier(original, 1)
    network.linear = last
    torch.testing.assert_close(network(films), score[:, None])


def test_a_file_without_discriminator_is_refused(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "d.safetensors")
    with pytest.raises(TrainError, match="holds no discriminator of this trainer"):
        build_densenet(replace(TINY, network="discriminator"), device=CPU, seed=0, discriminator=str(tmp_path / "d.safetensors"))


@pytest.mark.parametrize("old_names", [False, True])
def test_imagenet_weights_are_taken_but_for_the_last_layer(tmp_path, old_names):
    """The published file names layers as torchvision did before 2018: norm.1 where it now says norm1."""
    torch.manual_seed(0)
    theirs = DenseNet(4, (1, 1), 6, bn_size=2, num_classes=1000).eval()
    name_of = (lambda name: name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.")) if old_names else str
    torch.save({name_of(name): value for name, value in theirs.state_dict().items()}, tmp_path / "densenet121-a639ec97.pth")
    network = DenseNetClassifier(DenseNetSettings(blocks=(1, 1), growth=4, stem=6, bottleneck=2, in_channels=3, classes=2)).eval()
    last = network.classifier.weight.clone()
    load_imagenet(network, str(tmp_path))
    assert torch.equal(network.classifier.weight, last)
    planes = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(network.features(planes), theirs.features(planes))
    task = build_densenet(replace(TINY, imagenet_weights=str(tmp_path / "densenet121-a639ec97.pth")), device=CPU, seed=0)
    assert task.network.settings.in_channels == 3
    task.export(tmp_path / "out", {})
    digest = hashlib.sha256((tmp_path / "densenet121-a639ec97.pth").read_bytes()).hexdigest()
    assert load_classifier(tmp_path / "out").spec.provenance["start"] == f"ImageNet weights sha256:{digest}"
    assert torch.equal(task.network.features.conv0.weight, theirs.features.conv0.weight)


def test_imagenet_weights_of_another_network_are_refused(tmp_path):
    torch.save(DenseNet(4, (1,), 6, bn_size=2).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match="weights file has no tensor"):
        build_densenet(replace(TINY, imagenet_weights=str(tmp_path / "w.pth")), device=CPU, seed=0)
