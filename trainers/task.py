"""What a trainer is: a task says what is minimised, in which phases; `loop.py`, which exists once, does the rest.

A task has no loop, no `backward()`, no file of state and no logger. Time is counted in images, and everything that changes with time
(level, fade, learning rate) is set by `on_images` from that count alone, so a resumed run is where an uninterrupted one would be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from engine.recipe import PixelRecipe
from trainers import randomness


class Stateful(Protocol):
    """A module, an optimiser, an average: anything whose state can be taken and put back."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A part of one step: images `numbers` of the run, counted from 0 over all steps and all processes.

    `films` [n, 1, R, R] float32 in [-1, 1], channels-last, at the task's `resolution`, augmented; None for a task that takes no films.
    `labels` [n, labels] float32, 0 and 1, in the order of the task's own `labels`; None where it asks for none.
    Random numbers come from here and belong to an image: the same for any split into processes and parts. (Layers that draw by themselves,
    such as stochastic depth, draw by the part.)
    `boxes`: of each film [k, 4] float32, x0 y0 x1 y1 in units of its side, k may be 0; None for a task that wants none (`WantsBoxes`).
    """

    numbers: range
    films: Tensor | None
    seed: int
    purpose: str  # phase and repeat: phases draw different numbers under one name
    device: torch.device
    labels: Tensor | None = None
    boxes: list[Tensor] | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def pixels(self) -> Tensor:
        """The films of a task that takes films."""
        assert self.films is not None, "the task asked for no films (`resolution` None)"
        return self.films

    @property
    def marks(self) -> Tensor:
        """The labels of a task that asks for some."""
        assert self.labels is not None, "the task asked for no labels (`labels` is empty)"
        return self.labels

    @property
    def targets(self) -> list[Tensor]:
        """The boxes of a task that wants some."""
        assert self.boxes is not None, "the task wants no boxes (it is no `WantsBoxes`)"
        return self.boxes

    def normal(self, name: str, *shape: int) -> Tensor:
        """Standard normal values [n, *shape] float32 on the device."""
        return randomness.normal(self.seed, f"{self.purpose}/{name}", self.numbers, *shape).to(self.device)

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Values [n, *shape] float32 in [0, 1) on the device."""
        return randomness.uniform(self.seed, f"{self.purpose}/{name}", self.numbers, *shape).to(self.device)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One thing that is minimised in a step: `optimiser` moves the parameters of `modules`; all other parameters get no gradient.

    `loss(batch)` gives scalars, means over the images of `batch`; "loss" is minimised, all are logged under the phase's name.
    Losses must be means over images so that parts of a step and processes add up; a term that looks at several images at once
    (minibatch standard deviation) must do so in groups of consecutive images, of a size that `Task.group` tells.
    `clip`: the norm that gradients are cut to, 0 for none. `every`: only in steps whose number it divides. `after` runs once the
    parameters have moved (averages).
    """

    name: str
    modules: Sequence[nn.Module]
    optimiser: torch.optim.Optimizer
    loss: Callable[[Batch], dict[str, Tensor]]
    repeats: int = 1
    every: int = 1
    clip: float = 0.0
    after: Callable[[], None] | None = None


class HeldOut(Protocol):
    """The films that training never sees, the same each time. `limit`: at most so many of them, evenly spread."""

    def __call__(self, resolution: int, *, limit: int = 256) -> Tensor:
        """Films [n, 1, r, r] float32 in [-1, 1]; n may be 0."""

    def labels(self, *, limit: int = 256) -> Tensor:
        """Their labels [n, labels], for a task that asks for some."""

    def boxes(self, *, limit: int = 256) -> list[Tensor]:
        """Their boxes, each [k, 4] in units of the film's side, for a task that wants some."""


@runtime_checkable
class WantsBoxes(Protocol):
    """A task that learns where findings are. `boxes`: "truth" for what a phantom knows of itself, or a file (`trainers/boxes.py`)."""

    boxes: str


@runtime_checkable
class KnowsFilms(Protocol):
    """A task that must know more of its films than batches show. Called once, before the first step and before a resume."""

    def on_films(self, label_counts: Sequence[tuple[int, int]], held_out: HeldOut) -> None:
        """How many of the films that train are with and without each label, and the films that never do."""


class Task(Protocol):
    """What the loop needs of a task. Modules are built on the device that the task was given, in training mode where that matters."""

    name: str
    """As on the command line: pggan, encoder-bootstrap ..."""

    @property
    def recipe(self) -> PixelRecipe | None:
        """How files become films, at the largest resolution that the task will ask for; None for a task that takes none."""

    labels: tuple[str, ...]
    """What is asked of each film, as `LabelSpec.parse` reads it; () for a task that learns from pixels alone."""
    alternate: str
    """The name of a label: images are in turns films without it and with it. "" for films as they come."""

    def phases(self) -> list[Phase]:
        """The phases of a step, in order."""

    def on_images(self, seen: int) -> None:
        """Called before each step, and after a resume, with the images seen so far: sets level, fade, learning rates. A pure function."""

    @property
    def resolution(self) -> int | None:
        """Side of the films that the next step takes; None where it takes none. Set by `on_images`."""

    @property
    def batch_size(self) -> int:
        """Images of the next step, over all processes. Set by `on_images`."""

    @property
    def part_size(self) -> int:
        """Images that go through the networks at a time on one process (gradients accumulate). Set by `on_images`."""

    @property
    def group(self) -> int:
        """Parts of a step hold whole groups of so many consecutive images; 1 where images do not look at each other."""

    def state(self) -> Mapping[str, Stateful]:
        """Everything that a resume needs and `on_images` does not set: networks, optimisers, averages. Tensors and plain values only."""

    def samples(self) -> Tensor | None:
        """Pictures [n, 1, R, R] in [-1, 1] to look at, the same codes or films each time, or None."""

    def evaluate(self, films: HeldOut | None) -> dict[str, float | str]:
        """Figures for the log, by name. `films(r)` gives the held-out films [n, 1, r, r] in [-1, 1], the same each
        time, n may be 0; None for a task without films. Text is for what figures depend on, such as a digest."""

    def summary(self) -> dict[str, Any]:
        """For `--dry-run`: {"parameters": {part: count}, "gflop_per_image": {level or phase: float}, ...}, plain JSON values."""

    def export(self, out: Path, provenance: dict[str, Any]) -> None:
        """Writes the codec (or other product) of the present state into `out`, with `provenance` from the loop beside its own."""
