"""Archives with a layer: films come back as promised, rows say what they hold, and reading, resuming and damage are as for codes."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engine.archive.reader import fingerprint_parts, list_failures, open_archive
from engine.archive.root import plan_beside
from engine.audit import audit_rows
from engine.cli import run_verb
from engine.film_layer import KINDS
from engine.prediction import predict
from engine.verbs import encode, reconstruct, verify

FILMS = 5


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five films of 8 to 16 bits, wide, tall and square, one of them colour, and a broken file; a manifest with a box for one."""
    folder = tmp_path_factory.mktemp("layered")
    rng = np.random.default_rng(3)
    smooth = cv2.resize(rng.random((6, 6)), (96, 80), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    noisy = (smooth + rng.normal(0, 0.01, smooth.shape)).clip(0, 1)
    pictures = {
        "eight": (noisy * 255).astype(np.uint8),
        "twelve": (noisy.T * 4095).astype(np.uint16),
        "sixteen": (noisy[:80, :80] * 65535).astype(np.uint16),
        "flat": np.full((40, 40), 17, np.uint8),
        "colour": np.stack([(noisy * level).astype(np.uint8) for level in (255, 200, 90)], axis=-1),
    }
    for name, picture in pictures.items():
        assert cv2.imwrite(str(folder / f"{name}.png"), picture)
    mask = np.zeros(pictures["twelve"].shape, np.uint8)
    cv2.circle(mask, (40, 48), 20, 255, -1)
    (folder / "masks").mkdir()
    cv2.imwrite(str(folder / "masks" / "twelve.png"), mask)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    boxes = {"eight": '"8, 8, 40, 32"', "twelve": "masks/twelve.png", "flat": "masks/twelve.png"}
    rows = ["path,lesion", *(f"{name}.png,{boxes.get(name, '')}" for name in pictures), "broken.png,"]
    (folder / "films.csv").write_text("\n".join([*rows, ""]))
    return folder


def make(films: Path, codec: Path, archive: Path, *words: str, expected: int = 0) -> Any:
    settings = ["--codec", str(codec), "--metrics", "none", "--quiet", "--max-failed-fraction", "0.5", *words]
    assert run_verb("encode", encode, [str(films / "films.csv"), "--archive", str(archive), *settings]) == expected
    return open_archive(archive) if expected == 0 else None


def by_id(dataset: Any, name: str) -> dict[str, Any]:
    return dict(zip(map(str, dataset["sample_id"].values), dataset[name].values.tolist(), strict=True))


def sources(films: Path) -> dict[str, np.ndarray]:
    return {path.stem: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in films.glob("*.png") if path.stem != "broken"}


def written(archive: Path, out: Path, *words: str) -> dict[str, np.ndarray]:
    assert run_verb("reconstruct", reconstruct, [str(archive), "--out", str(out), *words]) == 0
    return {path.stem: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in out.glob("*.png")}


def test_lossless_films_come_back_sample_by_sample(films: Path, small_codec: Path, tmp_path: Path) -> None:
    archive = tmp_path / "films.zarr"
    dataset = make(films, small_codec, archive, "--fidelity", "lossless")
    back, original = written(archive, tmp_path / "out"), sources(films)
    for name in ("eight", "twelve", "sixteen", "flat"):
        assert back[name].dtype == original[name].dtype
        np.testing.assert_array_equal(back[name], original[name])
    assert by_id(dataset, "layer_met") == {"eight": 1, "twelve": 1, "sixteen": 1, "flat": 1, "colour": 0, "broken": 0}
    kinds = {name: KINDS[kind] for name, kind in by_id(dataset, "layer_kind").items()}
    assert kinds == {
        "eight": "lossless",
        "twelve": "lossless",
        "sixteen": "lossless",
        "flat": "lossless",
        "colour": "lossless",
        "broken": "none",
    }
    assert by_id(dataset, "layer")["broken"] == b""
    assert {name: len(data) for name, data in by_id(dataset, "layer").items()} == by_id(dataset, "layer_bytes")
    assert np.isinf(by_id(dataset, "layer_psnr")["twelve"])
    assert np.isfinite(dataset["latent"].values[dataset["status"].values == 1]).all()
    by_code = written(archive, tmp_path / "by_code", "--from", "code")
    assert {picture.shape for picture in by_code.values()} == {(32, 32)}
    assert audit_rows(archive, plan_beside(archive)) == []
    assert run_verb("verify", verify, [str(archive), "--level", "4"]) == 0


def test_a_film_is_read_once_to_choose_a_way_and_once_for_code_and_layer(films: Path, small_codec: Path, tmp_path: Path) -> None:
    opened: Counter[str] = Counter()
    is_watching = True  # a hook cannot be taken away

    def watch(event: str, arguments: Any) -> None:
        if is_watching and event == "open" and str(arguments[0]).endswith(".png"):
            opened[Path(arguments[0]).stem] += 1

    sys.addaudithook(watch)
    make(films, small_codec, tmp_path / "codes.zarr")
    without = dict(opened)
    opened.clear()
    make(films, small_codec, tmp_path / "films.zarr", "--fidelity", "lossless")
    is_watching = False
    assert without == dict.fromkeys((*sources(films), "broken"), 1)
    assert dict(opened) == {name: times + 1 for name, times in without.items()}


def test_a_psnr_is_met_and_recorded(films: Path, small_codec: Path, tmp_path: Path) -> None:
    archive = tmp_path / "films.zarr"
    dataset = make(films, small_codec, archive, "--fidelity", "psnr=35")
    psnr = by_id(dataset, "layer_psnr")
    assert min(psnr[name] for name in ("eight", "twelve", "sixteen", "flat", "colour")) >= 35
    back, original = written(archive, tmp_path / "out"), sources(films)
    error = np.square(back["twelve"].astype(float) - original["twelve"]).mean()
    assert 10 * np.log10(65535**2 / error) == pytest.approx(psnr["twelve"], abs=1e-3)
    assert by_id(dataset, "layer_bytes")["sixteen"] < (films / "sixteen.png").stat().st_size / 4
    tried = dataset.attrs["fidelity"]["ways"]  # what decided the way
    assert len(tried) > 1
    assert all(way["films"] == FILMS and way["bytes"] > 0 for way in tried)
    parts = fingerprint_parts(archive)["fidelity"]
    assert (parts["version"], parts["target"], parts["strict"]) == (1, "psnr=35", False)
    assert audit_rows(archive, plan_beside(archive)) == []


def test_the_largest_error_is_bounded_and_a_region_is_exact(films: Path, small_codec: Path, tmp_path: Path) -> None:
    archive = tmp_path / "films.zarr"
    make(films, small_codec, archive, "--fidelity", "max-error=3", "--region", "lesion")
    back, original = written(archive, tmp_path / "out"), sources(films)
    for name in ("eight", "twelve", "sixteen"):
        assert np.abs(back[name].astype(int) - original[name]).max() <= 3
        assert (back[name] != original[name]).any()
    np.testing.assert_array_equal(back["eight"][8:32, 8:40], original["eight"][8:32, 8:40])
    inside = cv2.imread(str(films / "masks" / "twelve.png"), cv2.IMREAD_UNCHANGED) > 0
    np.testing.assert_array_equal(back["twelve"][inside], original["twelve"][inside])
    failures = {failure.sample_id: failure.reason for failure in list_failures(archive)}
    assert failures["flat"] == "mask of the region has another size than the film: 80x96"
    assert audit_rows(archive, plan_beside(archive)) == []


def test_a_dry_run_counts_layers(films: Path, small_codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--codec", str(small_codec), "--metrics", "none", "--fidelity", "lossless", "--dry-run", "--json"]
    assert run_verb("encode", encode, [str(films / "films.csv"), "--archive", str(tmp_path / "films.zarr"), *settings]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bytes_per_film"] > told["bytes_of_layer_per_film"] > 1000
    assert any(part["part"] == "fidelity" and part["seconds"] > 0 for part in told["parts"])
    assert not (tmp_path / "films.zarr").exists()


def test_what_cannot_be_met_is_said_by_the_row_or_fails_it(films: Path, small_codec: Path, tmp_path: Path) -> None:
    dataset = make(films, small_codec, tmp_path / "kept.zarr", "--fidelity", "bytes=40")
    assert by_id(dataset, "layer_met")["sixteen"] == 0
    assert by_id(dataset, "layer_bytes")["sixteen"] > 40
    make(films, small_codec, tmp_path / "strict.zarr", "--fidelity", "lossless", "--fidelity-strict")
    failures = {failure.sample_id: (failure.stage, failure.reason) for failure in list_failures(tmp_path / "strict.zarr")}
    assert set(failures) == {"colour", "broken"}
    assert failures["colour"][0] == "fidelity"
    assert "lossless is not possible" in failures["colour"][1]


def test_a_run_goes_on_only_with_the_same_promise(
    films: Path, small_codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "films.zarr"
    make(films, small_codec, archive, "--fidelity", "psnr=35")
    before = open_archive(archive)["layer"].values.tolist()
    assert make(films, small_codec, archive, "--fidelity", "psnr=35")["layer"].values.tolist() == before
    make(films, small_codec, archive, "--fidelity", "psnr=36", expected=3)
    make(films, small_codec, archive, expected=3)
    assert "fidelity" in capsys.readouterr().err


def test_a_flipped_byte_and_another_film_are_found(
    films: Path, small_codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "films"
    shutil.copytree(films, own)
    archive = tmp_path / "films.zarr"
    make(own, small_codec, archive, "--fidelity", "lossless")
    changed = cv2.imread(str(own / "eight.png"), cv2.IMREAD_UNCHANGED)
    changed[3, 3] ^= 1
    cv2.imwrite(str(own / "eight.png"), changed)
    found = dict(audit_rows(archive, plan_beside(archive)))
    assert "the layer differs from the film by 1" in found["eight"] or "no longer the one" in found["eight"]
    place = next((archive / "layer" / "c").iterdir())
    data = bytearray(place.read_bytes())
    data[40] ^= 1
    place.write_bytes(data)
    capsys.readouterr()
    assert run_verb("verify", verify, [str(archive), "--level", "2", "--json"]) == 1
    assert any(problem["object"].startswith("layer/c/") for problem in json.loads(capsys.readouterr().out)["problems"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fidelity", "psnr"], "fidelity must be none, bytes=N, psnr=DB, max-error=K or lossless: psnr"),
        (["--region", "lesion"], "ask for one with --fidelity: lesion"),
        (["--fidelity", "lossless", "--region", "nowhere"], "no such column"),
    ],
)
def test_bad_requests_are_one_clear_line(
    films: Path, small_codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    make(films, small_codec, tmp_path / "films.zarr", *words, expected=2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "films.zarr").exists()


def test_layers_are_asked_for_where_there_are_none(
    films: Path, small_codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "films.zarr"
    make(films, small_codec, archive)
    assert run_verb("reconstruct", reconstruct, [str(archive), "--out", str(tmp_path / "out"), "--from", "layer"]) == 2
    assert "archive holds no layer" in capsys.readouterr().err


@pytest.mark.parametrize(("shape", "square"), [((80, 96), "pad"), ((96, 80), "crop"), ((50, 96), "stretch"), ((64, 64), "pad")])
def test_predictions_lie_where_the_recipe_took_them_from(shape: tuple[int, int], square: Any) -> None:
    from engine.decode.prepare import make_square, resize

    film = cv2.resize(np.random.default_rng(1).random((5, 5)).astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)
    made = np.ascontiguousarray(resize(make_square(film, square), 64, "area", white=1.0), dtype=np.float32)
    back = predict(made, shape, square)
    assert back.shape == shape
    inside = (slice(8, -8), slice(8, -8)) if square == "crop" else (slice(None), slice(None))
    assert np.abs(back - film)[inside].mean() < 0.02
