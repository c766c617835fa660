"""The cache of exported graphs: loads what it kept, trusts nothing that is not its own, and never stands in the way."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import ExportedProgram, export

from engine.encode.graph_cache import cache_folder, cached_program

KEY = {"codec": "d" * 64, "loss": "mse=1", "resolution": 64, "precision": "fp32"}
ROWS = torch.arange(12.0).reshape(4, 3)


class Counted:
    """Exports a linear layer with weights of `value`, and counts how often."""

    def __init__(self, value: float) -> None:
        self.value, self.count = value, 0

    def __call__(self) -> ExportedProgram:
        self.count += 1
        layer = nn.Linear(3, 2).requires_grad_(False)
        layer.weight.fill_(self.value)
        layer.bias.fill_(1.0)
        return export(layer, (ROWS,))


def result(program: ExportedProgram) -> torch.Tensor:
    found: torch.Tensor = program.module()(ROWS)
    return found


def test_the_second_start_loads(tmp_path: Path) -> None:
    build = Counted(1.0)
    first, second = (cached_program(build, key=KEY, root=tmp_path) for _ in range(2))
    assert build.count == 1
    assert torch.equal(result(first), result(second))
    assert [path.suffix for path in (tmp_path / "graphs").iterdir()] == [".pt2"]


@pytest.mark.parametrize("part", KEY)
def test_another_key_is_another_graph(tmp_path: Path, part: str) -> None:
    cached_program(Counted(1.0), key=KEY, root=tmp_path)
    other = Counted(2.0)
    cached_program(other, key=KEY | {part: "other"}, root=tmp_path)
    assert other.count == 1


def test_another_torch_is_another_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached_program(Counted(1.0), key=KEY, root=tmp_path)
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    build = Counted(1.0)
    cached_program(build, key=KEY, root=tmp_path)
    assert build.count == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "empty", "open to others"])
def test_a_damaged_or_foreign_file_is_replaced_with_one_warning(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    cached_program(Counted(1.0), key=KEY, root=tmp_path)
    (path,) = (tmp_path / "graphs").iterdir()
    data = bytearray(path.read_bytes())
    if damage == "foreign":
        cached_program(Counted(3.0), key=KEY | {"loss": "lpips=1"}, root=tmp_path)
        (other,) = set((tmp_path / "graphs").iterdir()) - {path}
        other.replace(path)
    elif damage == "open to others":
        path.chmod(0o666)
    elif damage == "flipped":
        data[: len(data) // 2] = bytes(len(data) // 2)
        path.write_bytes(data)
    else:
        path.write_bytes(b"" if damage == "empty" else data[: len(data) // 2])
    build = Counted(1.0)
    with caplog.at_level(logging.WARNING):
        program = cached_program(build, key=KEY, root=tmp_path)
    assert build.count == 1
    assert torch.equal(result(program), result(build()))
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING and record.name.startswith("engine")]
    assert len(warnings) == 1
    assert "\n" not in warnings[0].getMessage()
    again = Counted(1.0)
    cached_program(again, key=KEY, root=tmp_path)
    assert again.count == 0


def test_a_cache_that_cannot_be_written_is_no_hindrance(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "graphs").write_text("in the way")
    build = Counted(1.0)
    with caplog.at_level(logging.WARNING):
        assert result(cached_program(build, key=KEY, root=tmp_path)).shape == (4, 2)
    assert "cannot be kept" in caplog.text


def test_folders_are_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    folder = cache_folder("tensorrt", "machine")
    assert folder == tmp_path / "xdg" / "latentray" / "tensorrt" / "machine"
    assert {stat.S_IMODE(part.stat().st_mode) for part in (folder, folder.parent, folder.parent.parent)} == {0o700}
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the specification says to ignore
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "latentray"
