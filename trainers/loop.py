"""The only training loop: steps of phases, shared by processes and taken in parts, saved so that a stop at any moment costs nothing.

    on_images ─► films ─► for each phase: parts ─► loss ─► gradients ─► mean over processes ─► optimiser      then log, show, evaluate, save

Whatever a step does is a function of the state before it and of the number of its first image, so a resumed run goes the way of one that
was never stopped: on a CPU bit for bit.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from engine.errors import SettingsChanged, TrainError, TrainingDiverged
from trainers.checkpoint import checkpoints, read_checkpoint, save_checkpoint
from trainers.presets.loop import LoopConfig
from trainers.randomness import step_seed
from trainers.ranks import Ranks
from trainers.run_log import RunLog
from trainers.stopping import told_to_stop
from trainers.task import Batch, HeldOut, Phase, Task, WantsBoxes

CHECKPOINTS = "checkpoints"


class Feed(Protocol):
    """Where films come from: a function of the image's number alone."""

    def batch(self, numbers: range, resolution: int) -> Tensor:
        """Films [n, 1, R, R] float32 in [-1, 1] of these images of the run."""

    def ahead(self, numbers: range, resolution: int) -> None:
        """Says what will be asked for next."""

    def labels(self, numbers: range) -> Tensor:
        """Labels [n, labels] of these images, for a task that asks for some."""

    def boxes(self, numbers: range) -> list[Tensor]:
        """Boxes [k, 4] of each of these images, in units of the film's side, for a task that wants some."""

    @property
    def held_out(self) -> HeldOut:
        """The films that training never sees, the same each time."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a run: images and seconds in all its sittings, and whether it was stopped before its end."""

    images: int
    steps: int
    seconds: float
    is_stopped: bool
    figures: dict[str, float | str]


class _Part(NamedTuple):
    """What goes through the networks at a time, as `Batch` has it."""

    numbers: range
    films: Tensor | None
    labels: Tensor | None
    boxes: list[Tensor] | None


