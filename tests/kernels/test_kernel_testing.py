"""The rule of accuracy and the memory that tests of kernels rely on: each must be able to fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernels.testing import Resources, assert_as_accurate, compile_for, fresh_memory_is_nan
from tests.kernels.figures import table

EXACT = torch.tensor([1.0, -3.0, 0.0], dtype=torch.float64)


def nudged(ulps: int, dtype: torch.dtype, *, place: int) -> torch.Tensor:
    """EXACT in `dtype`, one value `ulps` neighbours away from zero."""
    values = EXACT.to(dtype)
    for _ in range(ulps):
        values[place] = torch.nextafter(values[place], values[place] * 4)
    return values


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("place", [0, 1])
def test_four_ulp_pass_and_five_do_not(dtype, place):
    assert_as_accurate(nudged(4, dtype, place=place), EXACT.to(dtype), EXACT)
    with pytest.raises(AssertionError, match="1 of 3 values err too much"):
        assert_as_accurate(nudged(5, dtype, place=place), EXACT.to(dtype), EXACT)


def test_twice_the_error_of_pytorch_passes_and_thrice_does_not():
    same = EXACT.float() + 0.01
    assert_as_accurate(EXACT.float() - 0.02, same, EXACT)
    with pytest.raises(AssertionError, match="3 of 3 values err too much"):
        assert_as_accurate(EXACT.float() - 0.03, same, EXACT)


@pytest.mark.parametrize(
    ("got", "same", "exact", "message"),
    [
        (EXACT.float() + torch.inf, EXACT.float(), EXACT, "not finite: 3 of 3"),
        (EXACT.half(), EXACT.float(), EXACT, "types differ"),
        (EXACT.float()[:2], EXACT.float(), EXACT, "shapes differ"),
        (EXACT.float(), EXACT.float(), EXACT.float(), "not float64"),
    ],
)
def test_what_cannot_be_compared_is_an_error(got, same, exact, message):
    with pytest.raises(AssertionError, match=message):
        assert_as_accurate(got, same, exact)


def test_fresh_memory_is_nan_inside_and_the_switches_are_put_back():
    with fresh_memory_is_nan():
        assert torch.empty(5).isnan().all()
        assert torch.empty_like(torch.zeros(2, 3, 4, 5, dtype=torch.bfloat16), memory_format=torch.channels_last).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_only_a_jit_function_compiles():
    with pytest.raises(TypeError, match="cannot be compiled"):
        compile_for(print, {}, {}, 90)


ROOT = Path(__file__).resolve().parent.parent.parent
FIGURES = Resources(registers=40, spilled_bytes=8, shared_bytes=1536, triton_ir="")


def test_figures_of_kernels_are_one_row_a_kernel_and_one_column_an_architecture():
    lines = [f"sm_{arch} op backward bf16 {width}: {FIGURES}" for arch, width in ((100, 64), (80, 64), (80, 8))]
    assert table([lines[0], "what no rule fits", *lines]) == [
        "registers/shared/spilled      sm_80     sm_100",
        "op backward bf16 8        40/1536/8",
        "op backward bf16 64       40/1536/8  40/1536/8",
        "what no rule fits",
    ]
    assert table([]) == []


def test_figures_are_shown_at_the_end_of_a_run_in_other_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the run starts sooner
    test = tmp_path / "test_one.py"
    test.write_text(f"def test_one(record_property):\n    record_property('kernel', 'sm_90 op forward fp32 4: {FIGURES}')\n")
    settings = ["-c", "/dev/null", "--rootdir", str(tmp_path), "-p", "no:cacheprovider", "-p", "xdist", "--numprocesses", "1"]
    command = [sys.executable, "-m", "pytest", "-p", "tests.kernels.figures", *settings, str(test)]
    shown = subprocess.run(command, capture_output=True, check=True, text=True, cwd=ROOT).stdout
    assert "= compiled kernels =" in shown
    assert "op forward fp32 4         40/1536/8" in shown
