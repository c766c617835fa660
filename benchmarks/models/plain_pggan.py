"""A progressive GAN's training step written straight down, in eager float32: what the trainer's own is held against, in values and time.

Each layer's output is scaled, films are enlarged and then convolved, real and made films are judged one after the other, and the penalty's
second gradient is torch's own. It does no needless work: the discriminator's weights get no gradient in the generator's phase.
"""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.presets.pggan import PgganConfig


class Layer(nn.Module):
    """A linear layer or convolution whose output, bias included, is multiplied by sqrt(2 / fan_in)."""

    def __init__(self, *shape: int, padding: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(*shape))
        self.bias = nn.Parameter(torch.zeros(shape[0]))
        self.he, self.padding = math.sqrt(2 / math.prod(shape[1:])), padding

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight, self.bias) if x.dim() == 2 else F.conv2d(x, self.weight, self.bias, padding=self.padding)
        return y * self.he


class Block(nn.Module):
    """Two 3x3 convolutions with leaky ReLU, and pixel norm in the generator."""

    def __init__(self, first: tuple[int, int], second: tuple[int, int], *, leak: float, norm: bool) -> None:
        super().__init__()
        self.first, self.second = Layer(first[1], first[0], 3, 3, padding=1), Layer(second[1], second[0], 3, 3, padding=1)
        self.leak, self.norm = leak, norm

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.second):
            x = F.leaky_relu(layer(x), self.leak)
            x = normalised(x) if self.norm else x
        return x


class PlainGenerator(nn.Module):
    """Codes [N, code_size] -> films in the network's own range."""

    def __init__(self, cfg: PgganConfig) -> None:
        super().__init__()
        widths = cfg.channels
        self.cfg = cfg
        self.linear = Layer(widths[0] * 16, cfg.code_size)
        self.first = Layer(widths[0], widths[0], 3, 3, padding=1)
        self.levels = nn.ModuleList(Block((below, width), (width, width), leak=cfg.leak, norm=True) for below, width in pairwise(widths))
        self.to_gray = nn.ModuleList(Layer(1, width, 1, 1) for width in widths)

    def forward(self, codes: Tensor, level: int, alpha: float | None) -> Tensor:
        x = F.leaky_relu(self.linear(normalised(codes)), self.cfg.leak).view(len(codes), -1, 4, 4)
        x = normalised(x) if self.cfg.norm_after_linear else x
        x = normalised(F.leaky_relu(self.first(x), self.cfg.leak))
        below = x
        for block in self.levels[:level]:
            below = x
            x = block(F.interpolate(x, scale_factor=2.0))
        film: Tensor = self.to_gray[level](x)
        if alpha is None:
            return film
        return alpha * F.interpolate(self.to_gray[level - 1](below), scale_factor=2.0) + (1 - alpha) * film


class PlainDiscriminator(nn.Module):
    """Films in the network's own range -> scores [N]."""

    def __init__(self, cfg: PgganConfig) -> None:
        super().__init__()
        widths = cfg.channels
        self.cfg = cfg
        self.from_gray = nn.ModuleList(Layer(width, 1, 1, 1) for width in widths)
        self.levels = nn.ModuleList(Block((width, width), (width, below), leak=cfg.leak, norm=False) for below, width in pairwise(widths))
        self.first = Layer(widths[0], widths[0] + 1, 3, 3, padding=1)
        self.second = Layer(widths[0], widths[0], 4, 4)
        self.linear = Layer(1, widths[0])

    def forward(self, films: Tensor, level: int, alpha: float | None, group: int) -> Tensor:
        x = self.from_gray[level](films)
        for at in reversed(range(level)):
            x = F.avg_pool2d(self.levels[at](x), 2)
            if alpha is not None and at == level - 1:
                x = alpha * self.from_gray[at](F.avg_pool2d(films, 2)) + (1 - alpha) * x
        planes = [(part.var(dim=0, unbiased=False) + 1e-8).sqrt().mean().expand(len(part), 1, 4, 4) for part in x.split(group)]
        x = F.leaky_relu(self.first(torch.cat([x, torch.cat(planes)], dim=1)), self.cfg.leak)
        x = F.leaky_relu(self.second(x), self.cfg.leak)
        scores: Tensor = self.linear(x.flatten(1))
        return scores[:, 0]


