"""The package lpips with random weights, without the minute that torchvision takes to draw classifiers that nobody needs."""

from __future__ import annotations

import re
from typing import Any

import lpips
import torch
from torch import Tensor, nn


def random_lpips(net: str) -> Any:
    """`lpips.LPIPS(net=...)` in evaluation: random convolutions that keep a signal's size, nonnegative channel weights."""
    with torch.device("meta"):
        network = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
    network.to_empty(device="cpu")
    network.scaling_layer = lpips.lpips.ScalingLayer()
    torch.manual_seed(0)
    for name, parameter in network.named_parameters():
        if name.startswith("lin"):
            nn.init.uniform_(parameter)
        elif parameter.dim() == 4:
            nn.init.kaiming_normal_(parameter)
        else:
            nn.init.normal_(parameter, 0, 0.1)
    return network


def torchvision_state(network: Any) -> dict[str, Tensor]:
    """The convolutions of an `lpips.LPIPS` under torchvision's names."""
    state = network.state_dict()
    return {re.sub(r"^net\.slice\d\.", "features.", name): value for name, value in state.items() if name.startswith("net.")}
