"""A small adversarial task for tests of the loop: two phases, an average, dropout, and a resolution that grows."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from engine.recipe import PixelRecipe
from trainers.ema import Ema
from trainers.task import Phase

GROWS_AT = 40


class ToyTask:
    """A linear generator of 4x4 films and a critic with dropout; from GROWS_AT images on the films are 8x8 and the steps smaller."""

    name = "toy"
    labels = ()
    alternate = ""
    recipe = PixelRecipe(resolution=8)
    group = 2

    def __init__(self, *, seed=0, part_size=8, lr=0.01, repeats=1, every=1, poison_at=None, dropout=0.3):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator = nn.Sequential(nn.Linear(5, 64), nn.Tanh(), nn.Linear(64, 16))
            self.critic = nn.Sequential(nn.Linear(16, 32), nn.LeakyReLU(0.2), nn.Dropout(dropout), nn.Linear(32, 1))
        self.average = Ema(self.generator, 0.9)
        self.optimisers = {name: torch.optim.Adam(getattr(self, name).parameters(), lr=lr) for name in ("generator", "critic")}
        self.part_size, self.repeats, self.every, self.poison_at = part_size, repeats, every, poison_at
        self.on_images(0)

    def phases(self):
        return [
            Phase(name="critic", modules=[self.critic], optimiser=self.optimisers["critic"], loss=self.judge, clip=1.0, every=self.every),
            Phase(
                name="generator",
                modules=[self.generator],
                optimiser=self.optimisers["generator"],
                loss=self.make,
                after=self.average.update,
                repeats=self.repeats,
            ),
        ]

    def on_images(self, seen):
        self.seen = seen
        self.resolution = 4 if seen < GROWS_AT else 8
        self.batch_size = 8 if seen < GROWS_AT else 4
        for group in self.optimisers["generator"].param_groups:
            group["lr"] = 0.01 / (1 + seen / 100)

    def judge(self, batch):
        real = self.critic(F.avg_pool2d(batch.pixels, self.resolution // 4).flatten(1))
        fake = self.critic(self.generator(batch.normal("z", 5)))
        spread = real.view(-1, 2).std(dim=1).mean()  # looks at pairs of films, as a minibatch statistic does
        loss = fake.mean() - real.mean() + 0.1 * spread + 0.01 * real.square().mean()
        return {"loss": loss, "spread": spread}

    def make(self, batch):
        loss = -self.critic(self.generator(batch.normal("z", 5))).mean()
        return {"loss": loss * torch.nan if self.poison_at is not None and self.seen >= self.poison_at else loss}

    def state(self):
        return {
            "generator": self.generator,
            "critic": self.critic,
            "average": self.average,
            **{f"adam {k}": v for k, v in self.optimisers.items()},
        }

    def samples(self):
        with torch.no_grad():
            return self.average.module(torch.ones(3, 5)).view(3, 1, 4, 4)

    def evaluate(self, films):
        return {"level": float(films(4).mean())}

    def summary(self):
        return {"parameters": {"generator": sum(p.numel() for p in self.generator.parameters())}}

    def export(self, out: Path, provenance):
        raise AssertionError("the loop exports nothing")


class ToyFeed:
    """Films as a function of their number."""

    def batch(self, numbers, resolution):
        generator = torch.Generator()
        films = [torch.rand(1, 8, 8, generator=generator.manual_seed(number)) * 2 - 1 for number in numbers]
        return F.avg_pool2d(torch.stack(films), 8 // resolution)

    def ahead(self, numbers, resolution):
        assert resolution in (4, 8)

    def held_out(self, resolution):
        return self.batch(range(1000, 1008), resolution)
