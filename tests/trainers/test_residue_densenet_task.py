"""`train densenet --codec`: the DGM's part stays as it is, a resume brings all back, the directory needs no codec, bad requests."""

import hashlib
import json
import shutil
from dataclasses import replace

import pytest
import torch
from torchvision.models.densenet import DenseNet

from engine.classify.classifier import load_classifier
from engine.classify.roc import average_precision, balanced_threshold, rates
from engine.encode.codec import load_codec
from engine.labels import LabelSpec
from engine.networks.residue_densenet import ResidueDenseNet
from tests.small_dgm import write_dgm
from tests.trainers.small_densenet import CPU, SETTINGS, SIDE, TINY, HeldOutFilms, batch, run, state, write_source
from trainers.checkpoint import checkpoints, read_checkpoint
from trainers.presets.densenet import PRESETS
from trainers.tasks.densenet import build_densenet


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("source") / "films")


@pytest.fixture(scope="module")
def dgm(tmp_path_factory):
    return write_dgm(tmp_path_factory.mktemp("dgm") / "codec", residue=1.0)


@pytest.fixture(scope="module")
def codec(dgm):
    return load_codec(dgm)


@pytest.fixture
def asked(source, dgm):
    """What all runs here are asked for."""
    return ["--preset", "cpu-small", "--data", source, "--stratify", "--validation", "0.25", *SETTINGS, "--codec", dgm]


def maker_weights(codec):
    """The tensors of E_F and D_F, by their names in a classifier."""
    parts = {"encoder": codec.encoder.network.residue, "decoder": codec.generator.network.residue}
    return {f"maker.{part}.{name}": value for part, network in parts.items() for name, value in network.state_dict().items()}


@pytest.fixture(scope="module")
def trained(codec):
    """A task after four steps."""
    task, held_out = build_densenet(replace(TINY, patience=0), device=CPU, seed=0, codec=codec), HeldOutFilms(40)
    before = {name: value.clone() for name, value in task.network.state_dict().items()}
    (phase,) = task.phases()
    for first in range(0, 32, 8):
        phase.optimiser.zero_grad()
        phase.loss(batch(task, held_out, range(first, first + 8)))["loss"].backward()
        phase.optimiser.step()
    return task, before, held_out


def test_the_makers_weights_are_the_codecs_before_and_after(trained, codec):
    task, before, _ = trained
    after, fixed = task.network.state_dict(), maker_weights(codec)
    assert {name for name in before if name.startswith("maker.")} == set(fixed)
    assert all(torch.equal(before[name], value) and torch.equal(after[name], value) for name, value in fixed.items())
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == set(before) - set(fixed)
    makers = {id(parameter) for parameter in task.network.maker.parameters()}
    (phase,) = task.phases()
    optimised = [parameter for group in phase.optimiser.param_groups for parameter in group["params"]]
    assert not makers & {id(parameter) for parameter in optimised}
    assert not makers & {id(parameter) for module in phase.modules for parameter in module.parameters()}
    assert len(optimised) + len(makers) == len(list(task.network.parameters()))


def test_but_for_the_residues_plane_it_starts_as_without_a_codec(codec):
    one, other = (build_densenet(TINY, device=CPU, seed=4, codec=given).network.state_dict() for given in (codec, None))
    stem = "features.conv0.weight"
    assert torch.equal(one[stem][:, :1], other.pop(stem))
    assert all(torch.equal(one[name], value) for name, value in other.items())


def test_a_resumed_run_ends_as_an_uninterrupted_one(asked, codec, tmp_path, capfd):
    whole, parts, other = tmp_path / "whole", tmp_path / "parts", tmp_path / "other"
    assert run(*asked, "--out", whole, "--images", "40", "--evaluate-images", "0") == 0
    assert run(*asked, "--out", parts, "--images", "16") == 0
    write_dgm(other, seed=1)
    for words in (asked[:-2], [*asked[:-1], other]):
        assert run(*words, "--out", parts, "--images", "40", "--resume") == 3
        assert f"run was begun with other settings: codec was {codec.digest}, is " in capfd.readouterr().err
    assert run(*asked, "--out", parts, "--images", "40", "--resume") == 0
    one, two = state(whole), state(parts)
    assert one.keys() == two.keys()
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert load_classifier(whole).spec.files() == load_classifier(parts).spec.files()
    moments = read_checkpoint(checkpoints(whole / "checkpoints")[-1]).states["optimiser"]["state"]
    network = load_classifier(whole).network
    assert len(moments) == len(list(network.features.parameters())) + len(list(network.classifier.parameters()))


