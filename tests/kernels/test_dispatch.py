"""Where an op runs: the kernel by name or not at all, the reference where a compiler must be able to look into it."""

from __future__ import annotations

import pytest
import torch

from kernels import dispatch
from kernels.dispatch import KernelUnavailable, references_only, use_kernel


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> type:
    """What `use_kernel` asks of a tensor, as one on a GPU would answer."""
    monkeypatch.setattr(dispatch, "which", lambda name: f"/usr/bin/{name}")

    class OnGpu:
        device, is_cuda = torch.device("cuda"), True

    return OnGpu


def test_auto_is_the_kernel_on_a_gpu_but_not_inside_references_only(gpu):
    assert use_kernel(gpu(), "auto")
    with references_only():
        assert not use_kernel(gpu(), "auto")
        assert use_kernel(gpu(), "kernel")  # by name it is asked for all the same
    assert use_kernel(gpu(), "auto")


def test_without_a_compiler_a_gpu_gets_the_reference(gpu, monkeypatch):
    monkeypatch.setattr(dispatch, "which", lambda name: None)
    assert not use_kernel(gpu(), "auto")
    with pytest.raises(KernelUnavailable, match="need a C compiler"):
        use_kernel(gpu(), "kernel")
