"""What is said of a machine: enough to read the figures, nothing that names it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from benchmarks.machine import describe_machine, machine_folder, machine_line

QUIET = {
    "cpu": "AMD EPYC 9R14 96-Core Processor",
    "cores": 2,
    "memory_gb": 24,
    "gpus": [],
    "versions": {"torch": "2.14.1"},
    "commit": "1a2b3c4",
}


def test_description_is_json_without_host_or_path() -> None:
    machine = describe_machine()
    text = json.dumps(machine)
    assert machine["cores"] >= 1
    assert machine["memory_gb"] >= 1
    assert {"python", "torch", "triton", "zarr", "ray", "dali"} == set(machine["versions"])
    assert socket.gethostname() not in text
    assert str(Path(__file__).parent.parent.parent) not in text


@pytest.mark.parametrize(
    ("cpu", "gpus", "folder"),
    [
        ("AMD EPYC", [], "amd-epyc-2c"),
        ("AMD EPYC 9R14 96-Core Processor", [], "amd-epyc-9r14-2c"),
        ("Intel(R) Xeon(R) Platinum 8488C CPU @ 2.40GHz", [], "intel-xeon-platinum-8488c-2c"),
        ("AMD EPYC", ["NVIDIA H200 driver 575.51", "NVIDIA H200 driver 575.51"], "amd-epyc-2c-2x-nvidia-h200"),
        ("", [], "unknown-2c"),
    ],
)
def test_folder_is_the_kind_of_machine(cpu: str, gpus: list[str], folder: str) -> None:
    assert machine_folder({"cpu": cpu, "cores": 2, "gpus": gpus}) == folder


def test_line_says_when_the_machine_was_busy() -> None:
    assert machine_line(QUIET | {"load": 0.1}).endswith("24 GB | no GPU | torch 2.14.1 | commit 1a2b3c4 | load 0.10")
    assert machine_line(QUIET | {"load": 1.9}).endswith("load 1.90 (busy: figures are noisy)")
