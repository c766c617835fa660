"""Arrays of byte strings beside the codes: written, committed, verified, merged, and read by plain Zarr without a warning."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from engine.archive.merge import merge_archives
from engine.archive.reader import open_archive, read_values
from engine.archive.schema import RowArray
from engine.archive.verify import verify_archive
from engine.archive.writer import ShardWriter, create_archive, finalise
from engine.errors import ArchiveError
from engine.records import ShardRows, Status
from tests.archive.cases import MIXED, make_rows, make_shard, make_spec

LAYER = {"layer": RowArray(dtype="bytes", attributes={"long_name": "films"})}


def layers(first: int, count: int, status: np.ndarray) -> np.ndarray:
    column = np.full(count, b"", dtype=object)
    for at in range(count):
        if status[at] == Status.OK:
            column[at] = np.random.default_rng(first + at).bytes(17 * (first + at + 1))
    return column


def make_layered(path: Path, *, rows: int = 10, shard_rows: int = 4, prefix: str = "film") -> np.ndarray:
    create_archive(str(path), make_spec(path, rows=rows, shard_rows=shard_rows, prefix=prefix, more=LAYER))
    writer = ShardWriter(str(path))
    kept = []
    for index in range(-(-rows // shard_rows)):
        shard = make_shard(index, rows=rows, shard_rows=shard_rows, prefix=prefix)
        made = make_rows(shard, statuses=MIXED)
        column = layers(shard.refs[0].row, len(shard.refs), made.columns["status"])
        writer.publish(shard, replace(made, columns={**made.columns, "layer": column}), made_by={}, seconds={})
        kept.append(column)
    finalise(str(path))
    return np.concatenate(kept)


@pytest.mark.parametrize("shard_rows", [1, 4])
def test_rows_of_any_length_come_back_through_xarray_and_zarr(tmp_path: Path, shard_rows: int) -> None:
    kept = make_layered(tmp_path / "films.zarr", shard_rows=shard_rows)
    assert len({len(row) for row in kept}) > 3
    with xr.open_zarr(tmp_path / "films.zarr", chunks=None) as opened:  # a warning would be an error
        assert opened["layer"].values.tolist() == kept.tolist()
        assert opened["layer"][7].values.item() == kept[7]
    assert zarr.open_group(tmp_path / "films.zarr", mode="r")["layer"][3:6].tolist() == kept[3:6].tolist()
    assert read_values(open_archive(tmp_path / "films.zarr"), "layer", [9, 0]).tolist() == [kept[9], kept[0]]


def test_the_type_is_called_as_it_is_registered(tmp_path: Path) -> None:
    make_layered(tmp_path / "films.zarr")
    own = json.loads((tmp_path / "films.zarr" / "layer" / "zarr.json").read_text())
    root = json.loads((tmp_path / "films.zarr" / "zarr.json").read_text())
    assert own["data_type"] == root["consolidated_metadata"]["metadata"]["layer"]["data_type"] == "bytes"


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_whole_archive_verifies_and_a_flipped_byte_is_named(tmp_path: Path, level: int) -> None:
    make_layered(tmp_path / "films.zarr")
    assert verify_archive(tmp_path / "films.zarr", level=level) == []
    place = tmp_path / "films.zarr" / "layer" / "c" / "1"
    data = bytearray(place.read_bytes())
    data[len(data) // 3] ^= 0x10
    place.write_bytes(data)
    found = [problem.object for problem in verify_archive(tmp_path / "films.zarr", level=level)]
    assert found == ([] if level == 1 else ["layer/c/1"])
    if level == 3:
        with pytest.raises(ArchiveError, match="the archive is damaged"):
            read_values(open_archive(tmp_path / "films.zarr"), "layer")


@pytest.mark.parametrize("rows", [8, 6])  # whole shards are copied, others written anew
def test_merging_keeps_every_row(tmp_path: Path, rows: int) -> None:
    kept = [make_layered(tmp_path / f"{name}.zarr", rows=rows, prefix=name) for name in ("a", "b")]
    merge_archives([tmp_path / "a.zarr", tmp_path / "b.zarr"], tmp_path / "both.zarr")
    assert read_values(open_archive(tmp_path / "both.zarr"), "layer").tolist() == np.concatenate(kept).tolist()
    assert verify_archive(tmp_path / "both.zarr", level=3) == []


def test_a_column_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "films.zarr"
    create_archive(str(path), make_spec(path, more=LAYER))
    shard = make_shard(0)
    rows = make_rows(shard)
    wrong = ShardRows(columns={**rows.columns, "layer": np.zeros(4, dtype="u1")}, failures=rows.failures)
    with pytest.raises(ValueError, match="layer must be bytes"):
        ShardWriter(str(path)).publish(shard, wrong, made_by={}, seconds={})
