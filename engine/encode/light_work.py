"""Threads for work that is too small to be shared: on a CPU that decodes meanwhile, threads that wait for one another cost films."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

LIGHT_GFLOP = 0.2  # a film: a linear codec of 256 numbers takes 0.03, the smallest deep encoders take 0.5


def in_one_thread(run: Callable[..., Any]) -> Callable[..., Any]:
    """`run` by the calling thread alone; torch has as many threads as before when it returns.

    Torch's threads spin while they wait for the next call, and take the cores from those that decode: of a linear codec's batch on two
    cores that was half as much again as the batch itself.
    """

    def call(*rows: Any) -> Any:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return run(*rows)
        finally:
            torch.set_num_threads(before)

    return call
