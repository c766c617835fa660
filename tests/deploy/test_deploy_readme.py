"""deploy/README.md: its table is what `sizing.py` makes of the results files, and its lines are lines that latentray takes."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest
import yaml

from engine.verbs import encode
from tests.deploy.script import loaded

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "deploy/README.md").read_text()


def test_the_table_is_that_of_the_results() -> None:
    assert loaded("deploy/sizing.py").table() in README


def test_a_row_is_the_sum_of_what_was_measured() -> None:
    sizing = loaded("deploy/sizing.py")
    *_, refined = sizing.CASES
    (_, encoder), (steps, step) = refined.parts
    assert refined.seconds() == pytest.approx(1 / encoder.rate() + steps / step.rate())
    assert f"| {3600 / refined.seconds() / 2:.1f} |" in refined.line()  # two cores
    assert encoder.cores() == 2


def test_what_is_not_in_the_results_is_said() -> None:
    sizing = loaded("deploy/sizing.py")
    missing = sizing.Measured(sizing.CASES[0].parts[0][1].file, "encode on a GPU")
    with pytest.raises(LookupError, match="encode on a GPU"):
        missing.rate()


def encode_lines() -> list[list[str]]:
    """The words that `encode` gets, from every file of deploy/ that runs it."""
    lines = [line for line in README.splitlines() if "--archive" in line and "dry-run" not in line]
    lines.append(next(yaml.safe_load_all((ROOT / "deploy/rayjob.yaml").read_text()))["spec"]["entrypoint"])
    lines += re.findall(r"sbatch deploy/slurm.sh .*", (ROOT / "deploy/slurm.sh").read_text())[:1]
    return [shlex.split(re.split(r"encode_dataset\.py |latentray encode |slurm\.sh ", line)[-1]) for line in lines]


@pytest.mark.parametrize("words", encode_lines(), ids=lambda words: words[0])
def test_every_line_is_one_that_encode_takes(words: list[str]) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    encode.add_arguments(parser)
    args = parser.parse_args(words)
    assert args.archive.endswith(".zarr")


def test_every_file_that_it_names_is_there() -> None:
    named = set(re.findall(r"(?:deploy|engine)/[\w.]+\.\w+|deploy/Dockerfile", README))
    assert len(named) >= 5
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []
