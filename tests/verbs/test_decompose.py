"""`latentray decompose` as a user meets it: maps beside codes, with the guarantees that `encode` gives for codes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine.archive.reader import open_archive
from engine.archive.root import plan_beside
from engine.archive.verify import verify_archive
from engine.cli import main, run_verb
from engine.encode.codec import load_codec
from engine.saliency import saliency, to_steps
from engine.verbs import decompose
from tests.small_dgm import SETTINGS, write_dgm

ROOT = Path(__file__).resolve().parent.parent.parent
MAPS = ("normal", "residue", "saliency")
WORDS = ["--workers", "0", "--film-size", "32", "--quiet", "--shard-rows", "4", "--batch-size", "3"]


@pytest.fixture(scope="module")
def dgm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dgm(tmp_path_factory.mktemp("codecs") / "dgm")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory, small_films: Path) -> Path:
    """Eleven films and a letter."""
    folder = tmp_path_factory.mktemp("spoilt")
    for index in range(11):
        shutil.copy(small_films / f"film-{index:03d}.png", folder)
    (folder / "film-005.png").write_bytes(b"a letter, not a film")
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    try:
        code = run_verb("decompose", decompose, [str(word) for word in [*words, *WORDS]])
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def objects(archive: Path) -> dict[str, bytes]:
    """Every object that holds rows, without the commit records, which hold times."""
    keys = [path for path in archive.rglob("*") if path.is_file() and "shards" not in path.parts and path.name != "zarr.json"]
    return {str(path.relative_to(archive)): path.read_bytes() for path in keys}


@pytest.fixture(scope="module")
def made(films: Path, dgm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive that nobody changes."""
    path = tmp_path_factory.mktemp("made") / "a.zarr"
    words = [str(films), "--archive", str(path), "--codec", str(dgm), "--max-failed-fraction", "0.2", *WORDS]
    assert run_verb("decompose", decompose, words) == 0
    return path


@pytest.fixture
def archive(made: Path, tmp_path: Path) -> Path:
    """A copy of it with its plan."""
    shutil.copy(plan_beside(made), tmp_path)
    return Path(shutil.copytree(made, tmp_path / "a.zarr"))


def test_maps_are_those_of_the_stored_codes(made: Path, dgm: Path) -> None:
    assert verify_archive(made) == []
    found, ok = open_archive(made), np.array([row != 5 for row in range(11)])
    assert (found["status"].to_numpy() == 1).tolist() == ok.tolist()
    network = load_codec(dgm).generator.network
    with torch.no_grad():
        normal, residue = (part.numpy()[:, 0] for part in network.decompose(torch.from_numpy(found["latent"].to_numpy()[ok]).float()))
    assert np.abs(found["normal"].to_numpy()[ok] / 127.5 - 1 - normal.clip(-1, 1)).max() <= 0.5 / 127.5 + 1e-4
    assert np.abs(found["residue"].to_numpy()[ok] - residue).max() <= 0.5 / 127 + 1e-4
    np.testing.assert_allclose(found["residue_mean"].to_numpy()[ok], np.abs(residue).mean(axis=(1, 2)), rtol=1e-4)
    boxes, maps = found["lung_box"].to_numpy()[ok], found["saliency"].to_numpy()[ok]
    for steps, box, stored, share in zip(to_steps(found["residue"].to_numpy()[ok]), boxes, maps, found["salient_share"][ok], strict=True):
        np.testing.assert_array_equal(stored, saliency(steps, tuple(box.tolist()), floor=0.05))
        assert float(share) == pytest.approx((stored > 0).mean())
    assert maps.any()
    for name in MAPS:  # the letter has no maps
        assert not found[name].to_numpy()[5].any()
    assert np.isnan(found["residue_mean"].to_numpy()[5])


