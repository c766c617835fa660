"""DGM as a task: its phases, what a resume brings back, its figures, the codec and the head that come out, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine import metrics
from engine.cli import run_verb
from engine.encode.codec import load_codec
from engine.errors import CodecError, ConfigError
from engine.networks.dgm_head import HEAD, load_head
from tests.trainers.packs import write_films, write_manifest
from trainers import train
from trainers.auc import auc
from trainers.catalogue import settings_of
from trainers.loop import Loop
from trainers.losses import dgm as losses
from trainers.presets.dgm import PRESETS, DgmConfig
from trainers.presets.loop import LoopConfig
from trainers.ranks import Ranks
from trainers.task import Batch
from trainers.tasks.dgm import build_dgm
from trainers.tasks.dgm_figures import peak_is_inside

CPU = torch.device("cpu")
TINY = {"resolution": 16, "widths": (6, 8), "blocks": 1, "mlp_width": 8, "scales": 2, "critic_width": 4, "critic_layers": 2}
SMALL = DgmConfig(images=200, abnormal="abnormal: mass", batch=8, lr=1e-3, halve_every=16, critic_noise=0.1, storage="float32", **TINY)


class Films:
    """Films as a function of their number; odd ones are abnormal and have a bright square."""

    def batch(self, numbers, resolution):
        draw = torch.Generator()
        films = torch.empty(len(numbers), 1, resolution, resolution)
        for film, number in zip(films, numbers, strict=True):
            film.uniform_(-1, 0, generator=draw.manual_seed(number))
            if number % 2:
                film[:, 4:8, 4 + number % 5 : 8 + number % 5] += 0.8
        return films.contiguous(memory_format=torch.channels_last)

    def labels(self, numbers):
        return torch.tensor([number % 2.0 for number in numbers])[:, None]

    def ahead(self, numbers, resolution):
        assert resolution == 16

    @property
    def held_out(self):
        return HeldOut(range(1000, 1014))


class HeldOut:
    def __init__(self, numbers):
        self.numbers = numbers

    def __call__(self, resolution):
        return Films().batch(self.numbers, resolution)

    def labels(self):
        return Films().labels(self.numbers)


def build(cfg=SMALL, *, seed=1):
    return build_dgm(cfg, device=CPU, seed=seed)


def trained(folder, *stops, cfg=SMALL):
    """A task after a run with a stop, and everything built anew, at each of `stops`."""
    for sitting, images in enumerate(stops):
        task = build(cfg)
        loop = Loop(task, Films(), LoopConfig(images=images, seed=3), Ranks(device=CPU), folder, settings={})
        if sitting:
            loop.resume()
        loop.run()
    return task


def tensors(task):
    return {
        f"{name}/{key}": value.clone()
        for name, part in task.state().items()
        if isinstance(part, torch.nn.Module)
        for key, value in part.state_dict().items()
    }


def batch(numbers=range(8), purpose="decomposition/0"):
    films = Films()
    return Batch(numbers=numbers, films=films.batch(numbers, 16), seed=3, purpose=purpose, device=CPU, labels=films.labels(numbers))


def test_presets():
    assert set(PRESETS) == {"default", "tang2021", "cpu-small"}
    paper = PRESETS["tang2021"]()
    assert (paper.adversarial, paper.reconstruction, paper.smoothness, paper.lr, paper.weight_decay) == (10, 10, 1, 1e-5, 1e-4)
    assert (paper.betas, paper.halve_every, paper.images) == ((0.5, 0.999), 244_000, 732_000)
    assert (paper.critic_noise, paper.critic_abnormal, paper.critic_lr, paper.critic_norm) == (0, 0, 1, "instance")
    assert (paper.resolution, paper.widths, paper.blocks) == (224, (64, 64, 128, 256, 512), 4)
    assert [paper.lr_at(seen) for seen in (0, 243_999, 244_000, 488_000)] == [1e-5, 1e-5, 5e-6, 2.5e-6]
    assert PRESETS["cpu-small"]().lr_at(0) < 0.01
    assert settings_of("dgm", "cpu-small", {"abnormal": "abnormal: nodule?", "batch": 4}).batch == 4
    assert replace(SMALL, halve_every=0).lr_at(10**9) == SMALL.lr


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"batch": 1}, "batch must be 2 or more: 1"),
        ({"batch": 5}, "batch and part must be even, .*: 5, 0"),
        ({"part": 3}, "batch and part must be even, .*: 8, 3"),
        ({"critic_norm": "batch"}, "critic_norm must be one of instance, none: batch"),
        ({"tv": "none"}, "tv must be one of sum, mean: none"),
        ({"abnormal": "mass"}, "abnormal must be a column of that name, or read like abnormal: TERM, TERM: mass"),
        ({"abnormal": "abnormal: a="}, "COLUMN, COLUMN=VALUE or COLUMN"),
        ({"lr": 0.0}, "lr must be above 0 and under 1: 0.0"),
        ({"critic_lr": 0.0}, "critic_lr must be above 0 and at most 100: 0.0"),
        ({"betas": (0.5,)}, "betas must be two numbers"),
        ({"head": -1.0}, "head must be 0 or more: -1.0"),
    ],
)
def test_senseless_settings_are_refused(change, line):
    with pytest.raises(ConfigError, match=line):
        replace(SMALL, **change)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="films need 32 pixels a side for 3 scales of 3 layers: 16"):
        build(replace(SMALL, scales=3, critic_layers=3))
    with pytest.raises(CodecError, match=r"dgm\.resolution must be 8 or more and a multiple of 4: 18"):
        build(replace(SMALL, resolution=18))


def test_what_the_loop_is_told():
    task = build()
    assert (task.labels, task.alternate, task.group) == (("abnormal: mass",), "abnormal", 2)
    assert (task.resolution, task.batch_size, task.part_size, task.recipe.resolution) == (16, 8, 8, 16)
    task.on_images(16)
    assert {group["lr"] for phase in task.phases() for group in phase.optimiser.param_groups} == {5e-4}
    assert build(replace(SMALL, critic_lr=0.5)).phases()[0].optimiser.param_groups[0]["lr"] == 5e-4


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    one = tensors(build())
    torch.manual_seed(6)
    again, other = tensors(build()), tensors(build(seed=2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["encoder/normal.0.weight"], other["encoder/normal.0.weight"])


def test_equation_6_is_what_is_minimised():
    task = build(replace(SMALL, critic_noise=0.0, adversarial=3.0, reconstruction=5.0, smoothness=7.0, head=11.0))
    given = batch()
    found = task.phases()[1].loss(given)
    films, is_normal = given.pixels, 1 - given.marks[:, 0]
    codes = task.encoder(films)
    normal, residue = task.generator.normal(codes[:, :8]), task.generator.residue(codes[:, 8:])
    both = task.generator.joint(codes[:, :8], codes[:, 8:])
    rebuilt = [losses.reconstruction(made, films) for made in (normal + residue, both)]
    expected = 3 * losses.adversarial(task.discriminator(normal)) + 5 * (rebuilt[0] + rebuilt[1] + losses.blankness(residue, is_normal))
    expected = expected + 7 * losses.total_variation(normal) + 11 * losses.classification(task.head(codes), given.marks[:, 0])
    torch.testing.assert_close(found["loss"], expected)


def test_the_discriminator_s_real_films_are_the_normal_ones():
    task = build(replace(SMALL, critic_noise=0.0))
    given = batch()
    made = task.generator.normal(task.encoder(given.pixels)[:, :8])
    expected = losses.discrimination(task.discriminator(made), task.discriminator(given.pixels[::2]))
    torch.testing.assert_close(task.phases()[0].loss(given)["loss"], expected)


def test_the_discriminator_may_learn_from_abnormal_films_too():
    task = build(replace(SMALL, critic_noise=0.0, critic_abnormal=3.0))
    given = batch()
    found, alone = task.phases()[0].loss(given), build(replace(SMALL, critic_noise=0.0)).phases()[0].loss(given)
    abnormal = losses.recognition(task.discriminator(given.pixels[1::2]))
    assert set(alone) == {"loss"}
    torch.testing.assert_close(found["loss"], alone["loss"] + 3 * abnormal)


def test_noise_is_seen_by_the_discriminator_and_belongs_to_an_image():
    task, still = build(), build(replace(SMALL, critic_noise=0.0))
    whole, without = (float(of.phases()[0].loss(batch())["loss"].detach()) for of in (task, still))
    assert whole != pytest.approx(without, abs=1e-5)
    parts = [float(task.phases()[0].loss(batch(numbers))["loss"].detach()) for numbers in (range(4), range(4, 8))]
    assert sum(parts) / 2 == pytest.approx(whole, rel=1e-5)


def test_a_phase_moves_its_own_networks_alone():
    task = build()
    for phase, moved in zip(task.phases(), ({"discriminator"}, {"encoder", "generator", "head"}), strict=True):
        before = tensors(task)
        phase.optimiser.zero_grad(set_to_none=True)
        phase.loss(batch(purpose=f"{phase.name}/0"))["loss"].backward()
        phase.optimiser.step()
        assert {name.partition("/")[0] for name, value in tensors(task).items() if not torch.equal(value, before[name])} == moved


@pytest.mark.parametrize("stop", [8, 24])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, stop):
    whole, resumed = tensors(trained(tmp_path / "whole", 48)), tensors(trained(tmp_path / "parts", stop, 48))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_parts_of_a_step_add_up_to_it(tmp_path):
    whole, parts = trained(tmp_path / "whole", 8), trained(tmp_path / "parts", 8, cfg=replace(SMALL, part=2))
    for phase, other in zip(whole.phases(), parts.phases(), strict=True):
        moments = [[value["exp_avg"] for value in optimiser.state.values()] for optimiser in (phase.optimiser, other.optimiser)]
        for one, two in zip(*moments, strict=True):
            torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-6)


def test_figures_are_those_of_held_out_films():
    task = build()
    films, is_abnormal = Films().held_out(16), Films().held_out.labels()[:, 0] > 0
    assert task.samples() is None
    found = task.evaluate(Films().held_out)
    with torch.no_grad():
        codes = task.encoder(films)
        normal, residue = task.generator.decompose(codes)
    sizes = residue.abs().mean((1, 2, 3))
    assert found["psnr"] == pytest.approx(float(metrics.psnr(metrics.to_unit(normal + residue), metrics.to_unit(films)).mean()), abs=1e-3)
    assert found["residue_normal"] == pytest.approx(float(sizes[::2].mean()), rel=1e-4)
    assert found["residue_abnormal"] == pytest.approx(float(sizes[1::2].mean()), rel=1e-4)
    assert found["residue_ratio"] == pytest.approx(found["residue_normal"] / found["residue_abnormal"], rel=1e-4)
    assert found["auc"] == auc(task.head(codes), is_abnormal)
    assert found["judged_films"] == 14
    rows = task.samples()
    assert rows.shape == (28, 1, 16, 16)
    assert torch.equal(rows[0::4], films[1::2])
    torch.testing.assert_close(rows[1::4], normal[1::2])
    torch.testing.assert_close(rows[2::4], residue[1::2])
    torch.testing.assert_close(rows[3::4], (normal + residue)[1::2].clamp(-1, 1))


def test_figures_of_one_class_alone():
    task = build(replace(SMALL, head=0.0))
    assert task.evaluate(None) == {}
    assert task.evaluate(HeldOut(range(0))) == {}
    assert set(task.evaluate(HeldOut(range(0, 8, 2)))) == {"psnr", "judged_films", "residue_normal"}
    assert task.samples() is None
    assert set(task.evaluate(HeldOut(range(4)))) == {"psnr", "judged_films", "residue_normal", "residue_abnormal", "residue_ratio"}


@pytest.mark.parametrize("reconstruct", ["sum", "joint"])
def test_a_codec_and_a_head_come_out(tmp_path, reconstruct):
    task = trained(tmp_path, 16, cfg=replace(SMALL, reconstruct=reconstruct))
    (tmp_path / "train.json").write_text("{}")  # as the run leaves it
    task.export(tmp_path, {"preset": "tiny"})
    codec, films = load_codec(tmp_path), Films().held_out(16)
    assert codec.spec.code.dims == ("channel", "y", "x")
    assert codec.code_shape == (16, 4, 4)
    assert codec.gauge == "none"
    assert codec.spec.provenance == {"task": "dgm", "abnormal": "abnormal: mass", "preset": "tiny"}
    with torch.no_grad():
        codes = codec.encoder.network(films)
        torch.testing.assert_close(codes, task.encoder(films))
        normal, residue = codec.generator.network.decompose(codes)
        torch.testing.assert_close(residue, task.generator.residue(codes[:, 8:]))
        whole = normal + residue if reconstruct == "sum" else task.generator.joint(codes[:, :8], codes[:, 8:])
        torch.testing.assert_close(codec.generate(codes), whole.clamp(-1, 1))
        head = load_head(tmp_path / HEAD, device=CPU)
        torch.testing.assert_close(head.probability(codes), torch.sigmoid(task.head(codes)))
    assert head.settings.label == "abnormal: mass"
    assert (codec.generator.network.joint is None) == (reconstruct == "sum")


def test_without_a_head_there_is_no_file_of_one(tmp_path):
    task = build(replace(SMALL, head=0.0))
    task.export(tmp_path / "codec", {})
    assert not (tmp_path / "codec" / HEAD).exists()
    assert "head" not in task.state()
    assert "head" not in task.phases()[1].loss(batch())


def test_summary_is_plain_json():
    found = json.loads(json.dumps(build().summary()))
    assert set(found["parameters"]) == {"encoder", "generator", "discriminator", "head"}
    assert found["parameters"]["head"] == 9
    assert all(count > 0 for count in found["gflop_per_image"].values())


def test_it_learns_which_part_of_a_film_is_abnormal(tmp_path):
    task = build(replace(SMALL, lr=8e-3, halve_every=0, adversarial=1.0, head=3.0, critic_noise=0.0))
    before = task.evaluate(Films().held_out)
    Loop(task, Films(), LoopConfig(images=640, seed=3), Ranks(device=CPU), tmp_path, settings={}).run()
    after = task.evaluate(Films().held_out)
    assert after["auc"] == 1
    assert after["psnr"] > before["psnr"] + 6
    assert after["residue_ratio"] < 0.5 < before["residue_ratio"]
    numbers = range(1001, 1041, 2)
    with torch.no_grad():
        _, residues = task.generator.decompose(task.encoder(Films().batch(numbers, 16)))
    boxes = [(4 + number % 5, 4, 8 + number % 5, 8) for number in numbers]
    found = [peak_is_inside(residue[0], box) for residue, box in zip(residues, boxes, strict=True)]
    assert sum(found) >= 0.7 * len(found)  # by chance it were 1 in 16


@pytest.fixture
def source(tmp_path):
    folder = write_films(tmp_path / "films", 24)
    return write_manifest(folder, {"mass": [str(film % 2) for film in range(24)], "never": ["0"] * 24, "some": ["1", ""] * 12})


def run(source, out, capsys, *settings):
    flags = [part for name, value in {**TINY, "storage": "float32"}.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    argv = ["dgm", "--preset", "cpu-small", "--data", str(source), "--out", str(out), "--images", "16", *flags, *settings]
    code = run_verb("train", train, argv)
    return code, capsys.readouterr().err


def test_the_verb_trains_from_a_manifest(source, tmp_path, capsys):
    code, said = run(source, tmp_path / "out", capsys, "--set", "abnormal=abnormal: mass", "--threads", str(torch.get_num_threads()))
    assert code == 0, said
    codec = load_codec(tmp_path / "out")
    assert codec.spec.provenance["data"]["labels"]["abnormal"] > 0
    assert np.isfinite(codec.spec.provenance["figures"]["psnr"])
    assert (tmp_path / "out" / HEAD).exists()


@pytest.mark.parametrize(
    ("abnormal", "code", "line"),
    [
        ("abnormal: never", 2, "label abnormal cannot be learned, not one of"),
        ("abnormal", 2, "source has no such column for a label, it has mass, never, some: abnormal"),
        ("abnormal: some", 2, "label abnormal (column some) says neither yes nor no for 12 of 24 films"),
        ("mass", 2, "abnormal must be a column of that name, or read like abnormal: TERM, TERM: mass"),
    ],
)
def test_films_that_cannot_be_learned_from_are_refused(source, tmp_path, capsys, abnormal, code, line):
    found, said = run(source, tmp_path / "out", capsys, "--set", f"abnormal={abnormal}")
    assert line in said
    assert found == code
    assert not list((tmp_path / "out").glob("checkpoints/*"))
