"""All systems on the same films: what rows and pictures hold, what codecs tell of themselves, and what is not there."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
from pathlib import Path

import cv2
import pytest
import torch
from safetensors.numpy import load_file

from benchmarks.commands import StepFailed
from benchmarks.inputs import Options, classifier_directory, codec_directories, film_files, film_sets, line_up
from benchmarks.models.codec_facts import images_seen, num_parameters
from benchmarks.models.system_quality import judge
from benchmarks.models.system_rates import Rates, measure
from benchmarks.models.systems import compare
from benchmarks.report import Row
from engine.classify.classifier import save_classifier
from engine.classify.classifier_spec import ClassifierSpec
from engine.encode.codec import load_codec
from engine.encode.codec_spec import NetworkSpec
from engine.encode_dataset import encode_dataset
from engine.errors import ConfigError
from engine.features import FeatureNetwork, load_features
from engine.metrics import PSNR_CAP
from engine.networks.densenet import DenseNetClassifier, DenseNetSettings
from engine.quality import STORED, mean_by_method
from engine.quality import measure as measure_quality
from engine.recipe import PixelRecipe
from engine.replay import Replay
from engine.report import TILE
from tests.small_dgm import write_dgm
from tests.small_pggan import CODE_SIZE, make_pggan_codec
from trainers import train
from trainers.catalogue import TASKS, settings_of
from trainers.presets.pca import PRESETS as PCA_PRESETS

MAKE_RULES = Path(__file__).parents[3] / "benchmarks" / "systems.mk"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three codecs, of which one is broken, a classifier, and what is neither."""
    folder = tmp_path_factory.mktemp("systems")
    make_pggan_codec(folder / "gan", resolution=32)
    write_dgm(folder / "dgm")
    (folder / "broken").mkdir()
    (folder / "broken" / "codec.json").write_text("{}")
    (folder / "films").mkdir()
    settings = DenseNetSettings(blocks=(1, 1), growth=4, stem=4, bottleneck=2, classes=1)
    torch.manual_seed(0)
    network = NetworkSpec(network="densenet", settings={**settings.__dict__, "blocks": [1, 1]}, weights="classifier.safetensors")
    spec = ClassifierSpec(name="tiny", network=network, labels=("mass",), thresholds=(0.0,), recipe=PixelRecipe(resolution=32))
    save_classifier(folder / "judge", spec, weights=DenseNetClassifier(settings).state_dict())
    return folder


