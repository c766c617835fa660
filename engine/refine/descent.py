"""Refinement: better codes by descent on each film's own loss, in slots that the next film takes when one has ended."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.config import RefineConfig
from engine.networks.coarse import shrink
from engine.refine.gradient_step import GradientStep
from engine.refine.kept import REASONS, Kept
from engine.refine.optimisers import build_optimiser
from engine.refine.schedule import Level
from engine.refine.slots import Slots

Project = Callable[[Tensor], Tensor]

# Products of matrices whose rows are no multiple of this take other kernels on a CPU for the rest, which round differently. Idle slots are
# evaluated along where it takes one to three of them (and a target is looked at more than once where few come), so that a film's path has
# the same bits whoever is in the other slots.
ROWS_AT_ONCE = 4


@dataclass(frozen=True, kw_only=True)
class Film:
    """One film on its way through refinement.

    pixels [1, R, R] in [-1, 1]: what it must become. start [*shape] float32: its code before refinement, candidate 0. code: the best one
    so far, `steps` steps from `start` (0: it is `start`), with its `loss`; `loss_initial` is that of `start`, both at full size once
    refinement has ended.
    """

    key: Hashable
    pixels: Tensor
    start: Tensor
    code: Tensor
    steps: int = 0
    loss_initial: float = torch.nan
    loss: float = torch.nan
    stop: str = ""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One level of the descent, ready to run.

    `features` makes of targets [n, 1, r, r] of the level's size what the loss needs of them, once a film; `gradient` takes any number of
    codes up to the number of slots, with their features. `metric`: what `build_optimiser` is told of the generator.
    """

    level: Level
    features: Callable[[Tensor], tuple[Tensor, ...]]
    gradient: GradientStep
    metric: Tensor | None = None


def refine(films: Iterable[Film], stages: Sequence[Stage], project: Project, cfg: RefineConfig, *, slots: int) -> Iterator[Film]:
    """Runs films through all levels and yields each when it has ended, not in the order in which they came.

    The kept code is the first one with the least loss at full size among `start` and those of the last level, and `loss` is the loss of
    exactly that code. So a film is never worse than its start, and its path does not depend on the films beside it, up to the rounding
    of `Stage.gradient`. `stop` says why it ended: "budget"; "target": the kept code has an MSE of `target_mse` or less, in [0, 1] units;
    "plateau": `patience` steps without a gain; "diverged": its loss, gradient or code stopped being finite. A diverged film keeps its
    best finite code; where the start itself was not finite, `steps` is 0, and code and loss are those of the start.
    Films are taken from `films` only when a slot is free. Works the same in inference mode, whose tensors take part in no gradient.
    """
    stream = iter(films)
    for stage in stages:
        stream = _descend(stream, stage, project, cfg, slots)
    return stream


def _descend(films: Iterator[Film], stage: Stage, project: Project, cfg: RefineConfig, slots: int) -> Iterator[Film]:
    places = Slots(slots, films)
    state: _State | None = None
    while True:
        came = places.fill()
        if came:
            state = state or _State(came[0][1], stage, project, cfg, slots)
            state.enter(came)
        if state is None or not places.busy():
            return
        for slot, stop in state.step(places.busy()):
            yield state.leave(slot, places.release(slot), stop)


