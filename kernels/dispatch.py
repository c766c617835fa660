"""Whether an op runs its kernel or its reference: one rule for all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from shutil import which
from typing import Literal, get_args

from torch import Tensor

Impl = Literal["auto", "kernel", "reference"]


class KernelUnavailable(RuntimeError):
    """The kernel was asked for by name and cannot run on this machine or on these inputs. One line that says why."""


_references_only: ContextVar[bool] = ContextVar("references_only", default=False)


@contextmanager
def references_only() -> Iterator[None]:
    """Inside, "auto" is the reference everywhere: for a graph that is traced for a compiler which cannot look into our kernels."""
    before = _references_only.set(True)
    try:
        yield
    finally:
        _references_only.reset(before)


def use_kernel(x: Tensor, impl: Impl, *, obstacle: str | None = None) -> bool:
    """Whether to run the kernel on `x`. `obstacle` is the op's own reason why its kernel cannot take these inputs, if there is one.

    "auto" runs the kernel on CUDA where nothing stands in its way, and the reference elsewhere and inside `references_only`.
    "kernel" runs it or raises `KernelUnavailable`; on the CPU it runs under Triton's interpreter only, that is with TRITON_INTERPRET=1
    from before Triton is imported.
    Another word raises ValueError.
    """
    if impl not in get_args(Impl):
        raise ValueError(f"impl must be one of {', '.join(get_args(Impl))}: {impl!r}")
    if impl == "reference" or (impl == "auto" and _references_only.get()):
        return False
    obstacle = obstacle or _obstacle_on(x.device.type)
    if obstacle and impl == "kernel":
        raise KernelUnavailable(obstacle)
    # The interpreter is far slower than PyTorch, so it is used only by those who ask for the kernel.
    return obstacle is None and (impl == "kernel" or x.is_cuda)


def _obstacle_on(device_type: str) -> str | None:
    """Why no kernel runs on devices of this type here, or None."""
    if find_spec("triton") is None:
        return "kernels need the package triton; install it or take impl='reference'"
    if device_type == "cuda" and not any(map(which, (os.environ.get("CC", "cc"), "gcc", "clang"))):
        return "kernels need a C compiler on CUDA, with which Triton builds their launchers; install gcc or take impl='reference'"
    if device_type == "cuda" or (device_type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return None
    return f"kernels run on CUDA, and on the CPU only with TRITON_INTERPRET=1; take impl='reference' for tensors on: {device_type}"


# A compiled graph need not look into the environment: the answer does not change in a process. It is what the decorator
# `torch.compiler.assume_constant_result` sets, which would load the whole compiler for everyone who imports an op.
_obstacle_on._dynamo_marked_constant = True  # type: ignore[attr-defined]
