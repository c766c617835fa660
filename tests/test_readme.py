"""Every command and every block of Python in the README runs, on small films under the names that it uses."""

from __future__ import annotations

import argparse
import csv
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.cli import main
from engine.verbs import encode
from tests.networks.published_layouts import SegalGenerator, lightning_file

# One process runs them all, in their order: the block of Python reads what the commands have written.
pytestmark = pytest.mark.xdist_group("readme")

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def commands(pattern: str) -> list[str]:
    return re.findall(pattern, README, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with train.csv and manifest.csv; the commands run in it, in the README's order."""
    from engine.source.phantom import phantom_png

    folder = tmp_path_factory.mktemp("readme")
    (folder / "films").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name, count in (("train", 20), ("manifest", 6)):
            with (folder / f"{name}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["path", "view"])
                for index in range(count):
                    path = f"films/{name}-{index}.png"
                    (folder / path).write_bytes(phantom_png(len(name), index, size=192))
                    writer.writerow([path, "PA"])
        torch.manual_seed(0)
        torch.save(lightning_file(SegalGenerator(), SegalGenerator()), folder / "chexgan_generator.pt")  # the layout, small
        patch.chdir(folder)
        yield folder


def test_commands_run_and_print_what_is_shown(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = commands(r"^\$ (latentray .*)$")
    assert len(shown) >= 5
    for command in shown:
        assert main(shlex.split(command)[1:]) == 0, command
        printed = capsys.readouterr().out.splitlines()
        answer = README.split(f"$ {command}\n", 1)[1].splitlines()[: len(printed)]
        assert [_shape(line) for line in printed] == [_shape(line) for line in answer], command


def _shape(line: str) -> str:
    """A line without its figures and spacing, which depend on films and machine, and without folders before `runs/`."""
    return re.sub(r"\s+", " ", re.sub(r"-?[\d,]*\.?\d+", "#", re.sub(r"\S*/runs/", "runs/", line))).strip()


@pytest.mark.slow
def test_the_python_block_runs(workplace: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block + "\nprint(codes.shape)"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(6, ")


def test_cluster_commands_take_what_encode_takes() -> None:
    lines = commands(r"^ray job submit (.*)$")
    assert len(lines) == 2
    for line in lines:
        own, script = line.split("-- ", 1)
        assert own.split() in ([], ["--working-dir", "."])
        words = shlex.split(script)
        assert words[: len(words) - words[::-1].index("engine/encode_dataset.py")][-1] == "engine/encode_dataset.py"
        parser = argparse.ArgumentParser()
        encode.add_arguments(parser)
        assert parser.parse_args(words[words.index("engine/encode_dataset.py") + 1 :]).archive == "/data/films.zarr"


@pytest.mark.slow
def test_the_demo_runs_as_the_makefile_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = (ROOT / "Makefile").read_text().split("demo: setup\n", 1)[1].split("\n\n")[0]
    monkeypatch.chdir(tmp_path)
    for line in recipe.splitlines():
        few = line.replace("--count 48", "--count 6")
        assert line.strip() in README, line
        assert main(shlex.split(few)[1:]) == 0, line
    assert (tmp_path / "runs" / "demo" / "index.html").stat().st_size > 10_000
    assert "bytes/image" in capsys.readouterr().out


def test_pictures_and_files_that_the_readme_names_are_there() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target
    assert len(README.splitlines()) < 250
