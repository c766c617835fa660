"""Steps of a task by hand, without the loop: what its phases alone do. And a small codec to take a generator from."""

from __future__ import annotations

import torch

from engine.encode.codec import load_codec
from engine.networks.pggan import PgganSettings
from engine.recipe import PixelRecipe
from trainers.nets.trainable_pggan import TrainablePggan
from trainers.randomness import step_seed
from trainers.task import Batch
from trainers.tasks.joined_codec import ExportedCodec

SEED, CODE_SIZE = 5, 16


def make_codec(folder):
    """A codec of 64x64 without an encoder, with coarse heads: random films of some contrast that stay within the range."""
    torch.manual_seed(3)
    generator = TrainablePggan(PgganSettings(channels=(16, 16, 12, 8, 6), code_size=CODE_SIZE)).whole
    generator.to_gray.weight.data *= 3
    ExportedCodec(
        encoder=None,
        generator=generator,
        mean=None,
        recipe=PixelRecipe(resolution=64),
        storage="float32",
        frozen=None,
        loss="mse=1",
        licence="none",
        provenance={},
    ).write(folder)
    return load_codec(folder)


def train(task, images, *, seen=0, films=None, clip=True):
    """Steps until `images` are seen; `films(numbers, resolution)` gives films. Returns the last phase's losses."""
    losses = []
    phases = task.phases()
    while seen < images:
        task.on_images(seen)
        numbers = range(seen, seen + task.batch_size)
        pixels = None if films is None else films(numbers, task.resolution)
        for phase in phases:
            torch.manual_seed(step_seed(SEED, phase.name, seen))
            phase.optimiser.zero_grad(set_to_none=True)
            batch = Batch(numbers=numbers, films=pixels, seed=SEED, purpose=f"{phase.name}/0", device=torch.device("cpu"))
            loss = phase.loss(batch)["loss"]
            loss.backward()
            if phase.clip:
                torch.nn.utils.clip_grad_norm_([p for module in phase.modules for p in module.parameters()], phase.clip)
            phase.optimiser.step()
            if phase.after is not None:
                phase.after()
        losses.append(float(loss.detach()))
        seen += task.batch_size
    task.on_images(seen)
    return losses


def states(task):
    """All tensors of a task's networks by name."""
    return {
        f"{name}/{key}": value
        for name, part in task.state().items()
        if isinstance(part, torch.nn.Module)
        for key, value in part.state_dict().items()
    }


def same_bits(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