def test_the_directory_needs_no_codec(trained, codec, tmp_path):
    task, _, held_out = trained
    task.on_films([(20, 20), (20, 20)], held_out)
    task.export(tmp_path / "made", {"preset": "tiny"})
    shutil.move(tmp_path / "made", tmp_path / "alone")
    found = load_classifier(tmp_path / "alone")
    assert isinstance(found.network, ResidueDenseNet)
    assert sorted(path.suffix for path in (tmp_path / "alone").iterdir()) == [".json", ".safetensors"]
    assert (found.name, found.recipe, found.spec.licence) == (f"residue-densenet-2-at-{SIDE}", codec.recipe, codec.spec.licence)
    assert found.spec.provenance["residue"] == {"codec": "tiny-dgm", "digest": codec.digest}
    task.network.eval()
    films = held_out.films[:3].clone().requires_grad_()
    torch.testing.assert_close(found.logits(films), task.network(films), rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(found.logits(films).sum(), films)
    assert gradient.abs().amax(dim=(1, 2, 3)).min() > 0
    assert found.features(torch.zeros(1, 1, 2 * SIDE, 2 * SIDE)).shape == (1, found.network.num_features)
    task.network.train()


def test_a_label_is_told_with_its_precision_and_the_rates_of_its_line(trained, tmp_path):
    task, _, held_out = trained
    with torch.no_grad():
        logits = task.network.eval()(held_out.films).numpy()
    marks, asked = held_out.marks.numpy(), replace(task.cfg, threshold="balanced")
    told = task.evaluate(held_out)
    task.on_films([(20, 20), (20, 20)], held_out)
    task.cfg, before = asked, task.cfg
    task.export(tmp_path, {})
    task.cfg = before
    task.network.train()
    found = load_classifier(tmp_path)
    for c, name in enumerate(("bright", "left")):
        about = found.spec.provenance["held_out"]["labels"][name]
        precision, line = average_precision(logits[:, c], marks[:, c]), balanced_threshold(logits[:, c], marks[:, c])
        assert told[f"ap_{name}"] == about["average_precision"] == pytest.approx(precision)
        assert found.thresholds[c] == about["threshold"] == line
        assert {key: about[key] for key in ("sensitivity", "specificity", "precision", "f1")} == rates(logits[:, c], marks[:, c], line)
        assert (about["train_with"], about["train_without"], about["auc"]) == (20, 20, told[f"auc_{name}"])


def test_published_weights_see_the_film_as_before(codec, tmp_path):
    torch.manual_seed(0)
    theirs = DenseNet(4, (1, 1), 6, bn_size=2, num_classes=1000)
    file = tmp_path / "w.pth"
    torch.save(theirs.state_dict(), file)
    task = build_densenet(replace(TINY, imagenet_weights=str(file)), device=CPU, seed=0, codec=codec)
    assert torch.equal(task.network.features.conv0.weight[:, :3], theirs.features.conv0.weight)
    assert torch.equal(task.network.features.denseblock1.denselayer1.conv1.weight, theirs.features.denseblock1.denselayer1.conv1.weight)
    task.export(tmp_path / "out", {})
    about = load_classifier(tmp_path / "out").spec.provenance
    assert about["start"] == f"ImageNet weights sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--set", "network=discriminator", "--discriminator", "x"], 2, "network densenet sees the residues of a codec, leave out --codec"),
        (["--codec", "demo"], 2, "residue maps need a codec with encoder and generator of `latentray train dgm`; its networks: "),
        (["--set", "resolution=64"], 2, "resolution must be that of the codec which makes residues, 32: 64"),
        (["--codec", "nowhere"], 2, "nowhere"),
        (["--set", "threshold=f1"], 2, "threshold must be one of youden, balanced: f1"),
    ],
)
def test_bad_requests_get_one_line_before_training(asked, tmp_path, capfd, words, code, says):
    assert run(*asked, "--out", tmp_path / "out", *words) == code
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("latentray train: ")]
    assert says in line
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def test_dry_run_tells_trained_weights_from_fixed_ones(asked, codec, tmp_path, capfd):
    assert run(*asked, "--out", tmp_path / "out", "--dry-run", "--json") == 0
    told = json.loads(capfd.readouterr().out)
    network = build_densenet(TINY, device=CPU, seed=0, codec=codec).network
    trained = sum(value.numel() for part in (network.features, network.classifier) for value in part.parameters())
    fixed = sum(value.numel() for value in maker_weights(codec).values())
    assert told["parameters"] == {"classifier": trained, "residue": fixed}
    assert told["gflop_per_image"].keys() == {"classifier", "residue"}


def test_tang_2021_is_what_was_published():
    cfg = PRESETS["tang2021"]()
    assert (cfg.blocks, cfg.growth, cfg.stem, cfg.bottleneck) == ((6, 12, 36, 24), 48, 96, 4)
    assert (cfg.resolution, cfg.threshold, cfg.names) == (224, "balanced", ("opacity",))
    (term,) = LabelSpec.parse(cfg.labels[0]).terms
    assert [term.holds(cell) for cell in ("Lung Opacity", "No Lung Opacity / Not Normal", "Normal")] == [True, False, False]
    small = PRESETS["opacity-small"]()
    assert (small.names, small.resolution, small.threshold) == (("opacity",), 64, "balanced")
