"""What is packed without Zarr has the very bytes that Zarr writes, for every array of an archive and every shape of its last chunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from engine.archive.plain_chunk import PlainChunk
from engine.archive.root import read_root
from engine.archive.schema import RowArray
from engine.archive.writer import create_archive
from engine.records import Status
from tests.archive.cases import MIXED, make_rows, make_shard, make_spec

CHUNK = 6
COMPRESSORS: dict[str, list[Any]] = {
    "zstd": [ZstdCodec(level=5), Crc32cCodec()],
    "blosc": [BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", blocksize=4096), Crc32cCodec()],
    "none": [Crc32cCodec()],
}


def by_zarr(dtype: str, fill: Any, compressors: str, values: np.ndarray) -> tuple[dict[str, Any], bytes | None]:
    objects: dict[str, Any] = {}
    array = zarr.create_array(
        zarr.storage.MemoryStore(objects),
        shape=(CHUNK,),
        chunks=(CHUNK,),
        dtype=dtype,
        fill_value=fill,
        compressors=COMPRESSORS[compressors],
        zarr_format=3,
    )
    array[: len(values)] = values
    return array.metadata.to_dict(), objects["c/0"].to_bytes() if "c/0" in objects else None


@given(values=st.lists(st.integers(0, 3), min_size=1, max_size=CHUNK), compressors=st.sampled_from(sorted(COMPRESSORS)))
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "float16", "float32"])
def test_numbers_are_packed_as_by_zarr(dtype: str, values: list[int], compressors: str) -> None:
    column = np.array(values, dtype=dtype)
    fill = np.nan if dtype.startswith("float") else 0
    if dtype.startswith("float"):
        column[column == 0] = np.nan
    document, expected = by_zarr(dtype, fill, compressors, column)
    assert PlainChunk.suits(document)
    assert PlainChunk(document).encode(column) == expected


@given(values=st.lists(st.text(max_size=3), min_size=1, max_size=CHUNK))
def test_strings_are_packed_as_by_zarr(values: list[str]) -> None:
    column = np.array(values, dtype=object)
    document, expected = by_zarr("str", "", "zstd", column)
    assert PlainChunk.suits(document)
    assert PlainChunk(document).encode(column) == expected


@pytest.mark.parametrize("statuses", [MIXED, (Status.DECODE_ERROR,)])
def test_every_array_of_a_small_archive_is_packed_so(tmp_path: Path, statuses: tuple[Status, ...]) -> None:
    path = tmp_path / "films.zarr"
    create_archive(str(path), make_spec(path))
    root = read_root(path)
    assert all(PlainChunk.suits(document) for document in root.columns.values())
    for index in range(root.num_shards):
        for name, values in make_rows(make_shard(index), statuses=statuses).columns.items():
            document = root.columns[name]
            objects: dict[str, Any] = {}
            chunk = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
            array = zarr.create_array(
                zarr.storage.MemoryStore(objects),
                shape=chunk,
                chunks=chunk,
                dtype="str" if document["data_type"] == "string" else document["data_type"],
                fill_value=document["fill_value"] if document["fill_value"] != "NaN" else np.nan,
                compressors=COMPRESSORS["none"] if name == "source_sha256" else [_compressor(document), Crc32cCodec()],
                zarr_format=3,
            )
            array[: len(values)] = values
            written = next((data.to_bytes() for key, data in objects.items() if key.startswith("c/")), None)
            assert PlainChunk(document).encode(values) == written


def _compressor(document: dict[str, Any]) -> Any:
    codec = document["codecs"][1]
    return {"zstd": ZstdCodec, "blosc": BloscCodec}[codec["name"]].from_dict(codec)


def test_what_has_inner_chunks_is_left_to_zarr(tmp_path: Path) -> None:
    path = tmp_path / "films.zarr"
    more = {"box": RowArray(dtype="u2", dims=("edge",), shape=(4,)), "map": RowArray(dtype="u1", dims=("y", "x"), shape=(64, 64))}
    create_archive(str(path), make_spec(path, rows=4096, shard_rows=4096, latent_shape=(1, 512), plan=False, more=more))
    columns = read_root(path).columns
    assert [name for name, document in columns.items() if not PlainChunk.suits(document)] == ["latent", "map"]
