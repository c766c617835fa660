"""The kernels of `lpips_head` compiled for GPUs that are not here: registers, shared memory, spills and the width of offsets."""

from __future__ import annotations

import re

import pytest

from kernels.lpips_head.cases import MEAN_BLOCK, bucket, launch_for
from kernels.lpips_head.kernel import backward_kernel, forward_kernel, mean_kernel
from kernels.testing import Resources, compile_for

KERNELS = {"forward": forward_kernel, "backward": backward_kernel}
SIZES = {"num_pixels": "i32", "num_tiles": "i32", "epsilon": "fp32"}
SUMS = dict.fromkeys(("grad_value_ptr", "partial_ptr", "value_ptr"), "*fp32")


@pytest.fixture(autouse=True)
def _compiled_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compile_head(name: str, dtype: str, channels: int, arch: int) -> Resources:
    launch = launch_for("default", channels)
    pointers = dict.fromkeys(("features_ptr", "target_ptr", "weights_ptr", "grad_features_ptr"), f"*{dtype}")
    constants = {"CHANNELS": channels, "BLOCK_CHANNELS": bucket(channels), "BLOCK_PIXELS": launch.pixels}
    return compile_for(KERNELS[name], pointers | SUMS | SIZES, constants, arch, warps=launch.warps)


def check(found: Resources) -> None:
    assert found.spilled_bytes == 0
    assert 0 < found.registers <= 128  # at 128 threads a program, four programs or more share a multiprocessor's 65,536 registers
    assert found.shared_bytes <= 48 * 1024


@pytest.mark.parametrize("channels", [64, 192, 384, 512])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("arch", [80, 90, 100])
def test_nothing_spills(arch, name, dtype, channels, record_property):
    found = compile_head(name, dtype, channels, arch)
    record_property("kernel", f"sm_{arch} lpips_head {name} {dtype} {channels}: {found}")
    check(found)


@pytest.mark.parametrize("arch", [80, 90, 100])
def test_nothing_spills_in_the_mean(arch, record_property):
    found = compile_for(mean_kernel, SUMS | SIZES, {"BLOCK": MEAN_BLOCK}, arch)
    record_property("kernel", f"sm_{arch} lpips_head mean fp32 {MEAN_BLOCK}: {found}")
    check(found)


@pytest.mark.parametrize("name", KERNELS)
def test_offsets_of_pixels_are_64_bits_wide(name):
    """Features may have more than 2^31 values: 512 films at 256x256 with 64 channels."""
    text = compile_head(name, "bf16", 64, 90).triton_ir
    widths = re.findall(r"tt\.addptr .* : tensor<\d+x\d+x!tt\.ptr<bf16>>, tensor<\d+x\d+x(i\d+)>", text)
    assert widths == ["i64"] * {"forward": 2, "backward": 3}[name]
