"""Processes of their own: what they return, how they fail, what they weigh."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.commands import StepFailed, run_alone, run_latentray, watch

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


def where_am_i(*, factor: int) -> dict[str, int]:
    """Runs in the other process."""
    print("noise on stdout")
    return {"pid": os.getpid(), "product": 7 * factor}


def test_a_function_runs_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    found = run_alone(f"{Path(__file__).stem}:where_am_i", factor=6)
    assert found["product"] == 42
    assert found["pid"] != os.getpid()


def test_a_function_that_fails_is_a_failed_step_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with pytest.raises(StepFailed, match=r"where_am_i ended with 1: TypeError: .*unexpected keyword"):
        run_alone(f"{Path(__file__).stem}:where_am_i", size=6)


def test_a_command_that_fails_is_a_failed_step_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"latentray verify exited with 2: latentray verify: .*none.zarr"):
        run_latentray("verify", str(tmp_path / "none.zarr"))


@needs_proc
def test_memory_counts_children_and_what_was_freed() -> None:
    """The child holds 200 MB and frees them, and ends before its parent does."""
    child = "data = bytearray(200 * 10**6); del data; import time; time.sleep(0.3)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    peaks = watch(subprocess.Popen([sys.executable, "-c", parent]))
    assert len(peaks) == 2
    assert 200e6 < sum(peaks.values()) < 300e6
