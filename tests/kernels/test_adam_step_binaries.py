"""The kernel of `adam_step` compiled for GPUs that are not here: registers, shared memory, spills and the width of offsets."""

from __future__ import annotations

import math
import re

import pytest

from kernels.adam_step.cases import blocks_for
from kernels.adam_step.kernel import adam_kernel
from kernels.testing import Resources, compile_for

FLOATS = ("latents_ptr", "loss_ptr", "first_ptr", "second_ptr", "best_ptr", "best_loss_ptr")
SIGNATURE = dict.fromkeys(FLOATS, "*fp32") | {
    "counts_ptr": "*i32",
    "best_step_ptr": "*i32",
    "active_ptr": "*i1",
    "lr": "fp32",
    "epsilon": "fp32",
}


@pytest.fixture(autouse=True)
def _compiled_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compile_step(gauge: str, dtype: str, layers: int, channels: int, arch: int) -> Resources:
    blocks = blocks_for("default", layers * channels, channels, gauge)
    constants = {"VALUES": layers * channels, "WIDTH": blocks.width, "ON_SPHERE": gauge == "sphere", "BETA1": 0.9, "BETA2": 0.999}
    constants |= {"LOG2_BETA1": math.log2(0.9), "LOG2_BETA2": math.log2(0.999)}
    constants |= {"BLOCK_ROWS": blocks.block_rows, "BLOCK_WIDTH": blocks.block_width}
    return compile_for(adam_kernel, SIGNATURE | {"gradient_ptr": f"*{dtype}"}, constants, arch, warps=blocks.warps)


@pytest.mark.parametrize(
    ("gauge", "dtype", "layers", "channels"),
    [
        *(("sphere", "fp32", layers, channels) for layers, channels in ((1, 512), (18, 512), (8, 3), (4, 4096))),
        *(("none", "fp32", layers, channels) for layers, channels in ((1, 512), (16, 1024))),
        ("sphere", "bf16", 18, 512),
        ("sphere", "fp16", 4, 4096),
        ("none", "bf16", 16, 1024),
    ],
)
@pytest.mark.parametrize("arch", [80, 90, 100])
def test_nothing_spills(arch, gauge, dtype, layers, channels, record_property):
    found = compile_step(gauge, dtype, layers, channels, arch)
    record_property("kernel", f"sm_{arch} adam_step {gauge} {dtype} {layers}x{channels}: {found}")
    assert found.spilled_bytes == 0
    # of a multiprocessor's 65,536 registers two programs of 256 threads have enough, or one of the widest, 512 threads
    assert 0 < found.registers <= 128
    assert found.shared_bytes <= 48 * 1024


def test_offsets_of_slots_are_64_bits_wide():
    text = compile_step("sphere", "bf16", 18, 512, 90).triton_ir
    of_values = re.findall(r"tt\.addptr .* : tensor<\d+x\d+x!tt\.ptr<\w+>>, tensor<\d+x\d+x(i\d+)>", text)
    of_slots = re.findall(r"tt\.addptr .* : !tt\.ptr<\w+>, (i\d+)", text)
    assert of_values == ["i64"] * len(of_values)
    assert of_slots == ["i64"] * len(of_slots)
    assert len(of_values) >= 6  # codes and gradient to look; codes, gradient, moments and best to step
    assert len(of_slots) >= 5  # active, loss, counts, best loss and best step
