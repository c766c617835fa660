"""Running statistics of batch norms taken anew: those of a network whose weights were averaged belong to other weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def take_statistics(network: nn.Module, inputs: Iterable[Tensor]) -> None:
    """Sets the running mean and variance of every batch norm to the plain mean of those of the batches `inputs`; leaves evaluation mode.

    Source: the standing statistics of Brock et al. 2019, section 4.1. Weights stay as they are. A norm's inputs are those that it has in
    training mode, where the norms before it use the batch's own statistics.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a mean over all batches
    network.train()
    for batch in inputs:
        network(batch)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
