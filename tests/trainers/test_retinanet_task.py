"""Detectors as a task: learning, resuming, the directory that comes out, films with residue maps, bad requests."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import resnet50

from engine.cli import run_verb
from engine.detect.average_precision import average_precisions
from engine.detect.detector import load_detector
from engine.encode.codec import load_codec
from engine.errors import CodecError
from engine.networks.residue_maker import residue_maker_of
from engine.networks.retinanet import RetinaNetDetector, RetinaNetSettings
from tests.small_dgm import write_dgm
from tests.trainers.small_films import write_films
from trainers import train
from trainers.checkpoint import checkpoints
from trainers.nets.imagenet_resnet import load_imagenet_resnet
from trainers.presets.retinanet import PRESETS, RetinanetConfig
from trainers.task import Batch, WantsBoxes
from trainers.tasks.retinanet import build_retinanet

CPU = torch.device("cpu")
SIDE = 32
CHANGES = {"resolution": SIDE, "widths": [8, 8], "pyramid": 8, "batch": 6, "part": 3, "warm_up": 12, "horizon": 48}
SETTINGS = [word for name, value in CHANGES.items() for word in ("--set", f"{name}={json.dumps(value)}")]
PHANTOMS = f"phantom:16?seed=3&size={SIDE}"
TINY = replace(PRESETS["cpu-small"](), resolution=SIDE, widths=(8, 8), pyramid=8, batch=6)


def run(*argv):
    threads = torch.get_num_threads()
    try:
        return run_verb("train", train, ["retinanet", "--preset", "cpu-small", *map(str, argv), *SETTINGS, "--threads", "1"])
    finally:
        torch.set_num_threads(threads)


class Squares:
    """Films of noise with a bright square, and where it is; every third film has none."""

    def __init__(self, n):
        draw = np.random.default_rng(0)
        self.films = torch.from_numpy(draw.uniform(-1, -0.6, (n, 1, SIDE, SIDE)).astype(np.float32))
        self.places = []
        for film in range(n):
            (x, y), side = draw.integers(0, SIDE - 12, 2).tolist(), int(draw.integers(7, 12))
            self.films[film, 0, y : y + side, x : x + side] += 1.2 if film % 3 else 0
            self.places.append(torch.tensor([[x, y, x + side, y + side]] if film % 3 else []).view(-1, 4).float() / SIDE)

    def __call__(self, resolution, *, limit=256):
        return self.films[:limit]

    def boxes(self, *, limit=256):
        return self.places[:limit]


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    return write_dgm(tmp_path_factory.mktemp("dgm") / "codec")


@pytest.fixture(scope="module")
def request_of(codec, tmp_path_factory):
    """What a run on films with their residue maps is asked: 16 films of 64x64, two of three with a box or two."""
    folder = tmp_path_factory.mktemp("films")
    films = write_films(folder, 16)
    rows = [f"film{film:02},{x},10,{x + 14},22" for film in range(16) for x in (8, 30)[: film % 3]]
    table = tmp_path_factory.mktemp("boxes") / "boxes.csv"
    table.write_text("\n".join(["id,x0,y0,x1,y1", *rows]))
    return ["--data", films, "--set", f"boxes={table}", "--validation", "0.3", "--augment", "mirror", "--codec", str(codec)]


@pytest.fixture(scope="module")
def whole(request_of, tmp_path_factory):
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert run(*request_of, "--out", out, "--images", "36") == 0
    return out


def test_a_resumed_run_ends_as_an_uninterrupted_one(request_of, whole, tmp_path):
    assert run(*request_of, "--out", tmp_path, "--images", "18", "--evaluate-images", "6") == 0
    assert run(*request_of, "--out", tmp_path, "--images", "36", "--resume") == 0
    one, other = (load_file(checkpoints(out / "checkpoints")[-1]) for out in (whole, tmp_path))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert load_detector(whole).spec.files() == load_detector(tmp_path).spec.files()


def test_what_a_run_leaves(whole, codec):
    found = load_detector(whole)
    assert (found.name, found.spec.finding, found.resolution) == ("retinanet-residue-opacity-at-32", "opacity", SIDE)
    about = found.spec.provenance
    assert (about["task"], about["preset"], about["images"]) == ("retinanet", "cpu-small", 36)
    boxes = about["data"]["boxes"]
    assert boxes["train"]["boxes"] + boxes["validation"]["boxes"] == 15
    assert "boxes" not in about["changes"], "a path of one machine"
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert {"detector/loss", "detector/focal", "detector/box"} <= set().union(*rows)
    assert rows[-1]["judged_boxes"] == boxes["validation"]["boxes"]
    assert 0 <= rows[-1]["ap"] <= rows[-1]["ap40"] <= 1
    theirs = load_codec(codec)
    expected = residue_maker_of(theirs.encoder.network, theirs.generator.network).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.network.residue.state_dict().items()), "it did not learn"


def test_squares_are_found():
    """A tiny network learns where bright squares are, in pixels of films of any size."""
    cfg = replace(TINY, batch=12, lr=3e-3, warm_up=0, horizon=0, least_score=0.05)
    task, squares = build_retinanet(cfg, device=CPU, seed=0), Squares(60)
    (phase,) = task.phases()
    before = task.evaluate(squares)["ap40"]
    task.on_images(0)
    for step in range(60):
        numbers = range(12 * (step % 4), 12 * (step % 4) + 12)
        part = slice(numbers.start, numbers.stop)
        batch = Batch(numbers=numbers, films=squares.films[part], boxes=squares.places[part], seed=1, purpose="p", device=CPU)
        phase.optimiser.zero_grad()
        phase.loss(batch)["loss"].backward()
        phase.optimiser.step()
    figures = task.evaluate(squares)
    assert before < 0.2
    assert figures["ap40"] > 0.5
    assert (figures["judged_films"], figures["judged_boxes"]) == (60.0, 40.0)
    task.network.eval()
    with torch.no_grad():
        found = [(boxes.numpy(), scores.numpy()) for boxes, scores in task.network(squares.films)]
    assert figures["ap"] == average_precisions(found, [(boxes * SIDE).numpy() for boxes in squares.places])["ap"]


def test_a_detector_tells_pixels_of_the_film_it_is_given(whole):
    found = load_detector(whole)
    films = torch.rand(3, 1, 4 * SIDE, 4 * SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    small = torch.nn.functional.avg_pool2d(films, 4)
    for (boxes, scores), (expected, same) in zip(found.detect(films), found.detect(small), strict=True):
        torch.testing.assert_close(boxes, expected * 4)
        assert torch.equal(scores, same)
    tall = found.detect(torch.rand(1, 1, 50, 2 * SIDE) * 2 - 1)[0][0]
    assert (tall[:, [0, 2]] <= 2 * SIDE).all()
    assert (tall[:, [1, 3]] <= 50).all()


def test_it_wants_boxes():
    task = build_retinanet(TINY, device=CPU, seed=0)
    assert isinstance(task, WantsBoxes)
    assert (task.group, task.part_size, task.labels) == (1, 6, ())


def test_sgd_or_adam():
    assert isinstance(build_retinanet(TINY, device=CPU, seed=0).phases()[0].optimiser, torch.optim.AdamW)
    sgd = build_retinanet(replace(TINY, optimiser="sgd", momentum=0.8), device=CPU, seed=0).phases()[0].optimiser
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.param_groups[0]["momentum"] == 0.8


def test_tang_2021_is_what_was_published():
    cfg = PRESETS["tang2021"]()
    assert (cfg.backbone, cfg.resolution, cfg.batch, cfg.images) == ("resnet50", 224, 8, 25 * 2500 * 8)
    assert (cfg.optimiser, cfg.lr, cfg.momentum, cfg.weight_decay) == ("sgd", 0.01, 0.9, 1e-4)
    assert cfg.lr_at(0) == cfg.lr_at(cfg.images) == 0.01


def test_imagenet_weights_fill_all_planes_but_the_residues(tmp_path):
    residue = {"resolution": 64, "widths": [4, 6]}
    with torch.device("meta"):
        theirs = resnet50(weights=None)
        network = RetinaNetDetector(RetinaNetSettings(resolution=64, norm="frozen", in_channels=3, residue=residue))
    state = {
        name: torch.full(value.shape, float(k))
        for k, (name, value) in enumerate(theirs.state_dict().items())
        if value.dtype.is_floating_point
    }
    save_file(state, tmp_path / "resnet50-0676ba61.safetensors")
    body = network.backbone.body.to_empty(device="cpu")
    with torch.no_grad():
        before = body.conv1.weight.fill_(-1).clone()
    assert load_imagenet_resnet(body, str(tmp_path / "resnet50-0676ba61.safetensors")).startswith("sha256:")
    assert torch.equal(body.conv1.weight[:, :3], state["conv1.weight"])
    assert torch.equal(body.conv1.weight[:, 3:], before[:, 3:])
    assert torch.equal(body.layer4[2].bn3.running_var, state["layer4.2.bn3.running_var"])


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--set", "boxes=nowhere.csv"], "table of boxes cannot be read"),
        (["--set", "boxes="], "boxes must be truth, for phantoms, or the path of a table: none"),
        (["--set", "resolution=64", "--codec", "{codec}"], "has another resolution (32) than the detector: 64"),
        (["--codec", "demo"], "residue maps need a codec with encoder and generator of `latentray train dgm`"),
        (["--augment", "light"], "boxes follow mirror images alone, so --augment must be none or mirror: light"),
        (["--set", "optimiser=lion"], "optimiser must be one of sgd, adam: lion"),
        (["--set", "momentum=1"], "momentum must be 0 or more and under 1: 1"),
        (["--set", "imagenet_weights=hub"], "imagenet_weights are those of resnet50, the backbone is another: plain"),
        (["--set", "anchors=[4,8,16]"], "as many widths as anchors or more"),
        (["--discriminator", "x"], "retinanet takes no --discriminator: x"),
    ],
)
def test_bad_requests_get_one_line_before_training(codec, tmp_path, capfd, argv, says):
    words = [word.format(codec=codec) if word == "{codec}" else word for word in argv]
    threads = torch.get_num_threads()
    try:
        argv = [
            "retinanet",
            "--preset",
            "cpu-small",
            "--data",
            PHANTOMS,
            "--out",
            str(tmp_path / "out"),
            *SETTINGS,
            *words,
            "--threads",
            "1",
        ]
        assert run_verb("train", train, argv) == 2
    finally:
        torch.set_num_threads(threads)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("latentray train: ")]
    assert says in line
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def test_a_detector_that_does_not_fit_is_refused(whole, tmp_path):
    with pytest.raises(CodecError, match="there is no such detector directory"):
        load_detector(tmp_path / "nowhere")
    about = json.loads((whole / "detector.json").read_text())
    for change, says in (
        ({"finding": "two words"}, "finding must be letters, digits"),
        ({"colour": 1}, "detector.json has unknown fields: colour"),
        ({"recipe": about["recipe"] | {"resolution": 64}}, "recipe.resolution is 64, but the network has another: 32"),
    ):
        (tmp_path / "detector.json").write_text(json.dumps(about | change))
        (tmp_path / about["network"]["weights"]).write_bytes((whole / about["network"]["weights"]).read_bytes())
        with pytest.raises(CodecError, match=says):
            load_detector(tmp_path)
    with pytest.raises(CodecError, match=r"detector .* takes films \[N, 1, H, W\]: \[1, 32, 32\]"):
        load_detector(whole).detect(torch.zeros(1, SIDE, SIDE))


def test_settings_are_a_record():
    assert isinstance(PRESETS["default"](), RetinanetConfig)
    assert PRESETS["default"]().lr_at(500_000) == pytest.approx(0.0002)
