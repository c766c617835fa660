"""Networks with their weights fixed: the form that makes and refines films with the least work, where a network has one."""

from __future__ import annotations

import torch
from torch import nn

from engine.errors import CodecError
from engine.networks.coarse import Head
from engine.networks.pggan import PgganGenerator
from engine.networks.pggan_frozen import FrozenPggan, level_of


def frozen(network: nn.Module, *, dtype: torch.dtype, head: Head | None = None, norm_kernel: bool = False) -> nn.Module | None:
    """A generator with the same films up to rounding, in `dtype` inside, whose gradient is forward operators; None where there is none.

    With `head` it ends at the head's resolution. `norm_kernel`: see `FrozenPggan`.
    """
    if isinstance(network, PgganGenerator):
        return FrozenPggan(network, dtype=dtype, head=head, norm_kernel=norm_kernel).eval()
    return None


def can_freeze(network: nn.Module) -> bool:
    """Whether `frozen` has another form of this network."""
    return isinstance(network, PgganGenerator)


def check_head(network: nn.Module, head: Head) -> None:
    """Raises CodecError unless `frozen` can end this network at the head's resolution."""
    if not isinstance(network, PgganGenerator):
        raise CodecError(f"the generator makes no coarse films, but there is a head for pixels a side: {head.resolution}")
    level_of(head, network)
