"""A tiny classifier, films with labels for it, and runs of `train densenet`."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file

from engine.cli import run_verb
from tests.trainers.packs import write_films, write_manifest
from trainers import train
from trainers.checkpoint import checkpoints
from trainers.presets.densenet import PRESETS, DensenetConfig
from trainers.task import Batch

CPU = torch.device("cpu")
MANY, SIDE = 32, 32
TINY = DensenetConfig(
    labels=("bright", "left: side=left"),
    resolution=SIDE,
    blocks=(1, 1),
    growth=4,
    stem=6,
    bottleneck=2,
    dropout=0.2,
    batch=8,
    lr=1e-2,
    patience=1,
    judge_images=16,
    bootstrap=50,
    images=64,
)
FLAGS = [
    f"{name}={json.dumps(value)}" for name, value in vars(TINY).items() if value != vars(PRESETS["cpu-small"]())[name] and name != "images"
]
SETTINGS = [word for flag in FLAGS for word in ("--set", flag)]
CELLS = {
    "patient": [f"p{film // 2}" for film in range(MANY)],
    "bright": [str(film % 2) for film in range(MANY)],
    "side": [("left", "right", "both|left")[film % 3] for film in range(MANY)],
    "unsure": ["" if film == 5 else "1" for film in range(MANY)],
    "never": ["0"] * MANY,
}


class HeldOutFilms:
    """Films whose gray tells label 0, and nothing label 1."""

    def __init__(self, n=24):
        draw = torch.Generator().manual_seed(3)
        self.marks = torch.randint(0, 2, (n, 2), generator=draw).float()
        self.films = torch.rand(n, 1, SIDE, SIDE, generator=draw) * 0.5 - 0.5 + self.marks[:, :1, None, None] * 0.4

    def __call__(self, resolution, *, limit=256):
        assert resolution == SIDE
        return self.films[:limit]

    def labels(self, *, limit=256):
        return self.marks[:limit]


def run(*argv):
    threads = torch.get_num_threads()
    try:
        return run_verb("train", train, ["densenet", *map(str, argv), "--threads", "1"])
    finally:
        torch.set_num_threads(threads)


def write_source(folder):
    """Films with labels in a new folder; returns the manifest."""
    return str(write_manifest(write_films(folder, MANY, SIDE), CELLS))


def state(out):
    return load_file(checkpoints(out / "checkpoints")[-1])


def batch(task, held_out, numbers=range(8)):
    part = slice(numbers.start, numbers.stop)
    films, labels = held_out.films[part], held_out.marks[part]
    return Batch(numbers=numbers, films=films, labels=labels, seed=1, purpose="p", device=CPU)
