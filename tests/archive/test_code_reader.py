"""The quick door to codes reads what Zarr reads, in every layout that an archive can have, and finds damage as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numcodecs import Blosc
from zarr.codecs import BloscCodec

from engine.archive import schema
from engine.archive.blosc_block import decompress, decompress_part
from engine.archive.code_reader import open_codes
from engine.archive.merge import merge_archives
from engine.archive.reader import open_archive
from engine.archive.root import read_root
from engine.archive.verify import verify_archive
from engine.archive.writer import create_archive, finalise
from engine.errors import ArchiveError
from engine.records import Status
from tests.archive.cases import MIXED, make_archive, make_rows, make_shard, make_spec, publish

LAYOUTS: dict[str, dict[str, Any]] = {
    "one small chunk a shard": {"rows": 10, "shard_rows": 4, "latent_shape": (3, 8)},
    "several blocks a chunk": {"rows": 1500, "shard_rows": 1000, "latent_shape": (1, 512)},
    "rows across blocks": {"rows": 90, "shard_rows": 64, "latent_shape": (3, 40, 50)},
    "inner chunks": {"rows": 100, "shard_rows": 64, "latent_shape": (40, 1024)},
    "inner chunks of f4": {"rows": 100, "shard_rows": 64, "latent_shape": (20, 1024), "latent_dtype": "f4"},
    "one number": {"rows": 5, "shard_rows": 5, "latent_shape": (1,), "latent_dims": ("channel",)},
}


def make(path: Path, *, rows: int, shard_rows: int, statuses: tuple[Status, ...] = MIXED, last: int | None = None, **changes: Any) -> Path:
    if len(changes["latent_shape"]) == 3:
        changes["latent_dims"] = ("channel", "y", "x")
    create_archive(path, make_spec(path, rows=rows, shard_rows=shard_rows, **changes))
    for index in range(-(-rows // shard_rows) if last is None else last):
        shard = make_shard(index, rows=rows, shard_rows=shard_rows)
        filled = make_rows(shard, statuses=statuses, code=changes["latent_shape"])
        filled.columns["latent"] = filled.columns["latent"].astype(changes.get("latent_dtype", "f2"))
        publish(path, shard, filled)
    if last is None:
        finalise(path)
    return path


def assert_as_zarr(path: Path) -> None:
    expected, codes = open_archive(path)["latent"].to_numpy(), open_codes(path)
    assert (codes.shape, codes.dtype, len(codes)) == (expected.shape, expected.dtype, len(expected))
    np.testing.assert_array_equal(codes.read(), expected)
    some = np.random.default_rng(0).integers(-len(codes), len(codes), 30).tolist()
    np.testing.assert_array_equal(codes.read(some), expected[some])
    for row in (0, -1, *some):
        np.testing.assert_array_equal(codes[row], expected[row])
        assert codes[row].flags.writeable


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_it_reads_what_zarr_reads(tmp_path: Path, layout: dict[str, Any]) -> None:
    path = make(tmp_path / "a.zarr", **layout)
    assert_as_zarr(path)
    assert [problem for problem in verify_archive(path) if not problem.is_note] == []


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_pending_shards_and_those_without_a_code_are_nan(tmp_path: Path, layout: dict[str, Any]) -> None:
    path = make(tmp_path / "a.zarr", **layout, last=1, statuses=(Status.DECODE_ERROR,))
    assert not (path / "latent").joinpath("c").exists()
    assert_as_zarr(path)
    assert np.isnan(open_codes(path).read()).all()


def test_archives_of_the_former_blosc_settings_are_read_and_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = make_archive(tmp_path / "now.zarr", rows=8, prefix="now")
    monkeypatch.setattr(schema, "BloscCodec", lambda **settings: BloscCodec(cname="zstd", clevel=5, shuffle="shuffle"))
    old = make_archive(tmp_path / "old.zarr", rows=8, prefix="old")
    monkeypatch.undo()
    assert read_root(old).columns["latent"]["codecs"] != read_root(now).columns["latent"]["codecs"]
    assert_as_zarr(old)
    both = tmp_path / "both.zarr"
    merge_archives([old, now], both)
    np.testing.assert_array_equal(open_codes(both).read(), np.concatenate([open_codes(old).read(), open_codes(now).read()]))
    assert_as_zarr(both)
    assert [problem for problem in verify_archive(both) if not problem.is_note] == []


def test_rows_that_there_are_not_are_refused(archive: Path) -> None:
    codes = open_codes(archive)
    for row in (10, -11):
        with pytest.raises(IndexError):
            codes[row]
        with pytest.raises(IndexError):
            codes.read([0, row])
    assert codes.read([]).shape == (0, 3, 8)


@pytest.mark.parametrize("layout", ["one small chunk a shard", "inner chunks"])
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_flipped_bit_is_found(tmp_path: Path, layout: str, where: str) -> None:
    path = make(tmp_path / "a.zarr", **LAYOUTS[layout])
    damaged = next((path / "latent" / "c" / "0").rglob("0"))
    damaged = damaged if damaged.is_file() else damaged / "0"
    data = bytearray(damaged.read_bytes())
    data[{"first": 0, "middle": len(data) // 2, "last": len(data) - 1}[where]] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(ArchiveError, match="latentray verify"):
        open_codes(path).read()
    damaged.write_bytes(data[:3])
    with pytest.raises(ArchiveError, match="latentray verify"):
        open_codes(path)[0]


def test_a_row_is_read_from_its_own_inner_chunk(tmp_path: Path) -> None:
    path = make(tmp_path / "a.zarr", **LAYOUTS["inner chunks"])
    object_ = path / "latent" / "c" / "0" / "0" / "0"
    whole, inner = open_codes(path).read(), read_root(path).columns["latent"]["codecs"][0]["configuration"]["chunk_shape"][0]
    data = bytearray(object_.read_bytes())
    data[0] ^= 1  # of the inner chunk that begins the object
    object_.write_bytes(data)
    codes, damaged = open_codes(path), set()
    for row in range(64):
        try:
            np.testing.assert_array_equal(codes[row], whole[row])
        except ArchiveError:
            damaged.add(row // inner)
    assert len(damaged) == 1
    assert 64 // inner > 2


def test_codes_of_another_encoding_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "BloscCodec", lambda **settings: schema.ZstdCodec(level=1))
    path = make(tmp_path / "a.zarr", **LAYOUTS["one small chunk a shard"])
    with pytest.raises(ArchiveError, match="bytes, zstd, crc32c"):
        open_codes(path)


def test_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="there is no archive"):
        open_codes(tmp_path / "none.zarr")


@pytest.mark.parametrize("name", ["zstd", "lz4", "blosclz", "zlib"])
@pytest.mark.parametrize("block", [0, 4096, 10_000])
@pytest.mark.parametrize("kind", ["noise", "numbers", "zeros"])
def test_any_part_of_a_blosc_chunk_is_that_of_all_of_it(name: str, block: int, kind: str) -> None:
    rng = np.random.default_rng(1)
    made = {"noise": rng.integers(0, 256, 50_003), "numbers": rng.normal(size=12_501).astype("f4").view("u1"), "zeros": np.zeros(50_003)}
    data = made[kind].astype("u1").tobytes()
    chunk = memoryview(Blosc(name, clevel=5, shuffle=Blosc.SHUFFLE, blocksize=block).encode(data))
    out = np.empty(len(data), "u1")
    decompress(chunk, out)
    assert out.tobytes() == data
    for first, last in [(0, 1), (len(data) - 1, len(data)), (0, len(data)), *np.sort(rng.integers(0, len(data), (20, 2))).tolist()]:
        if first < last:
            assert decompress_part(chunk, slice(first, last), size=len(data)) == data[first:last]


def test_chunks_that_hold_something_else_are_refused() -> None:
    chunk = memoryview(Blosc("zstd").encode(bytes(1000)))
    for wrong in (chunk[:10], chunk[:17], memoryview(Blosc("zstd").encode(bytes(999)))):
        with pytest.raises((ValueError, RuntimeError)):
            decompress_part(wrong, slice(0, 10), size=1000)
    with pytest.raises(ValueError, match="must have 10 bytes"):
        decompress(chunk, np.empty(10, "u1"))
