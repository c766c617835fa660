"""An archive reads back as it was written, without a warning, by xarray alone, finished or not."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.archive.commits import committed_shards
from engine.archive.reader import archive_status, list_failures, mean_quality, open_archive, read_codec_files, read_receipts
from engine.archive.root import ROOT_KEY, read_root, sealed
from engine.archive.schema import inner_rows
from engine.archive.verify import verify_archive
from engine.archive.writer import ShardWriter, create_archive, finalise
from engine.errors import ArchiveError
from engine.records import Failure, ImageRef, Shard, Status
from tests.archive.cases import CODEC_FILES, MIXED, make_rows, make_shard, make_spec, publish, sample_id


def test_xarray_opens_a_finished_archive_without_a_warning(archive: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xr.open_zarr(archive)
        shards = xr.open_zarr(archive, group="shards")
    assert dict(dataset.sizes) == {"sample": 10, "layer": 3, "channel": 8, "byte": 32}
    assert set(dataset.coords) == {"sample_id"}
    assert list(dataset["sample_id"].to_numpy()) == [sample_id(row) for row in range(10)]
    assert dataset["latent"].dtype == "float16"
    assert dataset["latent"].dims == ("sample", "layer", "channel")
    types = {name: str(dataset[name].dtype) for name in ("status", "mse", "steps", "source_sha256", "source_height", "source_bits")}
    assert list(types.values()) == ["uint8", "float32", "uint16", "uint8", "uint16", "uint8"]
    assert dataset["status"].attrs["flag_meanings"].split()[4] == "refine_diverged"
    assert dataset["status"].attrs["flag_values"] == list(range(7))
    assert dataset.attrs["Conventions"].startswith("CF-")
    assert shards.sizes == {"shard": 3}


def test_creating_writing_and_opening_unfinished_warn_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create_archive(path, make_spec(path), codec_files=CODEC_FILES)
        publish(path, make_shard(1), make_rows(make_shard(1)))
        dataset = open_archive(path)
    assert list(dataset["status"].to_numpy()) == [0] * 4 + [1] * 4 + [0] * 2
    assert np.isnan(dataset["latent"].to_numpy()[:4]).all()
    assert np.isfinite(dataset["latent"].to_numpy()[4:8]).all()
    assert list(dataset["sample_id"].to_numpy()[[0, 4]]) == ["", sample_id(4)]
    status = archive_status(path) | {"bytes": 0}
    seconds = {name: status.pop(name) for name in ("seconds_per_film", "workers", "images_per_second", "seconds_left")}
    assert list(seconds["seconds_per_film"]) == ["encode", "archive"]
    assert (seconds["seconds_per_film"]["encode"], seconds["workers"]) == (0.25, 1)
    assert status == {
        "rows": 10,
        "ok": 4,
        "failed": 0,
        "pending": 6,
        "shards": 3,
        "shards_done": 1,
        "codec": "tiny",
        "latent_shape": [3, 8],
        "bytes": 0,
        "failed_by_reason": {},
    }


def test_status_failures_and_receipts_come_from_the_records(archive: Path) -> None:
    status = archive_status(archive)
    failed = [row for row in range(10) if MIXED[row % len(MIXED)] is not Status.OK]
    assert (status["ok"], status["failed"], status["pending"]) == (10 - len(failed), len(failed), 0)
    assert status["failed_by_reason"] == {"decode: a reason": 2, "refine: a reason": 1}
    assert status["bytes"] == sum(
        (archive / key).stat().st_size for it in read_receipts(archive) for key, entry in it.objects.items() if entry
    )
    failures = list_failures(archive)
    assert [failure.row for failure in failures] == failed
    assert failures[0] == Failure(2, sample_id(2), Status.DECODE_ERROR, "decode", "a reason")
    receipt = read_receipts(archive)[2]
    assert (receipt.shard, receipt.first_row, receipt.num_rows, receipt.attempt) == (2, 8, 2, 1)
    assert receipt.made_by["parity"]["max_abs"] is None
    assert receipt.seconds.keys() == {"encode", "archive"}


def test_mean_quality_is_over_ok_rows_that_were_measured(archive: Path) -> None:
    dataset = open_archive(archive)
    ok = dataset["status"].to_numpy() == 1
    assert mean_quality(archive)["psnr"] == pytest.approx(float(dataset["psnr"].to_numpy()[ok].mean()), rel=1e-6)
    unmeasured = archive.parent / "b.zarr"
    create_archive(unmeasured, make_spec(unmeasured, rows=4))
    rows = make_rows(make_shard(0))
    rows.columns["psnr"][:] = np.nan
    receipt = publish(unmeasured, make_shard(0), rows)
    assert receipt.objects["psnr/c/0"] is None
    assert not (unmeasured / "psnr/c").exists()
    assert mean_quality(unmeasured)["psnr"] is None


def test_the_embedded_codec_comes_back_byte_for_byte(archive: Path) -> None:
    assert read_codec_files(archive) == CODEC_FILES
    without = archive.parent / "none.zarr"
    create_archive(without, make_spec(without))
    assert read_codec_files(without) is None
    large = {"zeros.bin": bytes(5_000_000), "ones.bin": b"\x01" * 9_000_000}  # more than one chunk, one of them without any object
    path = archive.parent / "large.zarr"
    create_archive(path, make_spec(path), codec_files=large)
    assert read_codec_files(path) == large
    with pytest.raises(ArchiveError, match="cannot be embedded: a/b"):
        create_archive(archive.parent / "c.zarr", make_spec(path), codec_files={"a/b": b""})


def test_what_is_no_archive_or_of_another_version_is_refused(archive: Path) -> None:
    (archive.parent / "folder").mkdir()
    with pytest.raises(ArchiveError, match="not a latentray archive"):
        open_archive(archive.parent / "folder")
    with pytest.raises(ArchiveError, match="there is no archive"):
        open_archive(archive.parent / "nothing")
    document = read_root(archive).document
    document["attributes"]["format_version"] = 99
    (archive / ROOT_KEY).write_bytes(sealed(document))
    for ask in (open_archive, archive_status, verify_archive):
        with pytest.raises(ArchiveError, match="format version 99, this latentray reads 1"):
            ask(archive)


def test_importing_the_room_brings_neither_torch_nor_xarray() -> None:
    code = "import sys, engine.archive.writer, engine.archive.reader; print({'torch', 'xarray', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_thousand_shards_are_listed_and_read_quickly(tmp_path: Path) -> None:
    path = tmp_path / "many.zarr"
    create_archive(path, make_spec(path, rows=1000, shard_rows=1))
    writer = ShardWriter(path)
    log = writer._log
    receipt = writer.publish(make_shard(0, rows=1000, shard_rows=1), make_rows(make_shard(0, shard_rows=1)), made_by={}, seconds={})
    for shard in range(1, 1000):  # records alone: what is measured reads nothing else
        moved = {field: getattr(receipt, field) for field in receipt.__slots__} | {"shard": shard}
        (path / log.key(shard)).write_bytes(log.encode(type(receipt)(**moved)))
    times = []
    for ask in (committed_shards, archive_status):
        start = time.perf_counter()
        answer = ask(path)
        times.append(time.perf_counter() - start)
        assert len(answer) == 1000 or answer["shards_done"] == 1000
    print(f"1,000 shards: listed in {times[0] * 1e3:.1f} ms, status in {times[1] * 1e3:.0f} ms")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 9),
    shard_rows=st.integers(2, 12),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    dtype=st.sampled_from(["f2", "f4"]),
    names=st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12), min_size=9, max_size=9, unique=True),
    failed=st.sets(st.integers(0, 8)),
    data=st.data(),
)
def test_any_rows_come_back_as_they_were(tmp_path_factory, rows, shard_rows, shape, dtype, names, failed, data) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("any") / "a.zarr"
    dims = tuple("abc"[: len(shape)])
    create_archive(
        path, make_spec(path, rows=rows, shard_rows=shard_rows, plan=False, latent_dims=dims, latent_shape=shape, latent_dtype=dtype)
    )
    expected = []
    for index in range(-(-rows // shard_rows)):
        span = range(index * shard_rows, min((index + 1) * shard_rows, rows))
        shard = Shard(index, tuple(ImageRef(row, names[row], "") for row in span), "")
        content = make_rows(shard, statuses=tuple(Status.POISON if row in failed else Status.OK for row in range(rows)), code=shape)
        content.columns["latent"] = content.columns["latent"].astype(dtype)
        content.columns["steps"][:] = data.draw(st.integers(0, 65535))
        publish(path, shard, content)
        expected.append(content.columns)
    finalise(path)
    dataset = open_archive(path)
    for name in expected[0]:
        np.testing.assert_array_equal(dataset[name].to_numpy(), np.concatenate([columns[name] for columns in expected]))
    assert [problem for problem in verify_archive(path) if not problem.is_note] == []


@pytest.mark.parametrize(
    ("shard_rows", "row_bytes", "inner"),
    [(32, 16384, 32), (64, 18432, 32), (4096, 18432, 32), (1000, 1024, 500), (1009, 18432, 1), (6, 2**20, 1)],
)
def test_inner_chunks_divide_the_shard_and_are_about_half_a_mebibyte(shard_rows: int, row_bytes: int, inner: int) -> None:
    assert inner_rows(shard_rows, row_bytes) == inner


def test_latents_of_large_shards_are_cut_into_inner_chunks(tmp_path: Path) -> None:
    path = tmp_path / "large.zarr"
    create_archive(path, make_spec(path, rows=100, shard_rows=64, latent_shape=(40, 1024)))
    codecs = read_root(path).columns["latent"]["codecs"]
    assert codecs[0]["name"] == "sharding_indexed"
    assert codecs[0]["configuration"]["chunk_shape"] == [8, 40, 1024]
    assert codecs[0]["configuration"]["codecs"][-1]["name"] == "crc32c"
    for index in range(2):
        shard = make_shard(index, rows=100, shard_rows=64)
        publish(path, shard, make_rows(shard, code=(40, 1024)))
    finalise(path)
    assert open_archive(path)["latent"][70].to_numpy().shape == (40, 1024)
    assert [problem for problem in verify_archive(path) if not problem.is_note] == []


def test_every_array_ends_its_bytes_with_a_checksum(archive: Path) -> None:
    for node in read_root(archive).nodes.values():
        for codecs in [node["codecs"]] if node["node_type"] == "array" else []:
            assert codecs[-1]["name"] == "crc32c"


def test_the_lines_of_the_format_page_read_an_archive(archive: Path) -> None:
    page = (Path(__file__).parents[2] / "engine/archive/FORMAT.md").read_text()
    lines = page.split("```python\n")[1].split("```")[0].replace("films.zarr", str(archive))
    found: dict[str, np.ndarray] = {}
    exec(lines, found)
    assert found["code"].shape == (7, 3, 8)
    assert np.isfinite(found["code"]).all()
    assert list(found["name"]) == [sample_id(row) for row in (0, 1, 3, 5, 6, 7, 9)]
