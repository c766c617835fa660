"""Where kernels run in tests: in a process of their own under Triton's interpreter, or on a CUDA device in this one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.import_plugin("tests.kernels.figures")  # once only: tests/conftest.py may have


@pytest.fixture(scope="session")
def interpreter() -> Iterator[ProcessPoolExecutor]:
    """One process with TRITON_INTERPRET set. Here it would change Inductor's kernels, and those that are to be compiled."""
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=warnings.simplefilter, initargs=("error",))
    with pytest.MonkeyPatch.context() as patch, pool:
        patch.setenv("TRITON_INTERPRET", "1")
        pool.submit(int).result()  # starts the process
        patch.undo()
        yield pool


@pytest.fixture(params=["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)])
def on_device(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Calls a check of `tests.kernels` with the name of a device and the arguments given."""

    def call(check: Callable[..., None], *args: Any) -> None:
        if request.param == "cuda":
            check("cuda", *args)
        else:
            request.getfixturevalue("interpreter").submit(check, "cpu", *args).result()

    return call
