"""Kernels of MSE + SSIM compiled for GPUs that are not here: registers, shared memory, spills, offsets, precision."""

from __future__ import annotations

import re

import pytest

from kernels.mse_ssim.cases import BACKWARD_BLOCK, MEAN_BLOCK, launch_for
from kernels.mse_ssim.kernel import backward_kernel, forward_kernel, mean_kernel
from kernels.testing import Resources, compile_for


@pytest.fixture(autouse=True)
def _compiled_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compile_kernel(name: str, dtype: str, arch: int, *, max_registers: int | None = None) -> Resources:
    """`value` has no gradient; `forward` stores it in float32, `with_gradient` in the type of x."""
    films = dict.fromkeys(("x_ptr", "y_ptr", "grad_x_ptr"), f"*{dtype}")
    values = dict.fromkeys(("parts_ptr", "mse_ptr", "ssim_ptr", "grad_mse_ptr", "grad_ssim_ptr", "slope_ptr"), "*fp32")
    numbers = dict.fromkeys(("mse_scale", "ssim_scale"), "fp32") | dict.fromkeys(("height", "width", "tiles"), "i32")
    signature = films | values | numbers | {"gradient_ptr": f"*{dtype}" if name == "with_gradient" else "*fp32"}
    if name == "mean":
        counts = {"num_pixels": "fp32", "num_windows": "fp32"}
        return compile_for(mean_kernel, signature | counts, {"BLOCK": MEAN_BLOCK}, arch)
    if name == "backward":
        return compile_for(backward_kernel, signature | {"num_pixels": "i32"}, {"BLOCK": BACKWARD_BLOCK}, arch)
    launch = launch_for("default", 1024)
    tile = {"TILE_ROWS": launch.tile_rows, "BLOCK_ROWS": launch.block_rows, "BLOCK_COLUMNS": launch.block_columns}
    constants = tile | {"GRADIENT": name != "value"}
    return compile_for(forward_kernel, signature, constants, arch, warps=launch.warps, max_registers=max_registers)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, dtype) for name in ("value", "forward", "with_gradient", "backward") for dtype in ("bf16", "fp32")), ("mean", "fp32")],
)
@pytest.mark.parametrize("arch", [80, 90, 100])
def test_nothing_spills(arch, name, dtype, record_property):
    found = compile_kernel(name, dtype, arch)
    record_property("kernel", f"sm_{arch} mse_ssim {name} {dtype} 1024: {found}")
    assert found.spilled_bytes == 0
    # the forward pass carries seven maps and a band of weights: one program takes a multiprocessor's 65,536 registers
    assert 0 < found.registers <= (64 if name in ("backward", "mean") else 255)
    assert found.shared_bytes <= 48 * 1024


def test_starts_of_films_and_tiles_are_64_bits_wide():
    """A batch may have more than 2^31 pixels; within a block, 32 bits are enough."""
    text = compile_kernel("forward", "bf16", 90).triton_ir
    starts = re.findall(r"tt\.addptr .* : !tt\.ptr<(?:bf16|f32)>, (i\d+)", text)
    assert starts
    assert set(starts) <= {"i64", "i32"}
    assert starts.count("i32") == 1  # the second of a tile's two sums
    offsets = re.findall(
        r"tt\.addptr .* : tensor<\d+x!tt\.ptr<bf16>>, tensor<\d+x(i\d+)>", compile_kernel("backward", "bf16", 90).triton_ir
    )
    assert offsets == ["i64"] * 3


def test_products_are_as_exact_as_float32():
    text = compile_kernel("forward", "bf16", 90).triton_ir
    products = re.findall(r"tt\.dot .*inputPrecision = (\w+)", text)
    assert products == ["tf32x3"] * 17


def test_spills_are_seen():
    assert compile_kernel("forward", "fp32", 90, max_registers=128).spilled_bytes > 0