def test_what_it_prints(films: Path, dgm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [films, "--archive", tmp_path / "a.zarr", "--codec", dgm]
    code, out, err = run(capsys, *words)
    assert code == 1
    assert "too many films failed: 1 of 11" in err
    assert "11 films · 10 ok · 1 failed" in out
    assert "1 decode: " in out
    code, out, _ = run(capsys, *words, "--max-failed-fraction", "0.5", "--json", "--png", tmp_path / "png")
    summary, found = json.loads(out.splitlines()[-1]), open_archive(tmp_path / "a.zarr")
    assert (code, summary["ok"], summary["failed"], summary["encoded_now"]) == (0, 10, 1, 0)
    assert summary["residue_mean"] == pytest.approx(float(np.nanmean(found["residue_mean"])), rel=1e-5)
    assert summary["salient_share"] == pytest.approx(float(np.nanmean(found["salient_share"])), rel=1e-5)
    strips = sorted((tmp_path / "png").iterdir())
    assert [path.stem for path in strips] == [name for name in found["sample_id"].values if name != "film-005"]
    strip = cv2.imread(str(strips[0]))
    assert strip.shape == (32, 4 * 32, 3)
    np.testing.assert_array_equal(strip[:, 32:64, 0], found["normal"].to_numpy()[0])


def test_killed_and_continued_gives_the_same_bytes(made: Path, films: Path, dgm: Path, tmp_path: Path) -> None:
    killed, call = tmp_path / "killed.zarr", "import sys; from engine.cli import run_verb; from engine.verbs import decompose"
    words = [str(films), "--archive", str(killed), "--codec", str(dgm), *WORDS, "--max-failed-fraction", "0.2"]
    command = [sys.executable, "-c", f"{call}; sys.exit(run_verb('decompose', decompose, sys.argv[1:]))", *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (killed / "shards/commit/c/0").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (killed / "shards/commit/c/0").exists()
    assert run_verb("decompose", decompose, words) == 0
    assert objects(killed) == objects(made)
    assert verify_archive(killed) == []


def test_a_shard_without_its_record_is_done_again(archive: Path, films: Path, dgm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = objects(archive)
    (archive / "shards/commit/c/1").unlink()  # as if killed just before it was committed, with one object torn
    (archive / "residue/c/1/0/0").write_bytes(b"torn")
    words = [films, "--archive", archive, "--codec", dgm, "--max-failed-fraction", "0.2", "--json"]
    code, out, _ = run(capsys, *words, "--resume")
    assert (code, json.loads(out)["encoded_now"]) == (0, 4)
    assert objects(archive) == before
    assert main(["gc", str(archive)]) == 0
    assert main(["status", str(archive)]) == 0
    assert main(["verify", str(archive), "--level", "4"]) == 0
    assert objects(archive) == before
    code, _, err = run(capsys, *words, "--floor", "0.2")
    assert (code, "maps.floor 0.05 -> 0.2" in err) == (3, True)


def test_given_lungs_decide_what_is_salient(made: Path, films: Path, dgm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lungs.csv").write_text("id,x0,y0,x1,y1\nfilm-000,10,12,30,50\n")  # films are of 64 pixels, maps of 32
    words = [films, "--archive", tmp_path / "b.zarr", "--codec", dgm, "--lungs", tmp_path / "lungs.csv", "--max-failed-fraction", "0.2"]
    assert run(capsys, *words)[0] == 0
    found, sought = open_archive(tmp_path / "b.zarr"), open_archive(made)
    assert found["lung_box"].to_numpy()[0].tolist() == [5, 6, 15, 25]
    np.testing.assert_array_equal(found["lung_box"].to_numpy()[1:], sought["lung_box"].to_numpy()[1:])
    (tmp_path / "lungs.csv").write_text("id,x0,y0,x1,y1\nfilm-000,10,12,30,52\n")
    code, _, err = run(capsys, *words)
    assert (code, "maps.lungs" in err) == (3, True)


def test_a_residue_of_nothing_has_no_salient_parts(small_films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codec = write_dgm(tmp_path / "blank", residue=0.0)
    words = [small_films, "--limit", "3", "--archive", tmp_path / "a.zarr", "--codec", codec, "--floor", "0"]
    code, out, _ = run(capsys, *words, "--json")
    found, summary = open_archive(tmp_path / "a.zarr"), json.loads(out)
    assert (code, summary["residue_mean"], summary["salient_share"]) == (0, 0.0, 0.0)
    assert not found["residue"].any()
    assert not found["saliency"].any()
    assert found["normal"].to_numpy().std() > 1
    assert not (tmp_path / "a.zarr" / "saliency" / "c").exists()  # nothing but fill has no object
    assert verify_archive(tmp_path / "a.zarr") == []


def test_archives_of_maps_merge(small_films: Path, dgm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = []
    for name, first, last in (("a", 0, 5), ("b", 5, 9)):
        (tmp_path / name).mkdir()
        for index in range(first, last):
            shutil.copy(small_films / f"film-{index:03d}.png", tmp_path / name)
        parts.append(tmp_path / f"{name}.zarr")
        assert run(capsys, tmp_path / name, "--archive", parts[-1], "--codec", dgm)[0] == 0
    assert main(["merge", *map(str, parts), "--out", str(tmp_path / "c.zarr")]) == 0
    assert verify_archive(tmp_path / "c.zarr") == []
    merged = open_archive(tmp_path / "c.zarr")
    assert merged.sizes["film_y"] == SETTINGS.resolution
    for name in (*MAPS, "lung_box", "salient_share"):
        both = np.concatenate([open_archive(part)[name].to_numpy() for part in parts])
        np.testing.assert_array_equal(merged[name].to_numpy(), both)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--floor", "2"], "maps.floor must be 0 to 1: 2.0"),
        (["--lungs", "none.csv"], "the file of lung boxes cannot be read"),
        (["--max-failed-fraction", "2"], "max-failed-fraction must be 0 to 1: 2.0"),
        (["--resume"], "there is no archive to resume"),
        (["--refine-steps", "3"], "unrecognized arguments"),
    ],
)
def test_a_bad_request_is_one_clear_line(
    films: Path, dgm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    code, out, err = run(capsys, films, "--archive", tmp_path / "a.zarr", "--codec", dgm, *words)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert says in err
    assert not (tmp_path / "a.zarr").exists()


def test_a_codec_that_does_not_decompose_is_refused(
    films: Path, small_codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, films, "--archive", tmp_path / "a.zarr", "--codec", small_codec)
    assert (code, out) == (2, "")
    assert err.splitlines()[0].endswith("or another that decomposes films; this one's network: pca")
    assert not (tmp_path / "a.zarr").exists()
