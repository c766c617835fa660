"""Work in processes of its own: a command as a user runs it, with its time and peak memory, or one function of a benchmark."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep
from typing import IO, Any

from engine.errors import LatentrayError

SECONDS_BETWEEN_LOOKS = 0.05
PROC = Path("/proc")


class StepFailed(LatentrayError):
    """One step of a benchmark did not come through; the row stays in the table with this as its reason."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended well: its wall time from process start to exit, its memory, and what it reported with `--json` ({} without).

    `peak_mb` adds up, over the process and all its descendants, the most memory each of them ever held (MB of 10^6 bytes, pages that
    several share counted in each), None where the system has no /proc. `processes` is how many there were.
    """

    seconds: float
    peak_mb: float | None
    processes: int
    report: dict[str, Any]


def run_latentray(*words: str) -> Finished:
    """Runs `latentray WORDS...` with this Python. Raises StepFailed with the command's last line when it does not exit with 0."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
        start = perf_counter()
        child = subprocess.Popen([sys.executable, "-m", "engine.cli", *words], stdout=output, stderr=complaints)
        peaks = watch(child)
        seconds = perf_counter() - start
        if child.returncode:
            reason = _last_line(_all_of(complaints)) or _last_line(_all_of(output)) or "it said nothing"
            raise StepFailed(f"latentray {words[0]} exited with {child.returncode}: {reason}")
        report = json.loads(_last_line(_all_of(output))) if "--json" in words else {}
    return Finished(seconds, sum(peaks.values()) / 1e6 if peaks else None, len(peaks), report)


def watch(child: subprocess.Popen[bytes]) -> dict[int, int]:
    """Waits for a process to end; returns the most bytes that it and each of its descendants held, by process id."""
    peaks: dict[int, int] = defaultdict(int)
    while child.poll() is None:
        for pid in family(child.pid):
            peaks[pid] = max(peaks[pid], _high_water(pid))
        sleep(SECONDS_BETWEEN_LOOKS)
    return {pid: peak for pid, peak in peaks.items() if peak}


def run_alone(function: str, **arguments: Any) -> Any:
    """What `module:function` returns when it runs in a fresh Python; arguments and result are plain JSON values.

    Whatever it leaves behind (threads, caches, a Ray on this machine) ends with its process. Raises StepFailed with its last line.
    """
    with tempfile.TemporaryDirectory(prefix="latentray-") as scratch:
        result = Path(scratch) / "result.json"
        command = [sys.executable, "-m", "benchmarks.commands", function, json.dumps(arguments), str(result)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode or not result.exists():
            raise StepFailed(f"{function} ended with {done.returncode}: {_last_line(done.stdout) or 'it said nothing'}")
        return json.loads(result.read_text())


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in PROC.glob("[0-9]*/stat") if PROC.exists() else ():
        try:
            # The second field is a name in parentheses that may hold anything; the parent is the second field after it.
            children[int(entry.read_text().rpartition(")")[2].split()[1])].append(int(entry.parent.name))
        except OSError:
            continue  # it has ended meanwhile
    found = [pid]
    for each in found:
        found += children[each]
    return found


def _high_water(pid: int) -> int:
    """The largest resident set a process ever had, in bytes; 0 when it is gone."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _all_of(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def _last_line(output: bytes) -> str:
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _main(function: str, arguments: str, result: str) -> None:
    module, _, name = function.partition(":")
    found = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    _main(*sys.argv[1:])
