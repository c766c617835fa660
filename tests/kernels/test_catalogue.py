"""Every op in the form that a benchmark times: it draws its inputs, runs its passes, and claims no fewer bytes than these must move."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import kernels
from kernels.catalogue import works

WORKS = tuple(work for work in works() if work.dtype == torch.float32)
OPS = tuple(dict.fromkeys(work.op for work in WORKS))
BESIDE = 1.01  # a bias, weights, one value an image: small beside the rest, and not counted


def as_tuple(values):
    return (values,) if isinstance(values, torch.Tensor) else values


def num_bytes(*values):
    return sum(tensor.nbytes for several in values for tensor in as_tuple(several))


def test_every_op_is_listed_and_no_case_twice():
    folders = {path.parent.name for path in Path(kernels.__file__).parent.glob("*/op.py")}
    assert {op.removesuffix("_with_gradient") for op in OPS} == folders
    assert len({(work.op, work.case) for work in works()}) == len(tuple(works()))


@pytest.mark.parametrize("op", OPS)
def test_costs_cover_what_goes_in_and_comes_out(op):
    """On the device without memory, where every case is small."""
    for work in (work for work in WORKS if work.op == op):
        inputs, costs = work.draw("meta"), work.costs
        passes = work.passes(work.call("reference"), inputs)
        outputs = passes["value"]()
        assert passes.keys() == costs.keys()
        assert costs["value"].bytes * BESIDE >= num_bytes(inputs, outputs)
        assert min(cost.flops for cost in costs.values()) > 0
        if "backward" in passes:
            assert costs["forward"].bytes >= costs["value"].bytes
            assert costs["backward"].bytes * BESIDE >= num_bytes(inputs, outputs, passes["backward"]())


def smallest(op):
    return min((work for work in WORKS if work.op == op), key=lambda work: work.costs["value"].bytes)


def run_twice(passes):
    for run in [*passes.values(), *passes.values()]:
        assert all(tensor.isfinite().all() for tensor in as_tuple(run()))


@pytest.mark.parametrize("op", OPS)
def test_passes_run_again_and_again(op):
    work = smallest(op)
    run_twice(work.passes(work.call("reference"), work.draw("cpu")))


@pytest.mark.parametrize("op", ["lpips_head", "adam_step"])  # the others take many seconds to compile
def test_passes_run_again_and_again_compiled_to_one_graph(op):
    work = smallest(op)
    call = torch.compile(work.call("reference"), backend="aot_eager", fullgraph=True)
    with torch._functorch.config.patch(donated_buffer=False):
        run_twice(work.passes(call, work.draw("cpu")))
