"""What a step of a deep convolutional GAN costs, counted and not measured: shapes are followed, nothing is computed."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from engine.networks.dcgan import DcganGenerator, DcganSettings
from trainers.nets.dcgan_discriminator import DcganDiscriminator, DcganDiscriminatorSettings


def step_gflop(generator: DcganSettings, discriminator: DcganDiscriminatorSettings, *, batch_size: int, generator_steps: int) -> float:
    """GFLOP of a whole step by its images, a multiply and an add being two: both phases with their gradients, and all repeats.

    Convolutions are counted; norms, activations and the optimisers are bound by memory.
    """
    with torch.device("meta"):
        make, judge = DcganGenerator(generator), DcganDiscriminator(discriminator)
        codes = torch.empty(batch_size, *make.code_shape)
        real = torch.empty(batch_size, 1, make.resolution, make.resolution)
    with FlopCounterMode(display=False) as of_discriminator:
        with torch.no_grad():
            fake = make(codes)
        (judge(real).mean() + judge(fake).mean()).backward()
    judge.requires_grad_(False)
    with FlopCounterMode(display=False) as of_generator:
        judge(make(codes)).mean().backward()
    total = of_discriminator.get_total_flops() + generator_steps * of_generator.get_total_flops()
    return float(total) / 1e9 / batch_size
