"""Every door that a file of somebody else comes in by, with a file that runs code where it is unpickled: refused, and nothing ran."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.encode.weights import sha256
from engine.errors import LatentrayError
from tests.archive import cases
from tests.security.hostile import DISGUISES, after_a_header, object_array, plain, torch_zip, would_run
from tests.small_classifier import write_classifier

Disguise = Callable[[Path], bytes]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("classifier") / "tiny")


def spoilt_model(model: Path, out: Path, data: bytes) -> Path:
    """A copy whose every weights file is `data`, and whose JSON gives the digest of that."""
    shutil.copytree(model, out)
    (description,) = out.glob("*.json")
    text = description.read_text()
    for weights in out.glob("*.safetensors"):
        text = text.replace(sha256(weights.read_bytes()), sha256(data))
        weights.write_bytes(data)
    description.write_text(text)
    return out


@pytest.mark.parametrize("disguise", DISGUISES)
def test_each_disguise_works_on_the_careless(disguise: Disguise, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    assert would_run(disguise(marker), marker)


def import_checkpoint(file: Path) -> object:
    from engine.import_codec import import_checkpoint

    return import_checkpoint(file, file.parent / "codec", licence="none")


def direction(file: Path) -> object:
    from engine.latents.direction_file import read_direction

    return read_direction(file)


def training_checkpoint(file: Path) -> object:
    from trainers.checkpoint import read_checkpoint

    return read_checkpoint(file)


def perceptual_weights(file: Path) -> object:
    from engine.refine.weight_files import read_weights

    return read_weights(file, {"features.0.weight": (64, 3, 11, 11)})


def perceptual_safetensors(file: Path) -> object:
    from engine.refine.weight_files import read_weights

    return read_weights(file.rename(file.with_suffix(".safetensors")), {"features.0.weight": (64, 3, 11, 11)})


def head_of_a_dgm(file: Path) -> object:
    from engine.networks.dgm_head import load_head

    return load_head(file, device=torch.device("cpu"))


def discriminator(file: Path) -> object:
    from engine.encode.network_file import NetworkFile

    network = torch.nn.Linear(2, 2)
    NetworkFile("discriminator", "latentray-discriminator-1").fill(file, network)
    return network


def settings_of_a_discriminator(file: Path) -> object:
    from engine.encode.network_file import NetworkFile
    from engine.networks.dgm_head import DgmHeadSettings

    return NetworkFile("discriminator", "latentray-discriminator-1").settings(file, DgmHeadSettings)


def plan(file: Path) -> object:
    from engine.source.plan_file import read_about

    return read_about(file)


def manifest(suffix: str) -> Callable[[Path], object]:
    def door(file: Path) -> object:
        from engine.source.plan import make_plan

        return make_plan(str(file.rename(file.with_suffix(suffix))), file.parent / "plan.parquet", shard_rows=4)

    return door


def labels(suffix: str) -> Callable[[Path], object]:
    def door(file: Path) -> object:
        from engine.latents.film_labels import read_table

        return read_table(str(file.rename(file.with_suffix(suffix))), file.parent / "films.zarr", ["sex"])

    return door


def lung_boxes(file: Path) -> object:
    from engine.lung_file import read_lung_file

    return read_lung_file(file)


def codec_json(file: Path) -> object:
    from engine.encode.codec import load_codec

    file.rename(file.parent / "codec.json")
    return load_codec(file.parent)


DOORS = {
    "import-checkpoint": import_checkpoint,
    "direction": direction,
    "checkpoint of a training": training_checkpoint,
    "weights of a loss": perceptual_weights,
    "weights of a loss, safetensors": perceptual_safetensors,
    "head of a dgm": head_of_a_dgm,
    "discriminator": discriminator,
    "settings of a discriminator": settings_of_a_discriminator,
    "plan": plan,
    "manifest, CSV": manifest(".csv"),
    "manifest, Parquet": manifest(".parquet"),
    "labels, CSV": labels(".csv"),
    "labels, Parquet": labels(".parquet"),
    "lung boxes": lung_boxes,
    "codec.json": codec_json,
}


def refused(door: Callable[[], object], marker: Path) -> None:
    with pytest.raises(LatentrayError) as caught:
        door()
    said = str(caught.value)
    assert said
    assert "\n" not in said
    assert said.isprintable()
    assert not marker.exists()


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("name", DOORS)
def test_a_file_is_refused_and_never_run(name: str, disguise: Disguise, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    file = tmp_path / "given" / "file.pth"
    file.parent.mkdir()
    file.write_bytes(disguise(marker))
    refused(lambda: DOORS[name](file), marker)


@pytest.mark.parametrize("disguise", DISGUISES)
def test_weights_of_a_codec(small_codec: Path, disguise: Disguise, tmp_path: Path) -> None:
    from engine.encode.codec import load_codec

    codec = spoilt_model(small_codec, tmp_path / "codec", disguise(tmp_path / "ran"))
    refused(lambda: load_codec(codec), tmp_path / "ran")


@pytest.mark.parametrize("disguise", DISGUISES)
def test_weights_of_a_classifier(classifier: Path, disguise: Disguise, tmp_path: Path) -> None:
    from engine.classify.classifier import load_classifier

    model = spoilt_model(classifier, tmp_path / "model", disguise(tmp_path / "ran"))
    refused(lambda: load_classifier(model), tmp_path / "ran")


@pytest.mark.parametrize("disguise", [plain, torch_zip, after_a_header])
def test_a_codec_inside_an_archive(small_codec: Path, disguise: Disguise, tmp_path: Path) -> None:
    from engine.archive.reader import read_codec_files
    from engine.encode.codec import load_codec_files

    codec = spoilt_model(small_codec, tmp_path / "codec", disguise(tmp_path / "ran"))
    files = {path.name: path.read_bytes() for path in codec.iterdir()}
    archive = tmp_path / "films.zarr"
    cases.create_archive(archive, cases.make_spec(archive), codec_files=files)
    refused(lambda: load_codec_files(read_codec_files(archive) or {}), tmp_path / "ran")


def test_an_array_of_objects_inside_an_archive(tmp_path: Path) -> None:
    """Zarr's older format has a codec that unpickles; an archive that brings such arrays along is read without them."""
    from engine.archive.reader import open_archive

    archive, marker = tmp_path / "films.zarr", tmp_path / "ran"
    cases.create_archive(archive, cases.make_spec(archive), codec_files=None)
    older = {"zarr_format": 2, "shape": [10], "chunks": [10], "dtype": "|O", "fill_value": None, "order": "C", "compressor": None}
    for folder in (archive / "latent", archive / "status", archive / "extra"):
        folder.mkdir(exist_ok=True)
        (folder / ".zarray").write_text(json.dumps({**older, "filters": [{"id": "pickle", "protocol": 5}]}))
        (folder / "0").write_bytes(plain(marker))
    dataset = open_archive(archive)
    assert "extra" not in dataset
    assert dataset["status"].dtype == np.uint8
    assert dataset["status"].load().shape == (10,)
    assert not marker.exists()


