"""The table of kernels: which works are in it, the bytes that eager moves, and that wrong results are found before any is timed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.refinement.kernel_ops import DTYPES, check, chosen, eager_bytes
from kernels.catalogue import works


def test_the_largest_of_each_op_and_type_or_all() -> None:
    few, everything = chosen(everything=False), chosen(everything=True)
    assert {work.op for work in few} == {work.op for work in works()}
    assert {work.dtype for work in everything} == set(DTYPES)
    assert len(few) < len(everything) / 4
    assert max(work.costs["value"].bytes for work in few) == max(work.costs["value"].bytes for work in everything)


def test_bytes_are_reads_and_writes_without_views() -> None:
    x = torch.empty(10, 20, device="meta")
    assert eager_bytes(lambda: x.t().contiguous()) == 2 * 800
    assert eager_bytes(lambda: x.view(200) * 2) == 1600


def test_a_kernel_that_errs_is_found() -> None:
    work = min((work for work in works() if work.op == "lpips_head"), key=lambda work: work.costs["value"].bytes)
    reference, inputs = work.call("reference"), work.draw("cpu")
    right = replace(work, call=lambda impl: reference)
    assert set(check(right, inputs)) == {"error", "eager_error"}

    wrong = replace(work, call=lambda impl: reference if impl == "reference" else lambda *rows: reference(*rows) * 1.5)
    with pytest.raises(AssertionError, match="err too much"):
        check(wrong, inputs)