@pytest.fixture(scope="module")
def options(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Options:
    """A quick run of eight films of 64x64 that needs no PCA fitted: one lies where it would be kept."""
    scratch = tmp_path_factory.mktemp("scratch")
    make_pggan_codec(scratch / "pca-quick")
    return Options(films="phantom:5?seed=3&size=64", codec=str(place), quick=True, scratch=scratch, systems=scratch / "none")


@pytest.fixture(scope="module")
def classifier(place: Path) -> FeatureNetwork:
    return load_features(place / "judge")


@pytest.fixture(scope="module")
def rows(place: Path, options: Options, classifier: FeatureNetwork) -> dict[str, Row]:
    codecs = {name: str(place / name) for name in ("broken", "dgm", "gan")}
    rates = Rates(encode={"dgm": [5.0, 4.0, 9.0]}, decode={"dgm": [7.0], "gan": [8.0]}, batch=2, device="cpu", threads=1)
    found = list(compare(codecs, film_sets(options), options, classifier=classifier, rates=rates))
    return {row.step: row for row in found}


def test_a_row_a_codec_and_thumbnails_of_as_many_bytes(rows: dict[str, Row]) -> None:
    gan = "films: gan, 4 steps from the mean code"
    assert list(rows) == ["films: broken", "films: dgm", gan, "films: thumbnail of 32 bytes", "films: thumbnail of 1,536 bytes"]
    assert rows[gan].figures["code bytes"] == 2 * CODE_SIZE == 32  # float16
    assert rows["films: dgm"].figures["code bytes"] == 2 * 12 * 8 * 8
    for step in list(rows)[1:]:
        assert len(rows[step].values) == rows[step].figures["films"] == 5
        assert rows[step].quality["mean PSNR dB"] == pytest.approx(sum(rows[step].values) / 5)
        assert rows[step].quality["Fréchet"] > 0
    smaller, larger = (rows[f"films: thumbnail of {size} bytes"].quality for size in ("32", "1,536"))
    assert larger["mean PSNR dB"] > smaller["mean PSNR dB"]
    assert larger["SSIM"] > smaller["SSIM"]


def test_speeds_are_those_of_the_networks_and_of_refinement(rows: dict[str, Row]) -> None:
    assert rows["films: dgm"].figures["encode/s"] == 5
    assert rows["films: dgm"].figures["decode/s"] == 7
    gan = rows["films: gan, 4 steps from the mean code"]
    assert 0 < gan.figures["encode/s"] < 10_000
    assert gan.figures["decode/s"] == 8
    assert gan.settings["refine_steps"] == 4


def test_a_codec_that_fails_is_a_row_and_training_that_is_not_told_is_no_figure(rows: dict[str, Row]) -> None:
    assert "codec.json" in rows["films: broken"].failed
    assert not any(row.failed for step, row in rows.items() if step != "films: broken")
    assert all("training images" not in row.figures for row in rows.values())


def test_pictures_have_a_column_a_film_and_maps_where_there_are_any(rows: dict[str, Row], options: Options) -> None:
    assert rows
    figures = options.systems / "figures"
    assert sorted(path.name for path in figures.iterdir()) == ["dgm.png", "gan.png"]
    shapes = {path.stem: cv2.imread(str(path)).shape for path in figures.iterdir()}
    panel, width = TILE + 18, 4 * TILE + 3 * 4
    assert shapes == {"gan": (3 * panel, width, 3), "dgm": (6 * panel, width, 3)}


def test_psnr_and_ssim_are_those_of_the_metrics_command(options: Options, place: Path, classifier: FeatureNetwork, tmp_path: Path) -> None:
    manifest = line_up(film_files(options), tmp_path / "films", count=5)
    archive = tmp_path / "a.zarr"
    encode_dataset(str(manifest), str(archive), str(place / "dgm"), metrics="none", workers=0, quiet=True)
    replay = Replay(archive)
    found = judge(replay, manifest, classifier)
    expected = mean_by_method(measure_quality(archive, str(manifest)))[STORED]
    assert found.columns()["mean PSNR dB"] == pytest.approx(expected["psnr"])
    assert found.columns()["SSIM"] == pytest.approx(expected["ssim"])
    same = judge(replay, manifest, classifier, lambda films, _: films)
    assert same.psnr == (PSNR_CAP,) * 5
    assert same.frechet == pytest.approx(0, abs=1e-9 * found.frechet)  # type: ignore[operator]
    assert judge(replay, manifest, None).columns().keys() == {"mean PSNR dB", "SSIM"}
    further = line_up(film_files(options), tmp_path / "more", count=6)
    with pytest.raises(StepFailed, match="without one: 1"):
        judge(replay, further, None)


def test_rates_are_taken_of_what_loads(place: Path) -> None:
    found = measure(codecs={name: str(place / name) for name in ("broken", "dgm", "gan")}, batch=2, repeats=3)
    assert list(found["decode"]) == ["dgm", "gan"]
    assert list(found["encode"]) == ["dgm"]
    assert all(len(rates) == 3 and min(rates) > 0 for way in ("encode", "decode") for rates in found[way].values())


def test_parameters_are_those_that_were_learnt(place: Path, small_codec: Path) -> None:
    def stored(folder: Path, role: str) -> int:
        (path,) = folder.glob(f"{role}*.safetensors")
        return sum(value.size for value in load_file(path).values())

    assert num_parameters(load_codec(place / "gan")) == stored(place / "gan", "generator")
    assert num_parameters(load_codec(place / "dgm")) == stored(place / "dgm", "encoder") + stored(place / "dgm", "generator")
    assert num_parameters(load_codec(small_codec)) == 32 * 32 * (8 + 1) + 8  # components and mean film, scales; shared by both ways


def test_training_images_are_those_of_all_trainings_or_none(small_codec: Path) -> None:
    assert images_seen(load_codec(small_codec).spec.provenance) == 24
    assert images_seen({"task": "vae", "images": 7}) == 7
    assert images_seen({"task": "codec-finetune", "images": 7, "start": None}) == 7
    told = {"images": 5, "start": "b", "generator": {"images": 30, "start": "a", "generator": {"images": 100}}}
    assert images_seen(told) == 135
    assert images_seen({"images": 5, "start": "b"}) is None
    assert images_seen({"images": 5, "start": "b", "generator": {"imported": {}}}) is None
    assert images_seen({"imported": {}}) is None


def test_codecs_are_those_of_the_folder_then_demo_and_pca(place: Path, options: Options, tmp_path: Path) -> None:
    assert list(codec_directories(options)) == ["broken", "dgm", "gan", "demo", "pca-quick"]
    assert classifier_directory(options) == place / "judge"
    one = Options(codec=str(place / "gan"), quick=True, scratch=options.scratch, systems=place)
    assert codec_directories(one) == {"gan": str(place / "gan"), "demo": "demo", "pca-quick": str(options.scratch / "pca-quick")}
    assert classifier_directory(one) == place / "judge"
    left_out = Options(quick=True, scratch=options.scratch, systems=tmp_path / "gone")
    assert list(codec_directories(left_out)) == ["demo", "pca-quick"]
    assert classifier_directory(left_out) is None


def test_a_folder_without_codecs_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^no codec.json lies there, nor in a folder of it: {tmp_path}$"):
        codec_directories(Options(codec=str(tmp_path), scratch=tmp_path))


def test_sets_are_phantoms_and_real_films_where_there_are_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LATENTRAY_FILMS", raising=False)
    options = Options(quick=True, scratch=tmp_path / "scratch")
    sets = film_sets(options)
    assert {name: len(files) for name, files in sets.items()} == {"phantoms": 8}
    (tmp_path / "real").mkdir()
    shutil.copy(sets["phantoms"][0], tmp_path / "real" / "a.png")
    (tmp_path / "real" / "manifest.csv").write_text("path,source,width\na.png,nih,1024\n")
    monkeypatch.setenv("LATENTRAY_FILMS", str(tmp_path / "real"))
    assert {name: len(files) for name, files in film_sets(options).items()} == {"phantoms": 8, "real films": 1}


def test_every_line_that_trains_is_a_command_that_is_understood() -> None:
    rules = MAKE_RULES.read_text().replace("\\\n", " ")
    common = next(line.partition("=")[2] for line in rules.splitlines() if line.startswith("ON_PHANTOMS"))
    lines = [line.strip().replace("$(ON_PHANTOMS)", common) for line in rules.splitlines() if line.startswith("\tlatentray train")]
    targets = [line.partition(":")[0] for line in rules.splitlines() if line.startswith("runs/systems/") and ".json:" in line]
    assert len(lines) == len(targets) == 13
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    for target, line in zip(targets, lines, strict=True):
        args = parser.parse_args(shlex.split(line.replace("$(@D)", str(Path(target).parent)).replace("$(RESUME)", "--resume"))[2:])
        assert args.out == f"runs/systems/{args.task}"
        assert args.resume
        changes = {name: json.loads(value) for name, _, value in (change.partition("=") for change in args.set)}
        if args.task == "pca":
            assert args.preset in PCA_PRESETS
            continue
        settings_of(args.task, args.preset, changes)
        assert (args.data is not None) == TASKS[args.task].films
        assert args.codec is not None or TASKS[args.task].codec != "required"
