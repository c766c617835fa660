"""`latentray repair` as an operator gives it: damage, a dry run, repair, the same encode, whole again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.cli import main


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, object], str]:
    code = main([*map(str, words), "--json"])
    told = capsys.readouterr()
    return code, json.loads(told.out.splitlines()[-1]) if told.out else {}, told.err


def test_a_damaged_archive_is_whole_after_repair_and_the_same_encode(
    small_films: Path, small_codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "films.zarr"
    encode = ["encode", small_films, "--archive", archive, "--codec", small_codec, "--workers", "0", "--film-size", "64"]
    encode += ["--shard-rows", "8", "--quiet"]
    assert run(capsys, *encode)[0] == 0
    before = (archive / "latent/c/2/0/0").read_bytes()
    (archive / "latent/c/2/0/0").write_bytes(before[:-1])
    code, told, _ = run(capsys, "repair", archive, "--dry-run")
    assert (code, told["dry_run"], told["requeued"]) == (0, True, [2])
    assert run(capsys, "status", archive)[1]["pending"] == 0
    assert run(capsys, "repair", archive)[1]["requeued"] == [2]
    assert run(capsys, "status", archive)[1]["pending"] == 8
    assert run(capsys, *encode)[0] == 0
    assert (archive / "latent/c/2/0/0").read_bytes() == before
    assert run(capsys, "verify", archive)[0] == 0
    assert main(["repair", str(archive)]) == 0
    assert capsys.readouterr().out == "whole, nothing to mend\n"


def test_what_cannot_be_repaired_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repair", str(tmp_path / "nothing.zarr")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("latentray repair: there is no archive")
    assert err.count("\n") == 1
