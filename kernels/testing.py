"""What the tests of every kernel share: the rule of accuracy, memory that shows what was not written, and compiling without a device."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

Run = Literal["kernel", "reference", "float64"]


def assert_as_accurate(got: Tensor, same: Tensor, exact: Tensor) -> None:
    """Raises AssertionError unless `got` is finite and nowhere errs by more than twice PyTorch's greatest error plus 4 ulp.

    got: from the kernel. same: from the reference in the same type. exact: from the reference in float64. All of one shape.
    An ulp is the gap between neighbours of `got`'s type at the exact value.
    """
    assert got.dtype == same.dtype, f"types differ: {got.dtype} and {same.dtype}"
    assert got.shape == same.shape == exact.shape, f"shapes differ: {got.shape}, {same.shape} and {exact.shape}"
    assert exact.dtype == torch.float64, f"the exact values are not float64: {exact.dtype}"
    assert got.isfinite().all(), f"values are not finite: {(~got.isfinite()).sum().item()} of {got.numel()}"
    if got.numel() == 0:
        return
    info = torch.finfo(got.dtype)
    # frexp's mantissa is in [0.5, 1), so the gap at 2^(e-1) is eps * 2^(e-1); below the normal numbers it grows no smaller
    exponent = torch.frexp(exact.abs().clamp(min=info.smallest_normal)).exponent
    ulp = torch.ldexp(torch.full_like(exact, info.eps), exponent - 1)
    error = (got.double() - exact).abs()
    allowed = 2 * (same.double() - exact).abs().max() + 4 * ulp
    worst = int((error - allowed).argmax())
    assert (error <= allowed).all(), (
        f"{int((error > allowed).sum())} of {got.numel()} values err too much; the worst, {got.flatten()[worst].item():.9g}, "
        f"is to be {exact.flatten()[worst].item():.9g} within {allowed.flatten()[worst].item():.3g}"
    )


@contextmanager
def fresh_memory_is_nan() -> Iterator[None]:
    """Inside, memory that an op allocates and does not write is NaN."""
    switches: Any = torch.utils.deterministic  # its one attribute is a property that type checkers do not see
    was_deterministic, was_filled = torch.are_deterministic_algorithms_enabled(), switches.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)  # memory is filled only under this
    switches.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_deterministic)
        switches.fill_uninitialized_memory = was_filled


def run(how: Run, op: Callable[..., Tensor], inputs: Sequence[Tensor], *, grad: Tensor) -> tuple[Tensor, ...]:
    """`op(*inputs, impl=...)`, then the gradient of its product with `grad` in each input that requires one; fresh memory is NaN.

    "float64" is the reference on the same numbers in float64.
    """
    if how == "float64":
        inputs, grad = [x.detach().double().requires_grad_(x.requires_grad) for x in inputs], grad.double()
    with fresh_memory_is_nan():
        value = op(*inputs, impl="kernel" if how == "kernel" else "reference")
        return value.detach(), *torch.autograd.grad(value, [x for x in inputs if x.requires_grad], grad)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a compiled kernel takes: registers and spilled bytes a thread, bytes of shared memory a program. Also its Triton IR, as text."""

    registers: int
    spilled_bytes: int
    shared_bytes: int
    triton_ir: str

    def __str__(self) -> str:
        """The figures as tests record them: `record_property("kernel", f"sm_{arch} {op} {kernel} {dtype} {size}: {resources}")`."""
        return f"{self.registers} registers, {self.shared_bytes} bytes shared, {self.spilled_bytes} spilled"


def compile_for(
    kernel: Any, signature: Mapping[str, str], constants: Mapping[str, Any], arch: int, *, warps: int = 4, max_registers: int | None = None
) -> Resources:
    """Compiles a `@triton.jit` function for compute capability `arch` (80, 90, 100) without a device.

    signature: type of each argument that is not a constant, "*bf16", "i32", "fp32". Pointers count as aligned to 16 bytes, as PyTorch's.
    max_registers: a limit a thread, for those who want to see spills. Raises TypeError for a kernel that the interpreter took over.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if not isinstance(kernel, triton.runtime.JITFunction):
        raise TypeError(f"a kernel under TRITON_INTERPRET=1 cannot be compiled: {kernel}")
    types = {name: "constexpr" if name in constants else signature[name] for name in kernel.arg_names}
    aligned = {(place,): [["tt.divisibility", 16]] for place, kind in enumerate(types.values()) if kind.startswith("*")}
    source = ASTSource(fn=kernel, signature=types, constexprs=dict(constants), attrs=aligned)
    options = {"num_warps": warps, "maxnreg": max_registers}
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    usage = _resource_usage(compiled.asm["cubin"])
    return Resources(
        registers=usage["REG"],
        # registers that did not fit go to the stack; LOCAL is memory that a thread addresses by itself
        spilled_bytes=usage["STACK"] + usage["LOCAL"],
        shared_bytes=usage["SHARED"] + compiled.metadata.shared,
        triton_ir=compiled.asm["ttir"],
    )


def _resource_usage(cubin: bytes) -> dict[str, int]:
    """What `cuobjdump`, which rides in Triton's package, reads from the binary: REG, STACK, SHARED, LOCAL and more."""
    from triton.knobs import nvidia

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        report = subprocess.run([nvidia.cuobjdump.path, "-res-usage", str(path)], capture_output=True, check=True, text=True).stdout
    return {name: int(value) for name, value in re.findall(r"(\w+):(\d+)", report.split("Function", 1)[1])}
