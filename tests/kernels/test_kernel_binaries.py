"""Kernels compiled for GPUs that are not here: registers, shared memory, spills and the width of offsets."""

from __future__ import annotations

import re

import pytest

from kernels.bias_leaky_pixel_norm.cases import bucket, launch_for
from kernels.bias_leaky_pixel_norm.kernel import backward_kernel, forward_kernel
from kernels.testing import Resources, compile_for

KERNELS = {"forward": forward_kernel, "backward": backward_kernel}


@pytest.fixture(autouse=True)
def _compiled_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compile_norm(name: str, copies: int, dtype: str, channels: int, arch: int, **settings: int) -> Resources:
    launch = launch_for("default", channels)
    pointers = dict.fromkeys(("x_ptr", "bias_ptr", "y_ptr", "grad_y_ptr", "grad_x_ptr"), f"*{dtype}")
    signature = pointers | {"num_pixels": "i32", "width": "i32", "leak": "fp32", "epsilon": "fp32"}
    pixels = settings.pop("pixels", launch.pixels)
    constants = {"COPIES": copies, "CHANNELS": channels, "BLOCK_CHANNELS": bucket(channels), "BLOCK_PIXELS": pixels}
    constants |= {size: settings.pop(size) for size in ("width", "num_pixels") if size in settings}
    return compile_for(KERNELS[name], signature, constants, arch, warps=launch.warps, **settings)


@pytest.mark.parametrize(("copies", "channels"), [(1, 1), (1, 16), (1, 100), (1, 512), (4, 32), (4, 100), (4, 512)])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("arch", [80, 90, 100])
def test_nothing_spills(arch, name, copies, dtype, channels, record_property):
    found = compile_norm(name, copies, dtype, channels, arch)
    record_property("kernel", f"sm_{arch} bias_leaky_pixel_norm{'_upsample' if copies == 4 else ''} {name} {dtype} {channels}: {found}")
    assert found.spilled_bytes == 0
    assert 0 < found.registers <= 128  # at 128 threads a program, four programs or more share a multiprocessor's 65,536 registers
    assert found.shared_bytes <= 48 * 1024


@pytest.mark.parametrize("copies", [1, 4])
@pytest.mark.parametrize("name", KERNELS)
def test_offsets_of_pixels_are_64_bits_wide(name, copies):
    """Activations may have more than 2^31 values: 128 films of 1024x1024 with 16 channels."""
    text = compile_norm(name, copies, "bf16", 16, 90).triton_ir
    widths = re.findall(r"tt\.addptr .* : tensor<\d+x\d+x!tt\.ptr<bf16>>, tensor<\d+x\d+x(i\d+)>", text)
    assert widths == ["i64"] * {"forward": 1 + copies, "backward": 2 + copies}[name]


@pytest.mark.parametrize("name", KERNELS)
def test_sizes_of_one_compile(name):
    """Triton makes a constant of an argument that is 1: a film one pixel wide, one pixel in all."""
    assert compile_norm(name, 4, "bf16", 100, 90, width=1, num_pixels=1).spilled_bytes == 0


def test_spills_are_seen():
    assert compile_norm("backward", 1, "fp32", 512, 90, pixels=32, max_registers=32).spilled_bytes > 0
