"""Arrays that not every archive has: written, verified, merged and collected as all others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.archive.cleaning import collect_garbage
from engine.archive.merge import merge_archives
from engine.archive.reader import open_archive
from engine.archive.root import read_root
from engine.archive.schema import RowArray, further_arrays
from engine.archive.verify import verify_archive
from engine.archive.writer import ShardWriter, create_archive, finalise
from engine.errors import ConfigError
from tests.archive.cases import make_rows, make_shard, make_spec

MAP = RowArray(dtype="i1", dims=("map_y", "map_x"), shape=(1024, 700), attributes={"scale_factor": 0.5})
MORE = {"map": MAP, "share": RowArray(dtype="f4", attributes={"units": "1"})}


def make(path: Path, *, rows: int, shard_rows: int, prefix: str = "film", last: int | None = None) -> Path:
    create_archive(path, make_spec(path, rows=rows, shard_rows=shard_rows, prefix=prefix, more=MORE))
    writer = ShardWriter(path)
    for index in range(-(-rows // shard_rows) if last is None else last):
        shard = make_shard(index, rows=rows, shard_rows=shard_rows, prefix=prefix)
        filled, n = make_rows(shard), len(shard.refs)
        filled.columns["map"] = np.zeros((n, *MAP.shape), "i1")
        filled.columns["map"][:, :4, :4] = np.array([ref.row - 3 for ref in shard.refs])[:, None, None]
        filled.columns["share"] = np.array([ref.row for ref in shard.refs], "f4")
        writer.publish(shard, filled, made_by={}, seconds={})
    if last is None:
        finalise(path)
    return path


def test_they_are_read_in_small_pieces_and_sealed(tmp_path: Path) -> None:
    path = make(tmp_path / "a.zarr", rows=10, shard_rows=4)
    assert verify_archive(path) == []
    dataset = open_archive(path)
    assert dataset["map"].dims == ("sample", "map_y", "map_x")
    assert dataset["map"].encoding["chunks"] == (1, *MAP.shape)
    assert dataset["map"].to_numpy()[:, 3, 3].tolist() == [(row - 3) * 0.5 for row in range(10)]
    assert not dataset["map"].to_numpy()[:, 4, 4].any()
    assert further_arrays(read_root(path).columns) == MORE


@pytest.mark.parametrize("rows", [(8, 5), (5, 8)], ids=["lined up", "not lined up"])
def test_they_merge(tmp_path: Path, rows: tuple[int, int]) -> None:
    parts = [make(tmp_path / f"{name}.zarr", rows=count, shard_rows=4, prefix=name) for name, count in zip("ab", rows, strict=True)]
    merge_archives(parts, tmp_path / "both.zarr")
    assert verify_archive(tmp_path / "both.zarr") == []
    for name in MORE:
        both = np.concatenate([open_archive(part)[name].to_numpy() for part in parts])
        np.testing.assert_array_equal(open_archive(tmp_path / "both.zarr")[name].to_numpy(), both)


def test_damage_is_named_and_what_no_record_names_is_removed(tmp_path: Path) -> None:
    path = make(tmp_path / "a.zarr", rows=8, shard_rows=4, last=1)
    stray = path / "map/c/1/0/0"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"half an object")
    assert collect_garbage(path).files == 1
    assert not stray.exists()
    whole = bytearray((path / "map/c/0/0/0").read_bytes())
    whole[len(whole) // 4] ^= 1
    (path / "map/c/0/0/0").write_bytes(whole)
    assert [problem.object for problem in verify_archive(path) if "sha256" in problem.what] == ["map/c/0/0/0"]


@pytest.mark.parametrize("name", ["latent", "status", "codec", "shards", "a/b", ""])
def test_names_that_are_taken_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot have these names"):
        make_spec(tmp_path / "a.zarr", more={name: MORE["share"]})
