"""What a benchmark ran on: the machine without its name, the versions, the commit, and how busy the machine already was."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

CPU_INFO, MEMORY_INFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")
BUSY_LOAD = 0.25  # of a core each: above it the line says that figures are noisy


def describe_machine() -> dict[str, Any]:
    """Plain JSON values: cpu, cores, memory_gb, gpus, versions, commit, load. Holds neither a host's name nor a path."""
    return {
        "cpu": _cpu_model(),
        "cores": cores(),
        "memory_gb": _memory_gb(),
        "gpus": _gpus(),
        "versions": {"python": platform.python_version(), **_versions()},
        "commit": _commit(),
        "load": round(os.getloadavg()[0], 2),
    }


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_folder(machine: dict[str, Any]) -> str:
    """The folder of this kind of machine under `results/`: processor and cores, then the GPUs, for example `amd-epyc-2c`."""
    cpu = re.sub(r"\((r|tm)\)|@.*|\bcpu\b|\bprocessor\b|\b\d+-core\b", " ", machine["cpu"].lower())
    gpus = [f"{len(machine['gpus'])}x {machine['gpus'][0].partition(' driver ')[0]}"] if machine["gpus"] else []
    return "-".join(_slug(part) for part in (cpu, f"{machine['cores']}c", *gpus))


def machine_line(machine: dict[str, Any]) -> str:
    """One line for a person: `AMD EPYC | 2 cores | 23 GB | no GPU | torch 2.14.1 | ... | commit 1a2b3c4 | load 0.10`."""
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    versions = [f"{name} {number}" for name, number in machine["versions"].items()]
    noisy = " (busy: figures are noisy)" if was_busy(machine) else ""
    parts = [machine["cpu"], f"{machine['cores']} cores", f"{machine['memory_gb']} GB", gpus, *versions, f"commit {machine['commit']}"]
    return " | ".join([*parts, f"load {machine['load']:.2f}{noisy}"])


def was_busy(machine: dict[str, Any]) -> bool:
    """Whether so much else was running that figures are noisy."""
    return bool(machine["load"] > BUSY_LOAD * machine["cores"])


def _slug(text: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", text.lower())) or "unknown"


def _cpu_model() -> str:
    if CPU_INFO.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", CPU_INFO.read_text(), flags=re.MULTILINE)
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> int:
    found = re.search(r"^MemTotal:\s*(\d+) kB", MEMORY_INFO.read_text(), flags=re.MULTILINE) if MEMORY_INFO.exists() else None
    return round(int(found.group(1)) / 2**20) if found else 0


def _gpus() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    return [" driver ".join(part.strip() for part in line.split(",")) for line in done.stdout.splitlines() if line.strip()]


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("torch", "triton", "zarr", "ray"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    # Its distribution is named after the CUDA release it was built for.
    dali = (each.version for each in distributions() if (each.name or "").startswith("nvidia-dali-cuda"))
    return found | {"dali": next(dali, "missing")}


def _commit() -> str:
    checkout = Path(__file__).resolve().parent.parent
    try:
        head = _git("rev-parse", "--short", "HEAD", cwd=checkout)
        return head + ("+changes" if _git("status", "--porcelain", "--untracked-files=no", cwd=checkout) else "")
    except (OSError, subprocess.SubprocessError):
        return "none"


def _git(*words: str, cwd: Path) -> str:
    return subprocess.run(["git", *words], cwd=cwd, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