class Loop:
    """One run of a task. `settings` are what a resume must agree with; the run's files lie in `out`."""

    def __init__(self, task: Task, feed: Feed | None, cfg: LoopConfig, ranks: Ranks, out: Path, *, settings: Mapping[str, Any]) -> None:
        self._task, self._feed, self._cfg, self._ranks, self._out = task, feed, cfg, ranks, out
        self._settings = dict(settings)
        self._seen = self._steps = 0
        self._seconds = 0.0
        self._figures: dict[str, float | str] = {}
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)
        self._logged = (0, 0.0)  # images and seconds of the last line of the log
        self._task.on_images(0)
        self._phases = task.phases()
        self._parameters = [parameter for phase in self._phases for module in phase.modules for parameter in module.parameters()]

    def resume(self) -> None:
        """Takes up the last checkpoint. Raises TrainError without one, or for another task's; SettingsChanged for other settings."""
        files = checkpoints(self._out / CHECKPOINTS)
        if not files:
            raise TrainError(f"nothing to resume, the directory holds no checkpoint: {self._out}")
        found = read_checkpoint(files[-1])
        if found.about["task"] != self._task.name:
            raise TrainError(f"checkpoint is of another task ({found.about['task']}), not of {self._task.name}: {found.file}")
        check_settings(found.about["settings"], self._settings)
        state = self._task.state()
        if set(state) != set(found.states):
            raise TrainError(f"checkpoint holds other parts than the task: {found.file}")
        try:
            for name, part in state.items():
                part.load_state_dict(found.states[name])
        except (RuntimeError, KeyError, ValueError) as error:
            raise TrainError(f"checkpoint does not fit the task ({type(error).__name__}): {found.file}") from None
        for phase in self._phases:
            _lay_out_like_parameters(phase.optimiser)
        self._seen, self._steps, self._seconds = (found.about[name] for name in ("images", "steps", "seconds"))
        self._logged = (self._seen, self._seconds)
        self._task.on_images(self._seen)

    def run(self) -> Outcome:
        """Trains until `cfg.images` images are seen or the process is told to stop, and saves at the end either way.

        Raises TrainingDiverged where a loss or gradient is not finite: nothing is saved from then on, and the last checkpoint stands.
        """
        cfg, first = self._cfg, self._ranks.is_first
        self._ranks.check_alike(self._parameters)
        is_stopped = False
        with told_to_stop(self._out) as is_told, _log(self._out, first, seen=self._seen, images=cfg.images) as log:
            start = perf_counter() - self._seconds
            while self._seen < cfg.images and not is_stopped:
                before = self._seen
                self._step()
                self._task.on_images(self._seen)  # of this moment are the next step, and what is shown, judged and made before it
                self._seconds = perf_counter() - start
                is_stopped = self._ranks.any(is_told())
                is_last = is_stopped or self._seen >= cfg.images
                self._after_step(log, before, is_last=is_last)
        return Outcome(images=self._seen, steps=self._steps, seconds=self._seconds, is_stopped=is_stopped, figures=self._figures)

    def try_step(self, seen: int) -> float:
        """The seconds of one step as it would be at `seen` images. It moves the weights: for a run that is only being estimated."""
        self._seen, start = seen, perf_counter()
        self._task.on_images(seen)
        self._step()
        if self._ranks.device.type == "cuda":
            torch.cuda.synchronize()
        return perf_counter() - start

    def _step(self) -> None:
        size, resolution = self._task.batch_size, self._task.resolution
        numbers = self._ranks.share(self._seen, size, group=self._task.group)
        parts = list(split(numbers, self._task.part_size, self._task.group))
        films: list[Tensor | None] = [None] * len(parts)
        labels: list[Tensor | None] = [None] * len(parts)
        boxes: list[list[Tensor] | None] = [None] * len(parts)
        if resolution is not None:
            assert self._feed is not None, "the task asks for films, and was given none"
            films = [self._feed.batch(part, resolution).to(self._ranks.device, non_blocking=True) for part in parts]
            if self._task.labels:
                labels = [self._feed.labels(part).to(self._ranks.device) for part in parts]
            if isinstance(self._task, WantsBoxes):
                boxes = [[found.to(self._ranks.device) for found in self._feed.boxes(part)] for part in parts]
            for part in parts:
                self._feed.ahead(range(part.start + size, part.stop + size), resolution)
        for phase in self._phases:
            for repeat in range(phase.repeats if self._steps % phase.every == 0 else 0):
                self._minimise(phase, f"{phase.name}/{repeat}", list(map(_Part, parts, films, labels, boxes)))
        self._seen += size
        self._steps += 1

    def _minimise(self, phase: Phase, purpose: str, parts: Sequence[_Part]) -> None:
        own = [parameter for module in phase.modules for parameter in module.parameters()]
        for parameter in self._parameters:
            parameter.requires_grad_(False)
        for parameter in own:
            parameter.requires_grad_(True)
        phase.optimiser.zero_grad(set_to_none=True)
        cfg, device = self._cfg, self._ranks.device
        num_images = sum(len(part.numbers) for part in parts)
        values: dict[str, float] = defaultdict(float)
        for part in parts:
            torch.manual_seed(step_seed(cfg.seed, purpose, part.numbers.start))  # for layers that draw by themselves
            batch = Batch(seed=cfg.seed, purpose=purpose, device=device, **part._asdict())
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=cfg.precision == "bf16"):
                found = phase.loss(batch)
            weight = len(part.numbers) / num_images
            (found["loss"] * weight).backward()  # type: ignore[no-untyped-call]
            for name, value in found.items():
                values[f"{phase.name}/{name}"] += float(value.detach()) * weight
        self._ranks.average_gradients(own)
        norm = nn.utils.clip_grad_norm_(own, phase.clip or math.inf, foreach=True)
        means = self._ranks.mean(values)
        if not all(map(math.isfinite, [*means.values(), float(norm)])):
            kept = "the last checkpoint stands" if checkpoints(self._out / CHECKPOINTS) else "nothing was saved yet"
            values_of = ", ".join(f"{name} {value:g}" for name, value in means.items())
            where = f"in phase {phase.name} at image {self._seen}"
            raise TrainingDiverged(f"loss or gradient is not finite {where} ({values_of}); {kept}: {self._out}")
        phase.optimiser.step()
        if phase.after is not None:
            phase.after()
        for name, mean in means.items():
            self._sums[name] += mean
            self._counts[name] += 1

    def _after_step(self, log: RunLog | None, before: int, *, is_last: bool) -> None:
        """What falls due in a run's course, by images; at its end everything does."""
        cfg = self._cfg

        def is_due(every: int) -> bool:
            return is_last or (every > 0 and before // every != self._seen // every)

        if is_due(cfg.checkpoint_images) and self._ranks.is_first:
            self._save()  # first of all: who was told to stop may not be left the time for more
        if log is not None:
            log.advance(self._seen - before)
            if is_due(cfg.log_images):
                log.record(self._row())
            if is_due(cfg.evaluate_images):
                self._figures = self._task.evaluate(None if self._feed is None else self._feed.held_out)
                if self._figures:
                    log.record({"images": self._seen, **self._figures})
            pictures = self._task.samples() if is_due(cfg.sample_images) else None
            if pictures is not None:
                log.show(pictures, self._seen)
        self._ranks.wait()

    def _row(self) -> dict[str, Any]:
        images, seconds = self._seen - self._logged[0], self._seconds - self._logged[1]
        self._logged = (self._seen, self._seconds)
        losses = {name: total / self._counts[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        rates = [group["lr"] for phase in self._phases for group in phase.optimiser.param_groups]
        return {
            "images": self._seen,
            "seconds": round(self._seconds, 3),
            "images_per_second": round(images / max(seconds, 1e-9), 3),
            "batch_size": self._task.batch_size,
            "resolution": self._task.resolution,
            "lr": max(rates),
            **losses,
        }

    def _save(self) -> None:
        about = {
            "task": self._task.name,
            "settings": self._settings,
            "images": self._seen,
            "steps": self._steps,
            "seconds": round(self._seconds, 3),
            "versions": {"torch": torch.__version__},
        }
        states = {name: part.state_dict() for name, part in self._task.state().items()}
        save_checkpoint(self._out / CHECKPOINTS, about, states, keep=self._cfg.keep)


def split(numbers: range, part_size: int, group: int) -> Iterator[range]:
    """Consecutive parts of at most `part_size` images, of whole groups; the last one may be shorter. No part is smaller than a group."""
    size = max(group, part_size // group * group)
    for start in range(numbers.start, numbers.stop, size):
        yield range(start, min(start + size, numbers.stop))


def check_settings(saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raises SettingsChanged, naming each difference, unless a run may go on with `given`."""
    changed = [name for name in sorted({*saved, *given}) if saved.get(name) != given.get(name)]
    if changed:
        differences = ", ".join(f"{name} was {saved.get(name)}, is {given.get(name)}" for name in changed)
        raise SettingsChanged(f"run was begun with other settings: {differences}")


def _lay_out_like_parameters(optimiser: torch.optim.Optimizer) -> None:
    """Moments in the memory layout of their parameters, as they were before they went through a file: nothing but speed depends on it."""
    for parameter, moments in optimiser.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.dim():
                moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


@contextmanager
def _log(out: Path, is_first: bool, *, seen: int, images: int) -> Iterator[RunLog | None]:
    if not is_first:
        yield None
        return
    with RunLog(out, seen=seen, images=images) as log:
        yield log
