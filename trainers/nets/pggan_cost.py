"""What a step of a progressive GAN costs, counted and not measured: shapes are followed, nothing is computed."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from engine.networks.pggan import PgganSettings
from trainers.losses.wgan_gp import critic_loss, generator_loss
from trainers.nets.pggan_discriminator import DiscriminatorSettings, GrowingDiscriminator
from trainers.nets.pggan_generator import GrowingGenerator


def step_gflop(generator: PgganSettings, discriminator: DiscriminatorSettings, level: int, *, batch_size: int) -> float:
    """GFLOP of a whole step by its images, a multiply and an add being two: both phases with their gradients, the penalty's second one too.

    Matrix products and convolutions are counted as they run here; norms, activations and the optimisers are bound by memory.
    """
    with torch.device("meta"), _Counter() as counter:
        make, judge = GrowingGenerator(generator), GrowingDiscriminator(discriminator)
        codes = torch.empty(batch_size, 1, generator.code_size)
        real = torch.empty(batch_size, 1, 4 * 2**level, 4 * 2**level)
        mix = torch.empty(batch_size, 1, 1, 1)
        with torch.no_grad():
            fake = make(codes, level)
        critic_loss(lambda films: judge(films, level), real, fake, mix)["loss"].backward()  # type: ignore[no-untyped-call]
        judge.requires_grad_(False)
        generator_loss(lambda films: judge(films, level), make(codes, level))["loss"].backward()  # type: ignore[no-untyped-call]
    return float(counter.total) / 1e9 / batch_size


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Torch's own counter follows modules by hooks, which do not bear a gradient within a forward pass."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total: float = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result
