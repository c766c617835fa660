"""The rule of accuracy and the memory that tests of kernels rely on: each must be able to fail."""

from __future__ import annotations

import pytest
import torch

from kernels.testing import assert_as_accurate, compile_for, fresh_memory_is_nan

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
