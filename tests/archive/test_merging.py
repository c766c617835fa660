"""Archives join into one that verifies, whether their shards line up or not."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.archive.merge import merge_archives
from engine.archive.reader import archive_status, list_failures, open_archive, read_codec_files, read_receipts
from engine.archive.root import plan_beside, read_root
from engine.archive.verify import verify_archive
from engine.archive.writer import create_archive
from engine.errors import ArchiveError, FingerprintMismatch
from engine.source.plan import open_plan
from engine.verbs import collect, failures, merge, status, verify
from tests.archive.cases import CODEC_FILES, make_archive, make_spec


def parts(tmp_path: Path, *rows: int) -> list[Path]:
    """Finished archives of so many rows, with different films."""
    return [make_archive(tmp_path / f"{name}.zarr", rows=count, prefix=name, seed=count) for name, count in zip("abc", rows, strict=False)]


@pytest.mark.parametrize("rows", [(8, 4, 10), (10, 7, 9), (3, 2), (1, 1, 1)])
def test_rows_come_one_after_another(tmp_path: Path, rows: tuple[int, ...]) -> None:
    old = parts(tmp_path, *rows)
    out = tmp_path / "out.zarr"
    merge_archives(old, out)
    assert verify_archive(out) == []
    merged, first = open_archive(out), 0
    for path in old:
        dataset = open_archive(path)
        for name in (*dataset.data_vars, "sample_id"):
            values = merged[name].to_numpy()[first : first + dataset.sizes["sample"]]
            np.testing.assert_array_equal(values, dataset[name].to_numpy())
        first += dataset.sizes["sample"]
    assert merged.sizes["sample"] == first == sum(rows)
    expected = [failure.sample_id for path in old for failure in list_failures(path)]
    assert [failure.sample_id for failure in list_failures(out)] == expected
    assert [failure.row for failure in list_failures(out)] == list(np.flatnonzero(merged["status"].to_numpy() != 1))
    assert read_codec_files(out) == CODEC_FILES
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".", "out"))) == ["out.plan.parquet", "out.zarr"]


def test_objects_are_copied_byte_for_byte_where_shards_line_up(tmp_path: Path) -> None:
    first, second = parts(tmp_path, 8, 6)
    out = tmp_path / "out.zarr"
    merge_archives([first, second], out)
    for shard in range(2):
        assert (out / f"latent/c/{shard + 2}/0/0").read_bytes() == (second / f"latent/c/{shard}/0/0").read_bytes()
    assert read_receipts(out)[2].made_by == read_receipts(second)[0].made_by
    merge_archives([second, first], tmp_path / "other.zarr")
    assert "merged_from" in read_receipts(tmp_path / "other.zarr")[1].made_by


def test_plans_join_with_the_labels_of_all(tmp_path: Path) -> None:
    old = parts(tmp_path, 10, 7)
    merge_archives(old, tmp_path / "out.zarr")
    plan = open_plan(plan_beside(tmp_path / "out.zarr"))
    root = read_root(tmp_path / "out.zarr")
    assert (plan.num_rows, plan.shard_rows, plan.digest) == (17, 4, root.attributes["plan"]["digest"])
    assert plan.label_names == ("a", "b")
    assert plan.labels("b").to_pylist() == [None] * 10 + [str(row) for row in range(7)]
    rows = [ref for shard in plan.shards() for ref in shard.refs]
    assert [ref.row for ref in rows] == list(range(17))
    assert [ref.sample_id for ref in rows] == list(open_archive(tmp_path / "out.zarr")["sample_id"].to_numpy())
    assert pq.read_table(plan.path)["shard"].to_pylist() == [row // 4 for row in range(17)]


def test_without_all_plans_there_is_none(tmp_path: Path) -> None:
    old = parts(tmp_path, 4, 4)
    plan_beside(old[1]).unlink()
    merge_archives(old, tmp_path / "out.zarr")
    assert [problem.is_note for problem in verify_archive(tmp_path / "out.zarr")] == [True]


def test_what_cannot_be_merged_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    first, second = parts(tmp_path, 8, 6)
    other = make_spec(tmp_path / "z.zarr").fingerprint_parts | {"refine": {"steps": 99}}
    create_archive(tmp_path / "z.zarr", make_spec(tmp_path / "z.zarr", fingerprint_parts=other))
    before = sorted(path.name for path in tmp_path.iterdir())
    out = tmp_path / "out.zarr"
    for paths, kind, message in (
        ([first], ArchiveError, "two archives or more: 1"),
        ([first, first], ArchiveError, r"share 8 sample ids; .*: a-00000-ä, a-00001-ä, a-00002-ä, a-00003-ä, a-00004-ä \.\.\."),
        ([first, tmp_path / "z.zarr"], FingerprintMismatch, "z.zarr in refine.steps 20 -> 99"),
    ):
        with pytest.raises(kind, match=message):
            merge_archives(paths, out)
    (second / "shards/commit/c/0").rename(tmp_path / "record")
    with pytest.raises(ArchiveError, match="not finished, 1 of 2 shards are pending"):
        merge_archives([first, second], out)
    (tmp_path / "record").rename(second / "shards/commit/c/0")
    psnr = second / "psnr/c/0"
    psnr.write_bytes(psnr.read_bytes()[::-1])
    with pytest.raises(ArchiveError, match="archive is damaged"):
        merge_archives([first, second], out)
    with pytest.raises(ArchiveError, match="something of that name already"):
        merge_archives([first, second], second)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def ask(verb, *words: str) -> int:  # type: ignore[no-untyped-def]
    """Runs a verb as the command line does."""
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    parser.add_argument("--json", action="store_true")
    return int(verb.run(parser.parse_args(words)) or 0)


def test_the_verbs_print_text_or_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = map(str, parts(tmp_path, 8, 6))
    out = str(tmp_path / "out.zarr")
    assert ask(merge, first, second, "--out", out) == 0
    assert capsys.readouterr().out == f"2 archives with 14 rows in 4 shards: {out}\n"
    assert ask(status, out, "--json") == 0
    assert json.loads(capsys.readouterr().out) == archive_status(out)
    assert ask(status, out) == 0
    assert "14 rows: 10 ok, 4 failed, 0 pending\n4 of 4 shards done" in capsys.readouterr().out
    assert ask(failures, out) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["id\tstage\treason", "a-00002-ä\tdecode\ta reason"]
    assert ask(verify, out) == 0
    assert capsys.readouterr().out == "level 3: whole\n"
    Path(out, "mse/c/1").unlink()
    assert ask(verify, out, "--json", "--level", "1") == 1
    expected = {"level": 1, "ok": False, "problems": [{"object": "mse/c/1", "what": "is missing", "note": False}]}
    assert json.loads(capsys.readouterr().out) == expected
    assert ask(verify, out, "--level", "4") == 1
    assert capsys.readouterr().out == "mse/c/1: is missing\nlevel 4: 1 problems\n"
    Path(out, "shards/commit/c/3").unlink()
    assert ask(collect, out) == 0
    assert capsys.readouterr().out.startswith("removed 12 files, ")
