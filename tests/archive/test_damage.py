"""One flipped, cut, lost or added byte anywhere: `verify` names the object that has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.archive.chunks import ChunkCodec
from engine.archive.commits import CommitLog, describe_object
from engine.archive.reader import archive_status, open_archive, read_codec_files
from engine.archive.root import ROOT_KEY, plan_beside, read_root, sealed
from engine.archive.verify import Problem, verify_archive
from engine.archive.writer import create_archive
from engine.errors import ArchiveError
from engine.records import Status
from tests.archive.cases import make_archive, make_rows, make_shard, make_spec, publish


def problems(path: Path, level: int = 3) -> list[Problem]:
    """What is wrong, without the notes."""
    return [problem for problem in verify_archive(path, level=level) if not problem.is_note]


def every_object(path: Path) -> list[Path]:
    """All files of an archive, and its plan."""
    return [*sorted(file for file in path.rglob("*") if file.is_file()), plan_beside(path)]


def test_a_whole_archive_has_no_problems_and_no_notes(archive: Path) -> None:
    for level in (1, 2, 3):
        assert verify_archive(archive, level=level) == []


def test_one_flipped_byte_is_found_in_every_object(archive: Path) -> None:
    rng = np.random.default_rng(0)
    tried = 0
    for file in every_object(archive):
        data = file.read_bytes()
        name = str(file.relative_to(archive)) if file.is_relative_to(archive) else file.name
        for at in sorted({0, len(data) - 1, len(data) // 2, int(rng.integers(len(data)))}):
            changed = bytearray(data)
            changed[at] ^= int(rng.integers(1, 256))
            file.write_bytes(changed)
            for level in (2, 3) if at == 0 else (2,):
                assert [problem.object for problem in problems(archive, level)] == [name], f"{name} at {at}, level {level}"
            tried += 1
        file.write_bytes(data)
    assert tried > 150
    assert verify_archive(archive) == []


def test_every_flipped_bit_of_the_root_is_found(archive: Path) -> None:
    root = archive / ROOT_KEY
    data = root.read_bytes()
    for at in range(0, len(data), 31):
        for bit in (0, 5, 7):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            root.write_bytes(changed)
            assert [problem.object for problem in problems(archive, 1)] == [ROOT_KEY], f"byte {at}, bit {bit}"
    root.write_bytes(data.replace(b'"zarr_format":3', b'"zarr_format": 3', 1))
    assert [problem.object for problem in problems(archive, 1)] == [ROOT_KEY]
    with pytest.raises(ArchiveError, match=r"archive is damaged, its zarr\.json differs from its seal"):
        open_archive(archive)


def test_a_lost_or_cut_object_is_found_without_reading_any(archive: Path) -> None:
    for file in every_object(archive)[:-1]:
        key = str(file.relative_to(archive))
        data = file.read_bytes()
        file.unlink()
        expected = "shards/commit" if key.startswith("shards/commit/c/") else key
        assert [problem.object for problem in problems(archive, 1)] == [expected]
        file.write_bytes(data[:-1])
        level = 2 if key.startswith(("codec/", "shards/zarr", "shards/commit/zarr")) or key.endswith("/zarr.json") else 1
        assert [problem.object for problem in problems(archive, level)] == [key]
        file.write_bytes(b"")
        assert [problem.object for problem in problems(archive, level)] == [key]
        file.write_bytes(data)
    assert verify_archive(archive) == []


def test_what_should_not_be_there_is_noted_and_harms_nothing(archive: Path) -> None:
    for key in ("latent/c/7/0/0", "notes.txt", "mse/c/1." + "0" * 32 + ".partial", "shards/commit/c/9"):
        (archive / key).parent.mkdir(parents=True, exist_ok=True)
        (archive / key).write_bytes(b"x")
    found = verify_archive(archive)
    assert all(problem.is_note for problem in found)
    assert [problem.object for problem in found] == ["latent/c/7/0/0", "mse/c/1." + "0" * 32 + ".partial", "notes.txt", "shards/commit/c/9"]


def test_an_object_where_the_record_says_none_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    create_archive(path, make_spec(path, rows=4))
    rows = make_rows(make_shard(0))
    measured = rows.columns["psnr"].copy()
    rows.columns["psnr"][:] = np.nan
    publish(path, make_shard(0), rows)
    stray = ChunkCodec("psnr", read_root(path).columns["psnr"]).encode(0, measured)
    assert stray is not None
    (path / "psnr/c").mkdir()
    (path / "psnr/c/0").write_bytes(stray)
    assert [problem.object for problem in problems(path, 1)] == ["psnr/c/0"]


def test_an_unfinished_archive_says_which_shards_are_pending(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    create_archive(path, make_spec(path, rows=40))
    for index in (2, 3, 7):
        publish(path, make_shard(index, rows=40), make_rows(make_shard(index, rows=40)))
    assert [str(problem) for problem in problems(path)] == ["shards/commit: not finished, 7 of 10 shards are pending: 0-1, 4-6, 8-9"]


def test_a_complete_archive_that_was_not_finalised_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    create_archive(path, make_spec(path, rows=4))
    publish(path, make_shard(0), make_rows(make_shard(0)))
    assert problems(path) == []
    assert [problem.object for problem in verify_archive(path)] == [ROOT_KEY]


def test_a_missing_plan_is_a_note_and_another_plan_a_problem(archive: Path) -> None:
    plan = plan_beside(archive)
    data = plan.read_bytes()
    plan.unlink()
    assert [(problem.object, problem.is_note) for problem in verify_archive(archive)] == [(plan.name, True)]
    plan.write_bytes(data + b" ")
    assert [problem.object for problem in problems(archive, 2)] == [plan.name]


def rewrite(path: Path, shard: int, name: str, values: np.ndarray) -> None:
    """Replaces a column of a shard with checksums, digest and record all in order, as only a wrong writer could."""
    root = read_root(path)
    log = CommitLog(root)
    codec = ChunkCodec(name, root.columns[name])
    data = codec.encode(shard, values)
    assert data is not None
    (path / codec.key(shard)).write_bytes(data)
    receipt = log.read(shard)
    assert receipt is not None
    changed = replace(receipt, objects={**receipt.objects, codec.key(shard): describe_object(data)})
    (path / log.key(shard)).write_bytes(log.encode(changed))
    document = root.document
    document["attributes"].pop("content", None)
    (path / ROOT_KEY).write_bytes(sealed(document))


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("latent", lambda values: np.where(np.arange(4)[:, None, None] == 1, np.nan, values), "row 5 should have a code"),
        ("latent", lambda values: np.where(np.arange(4)[:, None, None] == 1, np.inf, values), "row 5 should have a code"),
        ("status", lambda values: values * 0 + 1, "the failures listed for the shard are not its failed rows, as at row 4"),
        ("status", lambda values: values * (np.arange(4) != 3), "row 7 has no status"),
        ("sample_id", lambda values: values[::-1], "the ids are not those of the plan"),
        ("sample_id", lambda values: np.array(["film-00000-ä", *values[1:]], dtype=object), "rows 0, 4 have one id: film-00000-ä"),
    ],
)
def test_rows_that_contradict_their_record_are_found(archive: Path, name: str, change, what: str) -> None:  # type: ignore[no-untyped-def]
    codec = ChunkCodec(name, read_root(archive).columns[name])
    values = codec.decode(1, (archive / codec.key(1)).read_bytes())
    rewrite(archive, 1, name, change(np.asarray(values, dtype=object) if name == "sample_id" else values))
    assert problems(archive, 2) == []
    found = [problem for problem in problems(archive) if what in problem.what]
    assert [problem.object for problem in found] == [codec.key(1)]


def test_records_that_do_not_fit_their_shard_are_found(archive: Path) -> None:
    log = CommitLog(read_root(archive))
    first, second = (archive / log.key(shard) for shard in (0, 1))
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    assert [problem.object for problem in problems(archive, 1)] == ["zarr.json", "shards/commit/c/0"]
    first.write_bytes(data)
    receipt = log.read(0)
    assert receipt is not None
    fewer = dict(list(receipt.objects.items())[1:])
    first.write_bytes(log.encode(replace(receipt, objects=fewer)))
    assert "does not name this shard's objects" in problems(archive, 1)[-1].what


def test_readers_name_what_is_damaged(archive: Path) -> None:
    record, weights = archive / "shards/commit/c/1", archive / "codec/weights.safetensors/c/0"
    for file, ask in ((record, archive_status), (weights, read_codec_files)):
        data = bytearray(file.read_bytes())
        data[9] ^= 1
        file.write_bytes(data)
        with pytest.raises(ArchiveError, match="damaged") as caught:
            ask(archive)
        assert "\n" not in str(caught.value)
        assert str(file.relative_to(archive)).startswith(str(caught.value).rsplit(": ", 1)[1])


def test_a_shard_of_nothing_but_failures_verifies(tmp_path: Path) -> None:
    path = make_archive(tmp_path / "a.zarr", statuses=(Status.POISON,))
    assert not (path / "latent/c").exists()
    assert verify_archive(path) == []
    assert archive_status(path)["failed"] == 10
