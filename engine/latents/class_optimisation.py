"""Class optimisation (Segal et al. 2021, algorithm 1): codes climb a classifier's logit until their film shows a finding, many in slots."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.refine.descent import ROWS_AT_ONCE
from engine.refine.slots import Slots

Project = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """Where one film begins: `code` [*shape] float32 on the gauge, and the logit that it has to reach."""

    number: int
    code: Tensor
    goal: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Optimised:
    """Where it ended: `code` [*shape], the `logit` of exactly that code, and how many `steps` it took from its start."""

    start: Start
    code: Tensor
    logit: float
    steps: int

    @property
    def reached(self) -> bool:
        """Whether the logit is as high as it had to be; never where it is not finite."""
        return self.logit >= self.start.goal


@dataclass(frozen=True, kw_only=True, eq=False)
class Ascent:
    """What a climb is told of the codes that it is at.

    `slope`: codes [n, *shape] -> logits [n] and the gradient of each in its code [n, *shape]. `judge`: codes [1, *shape] -> logits [1] that
    count, where those of `slope` are made in less than eager float32; None where they are what counts.
    """

    slope: Callable[[Tensor], tuple[Tensor, Tensor]]
    judge: Callable[[Tensor], Tensor] | None = None


def climb(starts: Iterable[Start], ascent: Ascent, project: Project, *, stride: float, steps: int, slots: int) -> Iterator[Optimised]:
    """Runs each start to its goal, or for `steps` steps, and yields it when it has ended, not in the order in which they came.

    A step is algorithm 1's, z <- z + alpha * gradient of the logit, followed by `project`. The paper leaves alpha open: here each code
    takes steps of one length, `stride` in each number (root mean square), because the size of a gradient is the classifier's and the
    generator's and would need another alpha for every pair. The paper's loop has no end; one that is not there after `steps` steps is
    yielded as it is. A start that shows enough already takes none, and a film whose logit is no longer finite ends at once.
    A code is asked about by `judge`, alone, when its logit seems high enough; where the judge says no, it goes on. What is yielded is the
    judge's word.
    A film that has ended leaves its slot to the next start, and no film's path depends on those beside it: on a CPU it has the same bits
    for any number of slots from 2 on, elsewhere, and for 1 slot, it is the same up to rounding.
    """
    places = Slots(slots, iter(starts))
    state: _State | None = None
    while True:
        came = places.fill()
        if came:
            state = state or _State(came[0][1].code, ascent, project, stride=stride, steps=steps, slots=slots)
            state.enter(came)
        if state is None or not places.busy():
            return
        for slot, code, logit, taken in state.step(places.busy()):
            yield Optimised(start=places.release(slot), code=code, logit=logit, steps=taken)


class _State:
    """What is known of the film in each slot."""

    def __init__(self, example: Tensor, ascent: Ascent, project: Project, *, stride: float, steps: int, slots: int) -> None:
        at_once = 1 if slots == 1 else ROWS_AT_ONCE  # a whole number of rows rounds alike whoever is in them; one alone is not made to wait
        self._codes, self._at_once = example.new_zeros(-(-slots // at_once) * at_once, *example.shape), at_once
        self._goals, self._taken = [math.inf] * slots, [0] * slots
        self._ascent, self._project, self._stride, self._steps = ascent, project, stride, steps

    def enter(self, came: list[tuple[int, Start]]) -> None:
        """Puts starts into their slots."""
        self._codes[[slot for slot, _ in came]] = torch.stack([start.code for _, start in came])
        for slot, start in came:
            self._goals[slot], self._taken[slot] = start.goal, 0

    def step(self, busy: list[int]) -> list[tuple[int, Tensor, float, int]]:
        """One evaluation of the slots `busy`, and a step of those that go on; of those that end: slot, code, logit and steps."""
        idle = [slot for slot in range(len(self._codes)) if slot not in busy]
        rows = busy + idle[: -len(busy) % self._at_once]
        codes = self._codes[rows]
        logits, gradient = self._ascent.slope(codes)
        moved = self._project(codes + self._stride * _at_one_length(gradient))
        ended, going = [], []
        for place, (slot, logit) in enumerate(zip(busy, logits.tolist(), strict=False)):  # the wait for the device in a step
            is_last = self._taken[slot] == self._steps or not math.isfinite(logit)
            counts = self._judged(codes[place], logit) if is_last or logit >= self._goals[slot] else -math.inf
            if is_last or counts >= self._goals[slot]:
                ended.append((slot, codes[place], counts, self._taken[slot]))
            else:
                going.append(place)
                self._taken[slot] += 1
        self._codes[[rows[place] for place in going]] = moved[going]
        return ended

    def _judged(self, code: Tensor, logit: float) -> float:
        """The logit that counts for a code [*shape] whose gradient came with `logit`."""
        return logit if self._ascent.judge is None else self._ascent.judge(code[None]).item()


def _at_one_length(gradient: Tensor) -> Tensor:
    """Gradients [n, *shape] as directions, each with a root mean square of 1."""
    flat = gradient.flatten(1)
    flat = flat / flat.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)  # squares of small numbers vanish
    return (flat * torch.rsqrt(flat.square().mean(dim=1, keepdim=True).clamp_min(1e-12))).view_as(gradient)