class _State:
    """The tensors of one level: everything has one entry a slot, and shapes never change."""

    @torch.inference_mode(False)
    def __init__(self, example: Film, stage: Stage, project: Project, cfg: RefineConfig, slots: int) -> None:
        self._stage, self._project, self._cfg = stage, project, cfg
        self._latents = torch.zeros(slots, *example.code.shape, device=example.code.device)
        self._coarse = torch.zeros_like(self._latents)  # the codes that films came with, until their starts have been weighed
        self._features: tuple[Tensor, ...] | None = None
        self._kept = Kept(self._latents, budget=stage.level.steps)
        self._optimiser = build_optimiser(cfg.optimiser, self._latents, lr=cfg.lr * stage.level.rate, metric=stage.metric)

    @torch.inference_mode(False)
    @torch.no_grad()
    def enter(self, came: list[tuple[int, Film]]) -> None:
        """Puts films into their slots."""
        device = self._latents.device
        rows = torch.tensor([slot for slot, _ in came], device=device)
        count = _whole(len(came), len(self._latents))
        films = torch.stack([film.pixels for _, film in (*came, *came[-1:] * (count - len(came)))]).to(device)
        found = self._stage.features(shrink(films, self._stage.level.resolution))
        if self._features is None:
            self._features = tuple(_for_slots(part, len(self._latents)) for part in found)
        for whole, part in zip(self._features, found, strict=True):
            whole[rows] = part[: len(came)]
        self._latents[rows] = torch.stack([film.start for _, film in came]).to(device)
        self._coarse[rows] = torch.stack([film.code for _, film in came]).to(device)
        self._optimiser.start(rows)
        steps = torch.tensor([film.steps for _, film in came], dtype=torch.int32, device=device)
        self._kept.start(rows, steps, torch.tensor([film.stop == "diverged" for _, film in came], device=device))

    @torch.inference_mode(False)
    @torch.no_grad()
    def step(self, busy: list[int]) -> list[tuple[int, str]]:
        """One evaluation of the films in the slots `busy`, and a step of those that go on; returns those that end, and why."""
        assert self._features is not None, "slots are filled before they step"
        count, device = len(self._latents), self._latents.device
        rows = torch.tensor(_with_idle(busy, count), device=device)
        everyone = len(rows) == count
        latents = self._latents if everyone else self._latents[rows]
        features = self._features if everyone else tuple(part[rows] for part in self._features)
        loss, mse, gradient = (_spread(part, rows, count) for part in self._stage.gradient(latents, features))
        active = torch.zeros(count, dtype=torch.bool, device=device)
        active[torch.tensor(busy, device=device)] = True
        found = self._kept.weigh(self._latents, loss, mse, gradient, active, self._cfg)
        stops = found.verdict.tolist()  # the wait for the device in a step
        going = active & (found.verdict == 0)
        moves = going & ~found.takes_coarse & ~found.falls_back
        proposed = self._project(self._optimiser.step(self._latents, loss, gradient, moves))
        for some, codes in ((moves, proposed), (found.takes_coarse, self._coarse), (found.falls_back, self._kept.latents)):
            self._latents = torch.where(some.reshape(-1, *[1] * (latents.dim() - 1)), codes, self._latents)
        return [(slot, REASONS[stops[slot]]) for slot in busy if stops[slot]]

    @torch.inference_mode(False)
    def leave(self, slot: int, film: Film, stop: str) -> Film:
        """The film as it ends this level."""
        code, steps, loss_initial, loss = self._kept.of(slot)
        return replace(film, code=code, steps=steps, loss_initial=loss_initial, loss=loss, stop=stop)


def _whole(rows: int, count: int) -> int:
    """The next multiple of ROWS_AT_ONCE, but no more than `count`."""
    return min(count, -(-rows // ROWS_AT_ONCE) * ROWS_AT_ONCE)


def _with_idle(busy: list[int], count: int) -> list[int]:
    """The slots to evaluate: those that are busy, and idle ones up to a whole number of rows."""
    idle = [slot for slot in range(count) if slot not in busy]
    return sorted(busy + idle[: _whole(len(busy), count) - len(busy)])


def _spread(part: Tensor, rows: Tensor, count: int) -> Tensor:
    """[n, ...] for the slots `rows` -> [count, ...], zeros elsewhere; float32."""
    if len(rows) == count:
        return part.float()
    return part.new_zeros(count, *part.shape[1:], dtype=torch.float32).index_copy_(0, rows, part.float())


def _for_slots(part: Tensor, slots: int) -> Tensor:
    """Zeros like the features [k, ...] of some films, for all slots."""
    is_channels_last = part.dim() == 4 and part.is_contiguous(memory_format=torch.channels_last) and not part.is_contiguous()
    layout = torch.channels_last if is_channels_last else torch.contiguous_format
    return part.new_zeros(slots, *part.shape[1:]).contiguous(memory_format=layout)
