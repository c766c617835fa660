"""`latentray decompose` as a user meets it: maps beside codes, with the guarantees that `encode` gives for codes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine.archive.chunks import column_codecs
from engine.archive.commits import CommitLog, describe_object
from engine.archive.reader import open_archive
from engine.archive.root import plan_beside, read_root
from engine.archive.verify import verify_archive
from engine.archive.writer import finalise
from engine.cli import main, run_verb
from engine.encode.codec import load_codec
from engine.encode.cost import codec_cost
from engine.networks.dgm import PartDecoder
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
    assert strip.shape == (18 + 256, 4 * 256 + 3 * 4, 3)  # names above panels of 32 pixels, enlarged eight times
    np.testing.assert_array_equal(strip[18:, 260:516, 0], cv2.resize(found["normal"].to_numpy()[0], (256, 256)))
    assert strip[:18].max() > 128


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
    assert main(["verify", str(tmp_path / "b.zarr"), "--level", "4"]) == 0
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
    assert main(["verify", str(tmp_path / "c.zarr"), "--level", "4"]) == 0
    merged = open_archive(tmp_path / "c.zarr")
    assert merged.sizes["film_y"] == SETTINGS.resolution
    for name in (*MAPS, "lung_box", "salient_share"):
        both = np.concatenate([open_archive(part)[name].to_numpy() for part in parts])
        np.testing.assert_array_equal(merged[name].to_numpy(), both)


def test_a_box_outside_its_film_fails_that_film(small_films: Path, dgm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lungs.csv").write_text("id,x0,y0,x1,y1\nfilm-001,70,70,90,90\nfilm-002,1,1,99,99\n")
    words = [small_films, "--limit", "3", "--archive", tmp_path / "a.zarr", "--codec", dgm, "--lungs", tmp_path / "lungs.csv"]
    code, out, _ = run(capsys, *words)
    assert (code, "1 encode: the given box of the lungs lies outside the film" in out) == (1, True)
    found = open_archive(tmp_path / "a.zarr")
    assert found["status"].to_numpy().tolist() == [1, 3, 1]
    assert found["lung_box"].to_numpy()[1:].tolist() == [[0, 0, 0, 0], [0, 0, 32, 32]]


def test_a_codec_whose_film_is_no_sum_is_measured_by_its_film(
    small_films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codec, archive = write_dgm(tmp_path / "joint", reconstruct="joint"), tmp_path / "a.zarr"
    assert run(capsys, small_films, "--limit", "3", "--archive", archive, "--codec", codec)[0] == 0
    assert main(["verify", str(archive), "--level", "4"]) == 0  # which measures the joint decoder's film
    found, network = open_archive(archive), load_codec(codec).generator.network
    with torch.no_grad():
        codes = torch.from_numpy(found["latent"].to_numpy()).float()
        assert (network(codes) - sum(network.decompose(codes))).abs().mean() > 0.1


def test_the_generator_runs_once_for_maps_and_metrics(
    small_films: Path, dgm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films: list[int] = []

    def count(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        if isinstance(module, PartDecoder) and type(output) is torch.Tensor:  # not where operations are only counted
            films.append(len(output))

    hook = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        words = [small_films, "--limit", "5", "--archive", tmp_path / "a.zarr", "--codec", dgm, "--precision", "fp32"]
        assert run(capsys, *words, "--backend", "eager")[0] == 0
    finally:
        hook.remove()
    assert sum(films) == 2 * 5  # normal film and residue of each
    assert np.isfinite(open_archive(tmp_path / "a.zarr")["psnr"]).all()


def test_a_dry_run_says_what_maps_cost_and_writes_nothing(
    small_films: Path, dgm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, small_films, "--archive", tmp_path / "a.zarr", "--codec", dgm, "--dry-run", "--png", tmp_path / "png")
    found, cost = json.loads(out), codec_cost(load_codec(dgm))
    parts = {part["part"]: part for part in found["parts"]}
    assert (code, list(parts)) == (0, ["decode", "encode", "maps", "metrics"])
    assert parts["maps"]["gflop"] == pytest.approx(cost.decompose) == pytest.approx(cost.generate)
    assert (parts["metrics"]["gflop"], parts["maps"]["seconds"] > 0) == (0, True)
    assert found["bytes_of_maps_per_film"] == 3 * 32 * 32 + 4 * 2 + 2 * 4
    assert found["bytes"] == 40 * found["bytes_per_film"] == 40 * (2 * 12 * 8 * 8 + found["bytes_of_maps_per_film"] + 80)
    assert found["settings"]["maps"]["floor"] == 0.05
    assert list(tmp_path.iterdir()) == []


def change(archive: Path, name: str, at: tuple[int, ...], by: float) -> None:
    """Changes a value in the first shard and commits it again, so that every digest is right."""
    root = read_root(archive)
    codec, log = column_codecs(root)[name], CommitLog(root)
    key, receipt = codec.key(0), log.read(0)
    assert receipt is not None
    values = codec.decode(0, (archive / key).read_bytes()).copy()
    values[at] = values[at] + by
    data = codec.encode(0, values)
    (archive / key).write_bytes(data or b"")
    (archive / log.key(0)).write_bytes(log.encode(replace(receipt, objects={**receipt.objects, key: describe_object(data)})))
    finalise(archive)


def test_maps_that_are_not_those_of_the_code_are_found_at_level_4(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(archive, "residue", (0, 0, 0), 3)
    change(archive, "normal", (1, 9, 9), 3)
    change(archive, "saliency", (2, 9, 9), 1)
    change(archive, "lung_box", (3, 1), 3)
    change(archive, "residue_mean", (1,), 0.01)
    assert main(["verify", str(archive), "--level", "3"]) == 0
    assert capsys.readouterr().out == "level 3: whole\n"
    assert main(["verify", str(archive), "--level", "4"]) == 1
    out = capsys.readouterr().out
    for line in (
        "film-000: the code makes another residue map, which differs by 3 steps",
        "film-001: the code makes another normal map, which differs by 3 grays",
        "film-002: the saliency map is not that of the stored residue, in 1 pixels",
        "film-003: the lungs are found elsewhere on the film, 3 pixels from the stored box",
        "film-001: residue_mean is not that of the map",
    ):
        assert line in out
    assert not any(f"film-{row:03d}" in out for row in (4, 6, 7, 8, 9, 10))


def test_encode_and_decompose_do_not_continue_each_other(
    made: Path, films: Path, dgm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(films), "--codec", str(dgm), "--workers", "0", "--quiet", "--metrics", "none", "--max-failed-fraction", "0.2"]
    assert main(["encode", *words, "--archive", str(made)]) == 3
    assert "made by `latentray decompose` and cannot be continued by `latentray encode`" in capsys.readouterr().err
    assert main(["encode", *words, "--archive", str(tmp_path / "codes.zarr")]) == 0
    code, _, err = run(capsys, films, "--codec", dgm, "--archive", tmp_path / "codes.zarr", "--resume")
    assert (code, len(err.splitlines())) == (3, 1)
    assert "made by `latentray encode` and cannot be continued by `latentray decompose`" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--floor", "2"], "maps.floor must be 0 to 1: 2.0"),
        (["--lungs", "none.csv"], "the file of lung boxes cannot be read"),
        (["--max-failed-fraction", "2"], "max-failed-fraction must be 0 to 1: 2.0"),
        (["--resume"], "there is no archive to resume"),
        (["--refine-steps", "3"], "unrecognized arguments"),
        (["--lungs", "others.csv"], "the file of lung boxes has no id of a film"),
        (["--png", "others.csv/png"], "pictures cannot be written: Not a directory"),
    ],
)
def test_a_bad_request_is_one_clear_line(
    films: Path,
    dgm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "others.csv").write_text("id,x0,y0,x1,y1\nfilm-999,1,1,20,20\n")
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
