"""What cannot be written is refused in one clear line, and leaves nothing half-written that a later run would trust."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from engine.archive.commits import CommitLog, committed_shards, record_text
from engine.archive.reader import archive_status, read_codec_files
from engine.archive.root import check_fingerprint, fingerprint, read_root, sealed
from engine.archive.verify import verify_archive
from engine.archive.writer import clean_uncommitted, create_archive, finalise
from engine.errors import ArchiveError, ConfigError, FingerprintMismatch
from tests.archive.cases import MIXED, make_rows, make_shard, make_spec, objects, publish

ROOT = Path(__file__).parents[2]


def _publish_40(path: Path) -> None:
    for index in range(40):
        shard = make_shard(index, rows=1280, shard_rows=32)
        publish(path, shard, make_rows(shard, code=(40, 40)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_is_one_clear_line_and_nothing_half_written(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(disk)], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let root mount a disk")
    try:
        path = disk / "a.zarr"
        create_archive(path, make_spec(path, rows=1280, shard_rows=32, latent_shape=(40, 40)))
        with pytest.raises(ArchiveError, match="the disk is full; free space and run the same command again") as caught:
            _publish_40(path)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 2
        done = committed_shards(path)
        assert done
        assert [it.object for it in verify_archive(path) if not it.is_note] == ["shards/commit"]
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        clean_uncommitted(path, set(range(40)) - done)
        _publish_40(path)
        finalise(path)
        assert verify_archive(path) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_limit_on_file_size_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    create_archive(path, make_spec(path, rows=32, shard_rows=32, latent_shape=(40, 40)))
    before = objects(path)
    code = (
        "import resource, sys; from tests.archive.cases import make_rows, make_shard, publish\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); shard = make_shard(0, rows=32, shard_rows=32)\n"
        "publish(sys.argv[1], shard, make_rows(shard, code=(40, 40)))"
    )
    tried = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "ArchiveError: cannot write the archive: a file may not grow this large here; raise the limit" in tried.stderr
    assert objects(path) == before


def test_a_folder_without_permission_is_one_clear_line(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from engine.archive.writer import create_archive\n"
        "from tests.archive.cases import make_spec; path = Path(sys.argv[1]); spec = make_spec(path)\n"
        "os.chmod(path.parent, 0o555); os.geteuid() or os.setuid(65534)\n"
        "create_archive(path, spec)"
    )
    (tmp_path / "locked").mkdir()
    os.chmod(tmp_path.parent.parent, 0o755)
    os.chmod(tmp_path.parent, 0o755)
    os.chmod(tmp_path, 0o755)
    tried = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "locked" / "a.zarr")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "ArchiveError: cannot write the archive: no permission; use another --archive" in tried.stderr


def test_a_changed_fingerprint_names_what_changed(archive: Path) -> None:
    parts = read_root(archive).parts
    check_fingerprint(archive, parts)
    changed = {**parts, "refine": {"steps": 50, "lr": 0.1}, "plan": "another"}
    with pytest.raises(FingerprintMismatch) as caught:
        check_fingerprint(archive, changed)
    assert caught.value.exit_code == 3
    assert str(caught.value).endswith(": plan plan of 10 film -> another, refine.lr absent -> 0.1, refine.steps 20 -> 50")
    assert fingerprint(parts) == read_root(archive).attributes["fingerprint"] != fingerprint(changed)
    assert fingerprint({"a": (1, 2)}) == fingerprint({"a": [1, 2]}) != fingerprint({"a": [1, 2.0]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_rows": 0}, "1 row or more"),
        ({"latent_shape": (3,)}, "a length of 1 or more for each"),
        ({"latent_dims": ("sample", "channel")}, "must differ"),
        ({"latent_dtype": "f8"}, "f2 or f4"),
        ({"plan_digest": "other"}, "fingerprint part plan must be other"),
        ({"attributes": {"seal": ""}}, "the archive's own: seal"),
    ],
)
def test_a_specification_that_makes_no_archive_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_spec(tmp_path / "a.zarr", **changes)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: rows.columns.pop("mse"), "columns must be"),
        (lambda rows: rows.columns.update(mse=rows.columns["mse"].astype("f8")), "mse must be float32"),
        (lambda rows: rows.columns.update(mse=rows.columns["mse"][:3]), r"mse must be float32 of \(4,\)"),
        (lambda rows: rows.columns["status"].__setitem__(1, 0), "row 1 has no status"),
        (lambda rows: rows.columns["status"].__setitem__(1, 2), "row 1 failed, but its code is not NaN"),
        (lambda rows: rows.columns["latent"].__setitem__((1, 0, 0), np.inf), "row 1 should have a code, but it is not finite"),
        (lambda rows: rows.columns["sample_id"].__setitem__(1, "x"), "sample ids differ"),
        (lambda rows: rows.failures.clear(), "not its failed rows, as at row 2"),
    ],
)
def test_rows_that_are_not_the_shards_are_refused(tmp_path: Path, spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "a.zarr"
    create_archive(path, make_spec(path))
    rows = make_rows(make_shard(0), statuses=MIXED)
    spoil(rows)
    with pytest.raises(ValueError, match=message):
        publish(path, make_shard(0), rows)
    assert committed_shards(path) == set()
    with pytest.raises(ValueError, match="must have rows 8 to 9"):
        publish(path, make_shard(2, rows=11), make_rows(make_shard(2, rows=11)))


@pytest.mark.parametrize(
    "change",
    [
        {"rows": {"ok": "four"}},
        {"rows": 4},
        {"objects": []},
        {"num_rows": None},
        {"made_by": "me"},
        {"failures": [{"row": 0}]},
        {"failures": 7},
        {"objects": {"latent/c/0/0/0": {"sha256": 5, "bytes": 1}}},
    ],
)
def test_a_forged_record_is_a_damaged_one(archive: Path, change: dict[str, object]) -> None:
    log = CommitLog(read_root(archive))
    receipt = log.read(0)
    assert receipt is not None
    text = json.dumps({**json.loads(record_text(receipt)), **change}).encode()
    body = struct.pack("<II", 1, len(text)) + text
    (archive / log.key(0)).write_bytes(body + struct.pack("<I", google_crc32c.value(body)))
    with pytest.raises(ArchiveError, match="commit record is damaged"):
        archive_status(archive)
    assert [problem.object for problem in verify_archive(archive) if not problem.is_note] == [log.key(0)]


def test_an_embedded_file_that_leads_elsewhere_is_not_read(archive: Path) -> None:
    root = read_root(archive)
    document = json.loads(json.dumps(root.document))
    nodes = document["consolidated_metadata"]["metadata"]
    nodes["codec/../../secret"] = nodes["codec/codec.json"]
    (archive / "zarr.json").write_bytes(sealed(document))
    with pytest.raises(ArchiveError, match="of a name that no codec has"):
        read_codec_files(archive)