class PlainPggan:
    """Both networks, their optimisers and the average, at one level."""

    def __init__(self, cfg: PgganConfig, level: int, *, alpha: float | None = None, group: int) -> None:
        self.cfg, self.level, self.alpha, self.group = cfg, level, alpha, group
        self.generator, self.discriminator = PlainGenerator(cfg), PlainDiscriminator(cfg)
        self.average = copy.deepcopy(self.generator)
        self.optimisers = {
            name: torch.optim.Adam(network.parameters(), lr=cfg.lr[0], betas=(cfg.betas[0], cfg.betas[1]), eps=cfg.epsilon)
            for name, network in (("generator", self.generator), ("discriminator", self.discriminator))
        }

    def take(self, generator: nn.Module, discriminator: nn.Module) -> None:
        """Copies the trainer's weights, whose layers have the same names."""
        self.generator.load_state_dict(generator.state_dict())
        self.average.load_state_dict(generator.state_dict())
        self.discriminator.load_state_dict(discriminator.state_dict())

    def judge(self, films: Tensor) -> Tensor:
        """Scores [N] of films in [-1, 1]."""
        scores: Tensor = self.discriminator(self._own_range(films), self.level, self.alpha, self.group)
        return scores

    def make(self, codes: Tensor) -> Tensor:
        """Films in [-1, 1]."""
        films: Tensor = self.generator(codes, self.level, self.alpha)
        return films * 2 - 1 if self.cfg.output_range == "unit" else films

    def discriminator_loss(self, real: Tensor, codes: Tensor, mix: Tensor) -> Tensor:
        """Wasserstein with gradient penalty and drift, on films of [-1, 1] and codes [N, code_size]."""
        self.discriminator.requires_grad_(True)
        with torch.no_grad():
            fake = self._own_range(self.make(codes))
        real = self._own_range(real)
        on_real = self.discriminator(real, self.level, self.alpha, self.group)
        on_fake = self.discriminator(fake, self.level, self.alpha, self.group)
        mixed = (mix * real + (1 - mix) * fake).requires_grad_()
        on_mixed = self.discriminator(mixed, self.level, self.alpha, self.group)
        (gradient,) = torch.autograd.grad(on_mixed.sum(), mixed, create_graph=True)
        penalty = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
        loss: Tensor = on_fake.mean() - on_real.mean() + self.cfg.gp_weight * penalty + self.cfg.drift * on_real.square().mean()
        return loss

    def generator_loss(self, codes: Tensor) -> Tensor:
        """Wasserstein's."""
        self.discriminator.requires_grad_(False)
        return -self.judge(self.make(codes)).mean()

    def step(self, real: Tensor, codes: tuple[Tensor, Tensor], mix: Tensor) -> tuple[float, float]:
        """The discriminator learns, then the generator; returns their losses."""
        losses = []
        for name in ("discriminator", "generator"):
            self.optimisers[name].zero_grad()
            loss = self.discriminator_loss(real, codes[0], mix) if name == "discriminator" else self.generator_loss(codes[1])
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimisers[name].step()
            losses.append(loss.item())
        with torch.no_grad():
            for average, weight in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                average.mul_(self.cfg.ema).add_(weight, alpha=1 - self.cfg.ema)
        return losses[0], losses[1]

    def _own_range(self, films: Tensor) -> Tensor:
        return (films + 1) / 2 if self.cfg.output_range == "unit" else films


def normalised(x: Tensor) -> Tensor:
    """Pixel norm over the second dimension."""
    return x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
