"""The whole job in one process: a folder in, a verified archive out, bad films as rows, interruptions without a trace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from engine import encode_dataset, open_archive
from engine.archive.reader import list_failures
from engine.archive.verify import verify_archive
from engine.errors import ArchiveError, CodecError, ConfigError, FingerprintMismatch, SourceError
from engine.records import Status

ROOT = Path(__file__).resolve().parent.parent


def encode(films: Path, archive: Path, codec: Path, **settings: object):
    return encode_dataset(
        str(films), str(archive), str(codec), **{"workers": 0, "film_size": 64, "quiet": True, "shard_rows": 8, **settings}
    )


def objects(archive: Path) -> dict[str, bytes]:
    """Every object that holds rows, without the commit records, which hold times."""
    keys = [path for path in archive.rglob("*") if path.is_file() and "shards" not in path.parts and path.name != "zarr.json"]
    return {str(path.relative_to(archive)): path.read_bytes() for path in keys}


def test_every_film_ends_as_a_row(small_films: Path, small_codec: Path, tmp_path: Path) -> None:
    summary = encode(small_films, tmp_path / "films.zarr", small_codec)
    dataset = open_archive(tmp_path / "films.zarr")
    assert (summary.rows, summary.ok, summary.failed, summary.pending) == (40, 40, 0, 0)
    assert verify_archive(tmp_path / "films.zarr", level=3) == []
    assert dataset["latent"].shape == (40, 1, 8)
    assert list(dataset["sample_id"].to_numpy()) == sorted(path.stem for path in small_films.iterdir())
    assert summary.psnr == pytest.approx(float(dataset["psnr"].mean()), rel=1e-5)
    assert float(dataset["psnr"].min()) > 10


def test_bad_films_become_rows_and_leave_the_others_alone(small_films: Path, small_codec: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "films"
    shutil.copytree(small_films, spoilt)
    (spoilt / "film-003.png").write_bytes((small_films / "film-003.png").read_bytes()[:500])
    (spoilt / "film-009.png").write_bytes(b"")
    (spoilt / "film-017.png").write_bytes(b"a letter, not a film")
    summary = encode(spoilt, tmp_path / "spoilt.zarr", small_codec)
    encode(small_films, tmp_path / "whole.zarr", small_codec)
    got, whole = open_archive(tmp_path / "spoilt.zarr"), open_archive(tmp_path / "whole.zarr")
    assert (summary.ok, summary.failed) == (37, 3)
    assert [(failure.sample_id, failure.stage) for failure in list_failures(tmp_path / "spoilt.zarr")] == [
        ("film-003", "decode"),
        ("film-009", "read"),
        ("film-017", "decode"),
    ]
    good = got["status"].to_numpy() == Status.OK
    assert np.isnan(got["latent"].to_numpy()[~good]).all()
    np.testing.assert_allclose(got["latent"].to_numpy()[good], whole["latent"].to_numpy()[good], rtol=2e-3, atol=2e-3)
    assert verify_archive(tmp_path / "spoilt.zarr", level=3) == []


def png_of(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is so large; its checksums are right."""
    parts = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(64))), (b"IEND", b""))
    chunks = (struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_every_kind_of_bad_file_is_a_row_with_its_reason(small_films: Path, small_codec: Path, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    good = (small_films / "film-000.png").read_bytes()
    (films / "a-good.png").write_bytes(good)
    (films / "b-named-otherwise.jpg").write_bytes(good)  # what a file is called does not matter
    (films / "c-huge.png").write_bytes(png_of(100_000, 100_000))
    (films / "d-no-pixels.png").write_bytes(png_of(0, 64))
    (films / "e-strip.png").write_bytes(png_of(60_000, 10))
    (films / "f-noise.dcm").write_bytes(bytes(range(256)) * 8)
    (films / "g-leads-nowhere.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(films / "h-pipe.png")
    encode(films, tmp_path / "films.zarr", small_codec)
    reasons = {failure.sample_id: (failure.stage, failure.reason) for failure in list_failures(tmp_path / "films.zarr")}
    status = open_archive(tmp_path / "films.zarr")["status"].to_numpy()
    assert status.tolist() == [1, 1, 2, 2, 2, 2, 2, 2]
    assert {name: stage for name, (stage, _) in reasons.items()} == {
        **dict.fromkeys(["c-huge", "d-no-pixels", "e-strip", "f-noise"], "decode"),
        **dict.fromkeys(["g-leads-nowhere", "h-pipe"], "read"),
    }
    assert "100000x100000" in reasons["c-huge"][1]
    assert not [reason for _, reason in reasons.values() if str(tmp_path) in reason or "\n" in reason]


def test_a_film_that_vanished_after_planning_is_a_row(small_films: Path, small_codec: Path, tmp_path: Path) -> None:
    films = sorted(small_films.iterdir())[:4]
    manifest = tmp_path / "films.csv"
    manifest.write_text("path\n" + "".join(f"{path}\n" for path in films) + f"{tmp_path / 'gone.png'}\n")
    summary = encode(manifest, tmp_path / "films.zarr", small_codec)
    assert (summary.ok, summary.failed) == (4, 1)
    assert "read" in next(iter(summary.failed_by_reason))


def test_again_does_nothing_and_other_settings_are_refused(small_films: Path, small_codec: Path, tmp_path: Path) -> None:
    archive = tmp_path / "films.zarr"
    encode(small_films, archive, small_codec)
    before = objects(archive)
    assert encode(small_films, archive, small_codec, shard_rows=None).encoded_now == 0
    assert objects(archive) == before
    for change in ({"refine_steps": 3}, {"dtype": "f4"}, {"metrics": "none"}, {"shard_rows": 16}, {"limit": 8}):
        with pytest.raises(FingerprintMismatch, match=next(iter(change)).split("_")[0] + "|plan|steps"):
            encode(small_films, archive, small_codec, **change)
    assert objects(archive) == before
    assert encode(small_films, archive, small_codec, dtype="f4", overwrite=True).encoded_now == 40


@pytest.mark.parametrize("stop_after", [0.0, 0.15, 0.4])
def test_killed_at_any_moment_then_the_same_command_gives_the_same_bytes(
    small_films: Path, small_codec: Path, tmp_path: Path, stop_after: float
) -> None:
    undisturbed, killed = tmp_path / "undisturbed.zarr", tmp_path / "killed.zarr"
    command = [sys.executable, "-m", "engine.encode_dataset", str(small_films), "--codec", str(small_codec), "--workers", "0"]
    command += ["--film-size", "64", "--shard-rows", "4", "--refine-steps", "4", "--quiet", "--archive"]
    subprocess.run([*command, str(undisturbed)], cwd=ROOT, check=True, capture_output=True)
    process = subprocess.Popen([*command, str(killed)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not killed.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)  # until the archive is there: before that nothing can be lost
    time.sleep(stop_after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = subprocess.run([*command, str(killed)], check=False, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert objects(killed) == objects(undisturbed)
    assert verify_archive(killed, level=3) == []


def test_requests_that_make_no_sense_are_one_clear_error(small_films: Path, small_codec: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "twins" / "a").mkdir(parents=True)
    shutil.copy(small_films / "film-000.png", tmp_path / "twins" / "film-000.png")
    shutil.copy(small_films / "film-000.png", tmp_path / "twins" / "a" / "film-000.png")
    (tmp_path / "taken.zarr").mkdir()
    (tmp_path / "taken.zarr" / "thesis.txt").write_text("years of work")
    with pytest.raises(SourceError, match="no films"):
        encode(tmp_path / "empty", tmp_path / "a.zarr", small_codec)
    with pytest.raises(SourceError, match="relpath"):
        encode(tmp_path / "twins", tmp_path / "a.zarr", small_codec)
    with pytest.raises(CodecError):
        encode(small_films, tmp_path / "a.zarr", tmp_path / "no-codec")
    for flag in ("overwrite", "resume"):
        with pytest.raises(ArchiveError):
            encode(small_films, tmp_path / "taken.zarr", small_codec, **{flag: True})
    with pytest.raises(ArchiveError, match="no archive to resume"):
        encode(small_films, tmp_path / "a.zarr", small_codec, resume=True)
    with pytest.raises(ConfigError, match="must not lie in the folder of films"):
        encode(small_films, small_films / "a.zarr", small_codec)
    with pytest.raises(ConfigError, match="unknown setting: stepps"):
        encode(small_films, tmp_path / "a.zarr", small_codec, stepps=1)
    assert (tmp_path / "taken.zarr" / "thesis.txt").read_text() == "years of work"
    assert not (tmp_path / "a.zarr").exists()


def test_overwrite_costs_nothing_when_the_request_is_refused(small_films: Path, small_codec: Path, tmp_path: Path) -> None:
    encode(small_films, tmp_path / "films.zarr", small_codec)
    before = objects(tmp_path / "films.zarr")
    with pytest.raises(SourceError):
        encode(tmp_path / "typo", tmp_path / "films.zarr", small_codec, overwrite=True)
    assert objects(tmp_path / "films.zarr") == before


def test_a_data_set_that_moved_is_continued_from_where_it_is(small_films: Path, small_codec: Path, tmp_path: Path) -> None:
    shutil.copytree(small_films, tmp_path / "here")
    encode(tmp_path / "here", tmp_path / "films.zarr", small_codec)
    whole = objects(tmp_path / "films.zarr")
    (tmp_path / "films.zarr" / "shards" / "commit" / "c" / "3").unlink()  # as if it had been killed before this shard
    (tmp_path / "here").rename(tmp_path / "there")
    assert encode(tmp_path / "there", tmp_path / "films.zarr", small_codec).ok == 40
    assert objects(tmp_path / "films.zarr") == whole
    assert verify_archive(tmp_path / "films.zarr", level=3) == []


def test_archives_beside_one_another_keep_their_own_plans(small_films: Path, small_codec: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must end in \.zarr"):
        encode(small_films, tmp_path / "films", small_codec)


def test_the_plan_may_hash_ids_and_the_archive_holds_no_path(small_films: Path, small_codec: Path, tmp_path: Path) -> None:
    encode(small_films, tmp_path / "films.zarr", small_codec, hash_key=b"sixteen bytes and more")
    ids = open_archive(tmp_path / "films.zarr")["sample_id"].to_numpy()
    assert all(len(name) == 32 and not name.startswith("film") for name in ids)
    needle = str(small_films).encode()
    assert not [key for key, data in objects(tmp_path / "films.zarr").items() if needle in data]


def test_a_dry_run_writes_nothing(small_films: Path, small_codec: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "engine/encode_dataset.py",
        str(small_films),
        "--archive",
        str(tmp_path / "a.zarr"),
        "--codec",
        str(small_codec),
    ]
    done = subprocess.run([*command, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True)
    cost = json.loads(done.stdout)
    assert (cost["rows"], cost["bytes_per_film"] > 16, cost["seconds"] > 0) == (40, True, True)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small file system, which only root may")
def test_a_full_disk_is_one_line_and_costs_nothing(
    small_films: Path, small_codec: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], check=True)
    try:
        with pytest.raises(ArchiveError, match="disk is full") as caught:
            encode(small_films, disk / "films.zarr", small_codec, shard_rows=2)
        assert len(str(caught.value).splitlines()) == 1
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        assert 0 < encode(small_films, disk / "films.zarr", small_codec, shard_rows=2).encoded_now < 40
        assert verify_archive(disk / "films.zarr", level=3) == []
        encode(small_films, tmp_path / "roomy.zarr", small_codec, shard_rows=2)
        assert objects(disk / "films.zarr") == objects(tmp_path / "roomy.zarr")
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
