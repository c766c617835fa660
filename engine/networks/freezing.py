"""Networks with their weights fixed: the form that makes and refines films with the least work, where a network has one."""

from __future__ import annotations

import torch
from torch import nn

from engine.networks.coarse import Head
from engine.networks.pggan import PgganGenerator
from engine.networks.pggan_frozen import FrozenPggan


def frozen(network: nn.Module, *, dtype: torch.dtype, head: Head | None = None, norm_kernel: bool = False) -> nn.Module | None:
    """A generator with the same films up to rounding, in `dtype` inside, whose gradient is forward operators; None where there is none.

    With `head` it ends at the head's resolution. `norm_kernel`: see `FrozenPggan`.
    """
    if isinstance(network, PgganGenerator):
        return FrozenPggan(network, dtype=dtype, head=head, norm_kernel=norm_kernel).eval()
    return None