def test_sizes_of_packed_films(tmp_path: Path) -> None:
    from trainers.packed_films import FILMS, SIZES, PackedFilms, PackIndex

    marker = tmp_path / "ran"
    (tmp_path / FILMS).write_bytes(b"")
    (tmp_path / SIZES).write_bytes(object_array(marker))
    index: dict[str, Any] = {"films": 1, "resolution": 1, "recipe": {}, "kind": "folder", "plan_digest": "", "plan_rows": 1}
    index |= {"failed_rows": (), "failed_by_reason": {}, "pixels_sha256": ""}
    refused(PackedFilms(tmp_path, PackIndex(**index)).sizes, marker)


@pytest.mark.parametrize("disguise", [plain, torch_zip, after_a_header])
def test_a_training_that_is_resumed(disguise: Disguise, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from engine.cli import main
    from trainers.loop import CHECKPOINTS

    marker, out = tmp_path / "ran", tmp_path / "run"
    words = ["train", "vae", "--preset", "cpu-small", "--data", "phantom:8?seed=1&size=32", "--out", str(out), "--images", "32"]
    (out / CHECKPOINTS).mkdir(parents=True)
    (out / "train.json").write_text("{}")
    (out / CHECKPOINTS / "images-000000000016.safetensors").write_bytes(disguise(marker))
    assert main([*words, "--resume"]) == 2
    assert "checkpoint is damaged" in capsys.readouterr().err
    assert not marker.exists()
