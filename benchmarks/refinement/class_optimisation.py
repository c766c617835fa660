"""Class optimisation: films a second that reach their goal, one at a time as published, and in slots on our backends."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import fmean, median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from benchmarks.commands import StepFailed, run_alone
from benchmarks.inputs import DEMO, Options, classifier_directory, say
from benchmarks.refinement.published_climb import PublishedClimb
from benchmarks.report import Bar, Row
from benchmarks.timing import paired_ratio, take_turns
from engine.classify.classifier import Classifier, load_classifier
from engine.encode.codec import Codec, load_codec
from engine.encode.cost import count_gflop
from engine.errors import BackendError
from engine.latents.class_optimisation import Start, climb
from engine.latents.starts import Draws, prior_of
from engine.latents.uphill import build_uphill, judge_of, score_of

QUESTION = "How many films a second reach their goal, and how many steps do they take: one at a time, in slots, and on our backends?"
TIMED = (
    "Timed: the same starts in every row, from the first evaluation to the last word of the judge. Not timed: building, compiling and the "
    "parity gate (ready s). Reached and logit over goal: of the codes that were left, looked at in eager float32 film by film."
)
NAME = "class-optimisation"
PUBLISHED = "one at a time, as published"
# name: slots (0: as many as the run has), backend, precision
OURS: dict[str, tuple[int, Any, Any]] = {
    "one at a time, ours": (1, "eager", "fp32"),
    "slots": (0, "eager", "fp32"),
    "slots, bf16": (0, "eager", "bf16"),
    "slots, Inductor": (0, "inductor", "fp32"),
    "slots, Inductor, bf16": (0, "inductor", "bf16"),
}
SLOTS_BAR = Bar(bound=5.0, sense="at least")
BARS = dict.fromkeys(("slots, Inductor", "slots, Inductor, bf16"), SLOTS_BAR)
BAR = f"ratio {SLOTS_BAR}, of slots on Inductor to the published loop"
WARM_UP = 0  # but one step of one film each
HEAVY_GFLOP = 5.0  # a step: where a few films take minutes, which is then asked of the ways that matter most
ON_HEAVY = (PUBLISHED, "slots", "slots, bf16", "slots, Inductor, bf16")
MOST_STEPS, STRIDE, COARSE_STRIDE = 100, 0.02, 0.08

Run = Callable[[Sequence[Start], int], list[tuple[Tensor, int]]]  # starts, and the most steps of each -> codes and their steps


def needs(options: Options) -> str:
    """A classifier, and the time: steps of the demo take seconds each."""
    if options.nightly:
        return "not in the nightly run, six minutes: latentray bench class-optimisation"
    return "" if classifier_directory(options) else "needs a trained classifier among the systems: latentray train densenet"


def rows(options: Options) -> Iterator[Row]:
    """One row a way, with the label that the codec's starts show least."""
    directory = classifier_directory(options)
    codec = options.codec or DEMO
    settings: dict[str, Any] = {"codec": codec, "classifier": str(directory), "names": [PUBLISHED, *OURS], "quick": options.quick}
    say(f"class-optimisation: {codec}, one way after another")
    try:
        found = run_alone("benchmarks.refinement.class_optimisation:measure", **settings)
    except StepFailed as error:
        yield Row(benchmark=NAME, step=PUBLISHED, failed=str(error))
        return
    for name in found["names"]:
        step = f"{found['about']['codec']}: {name}"
        if name in found["unavailable"]:
            yield Row(benchmark=NAME, step=step, unavailable=found["unavailable"][name])
            continue
        rates = found["rates"]
        yield Row(
            benchmark=NAME,
            step=step,
            unit="films/s",
            values=tuple(rates[name]),
            ratio=paired_ratio(rates[name], rates[PUBLISHED]),
            ratio_to=PUBLISHED,
            bar=BARS.get(name),
            quality=found["quality"][name],
            figures={"ready s": round(found["ready"][name], 1)},
            settings=found["about"] | {"parity": found["parity"].get(name, {})},
        )


def measure(*, codec: str, classifier: str, names: list[str], quick: bool) -> dict[str, Any]:
    """By way: films a second that reached their goal, figures of the codes that they ended in, and seconds until the way was ready."""
    models = load_codec(codec), load_classifier(classifier)
    gflop = sum(count_gflop(score_of(*models), (1, *models[0].code_shape)))
    is_heavy = gflop > HEAVY_GFLOP
    names = [name for name in names if name in ON_HEAVY] if is_heavy else names
    count, slots, repeats = (4, 4, 1) if quick or is_heavy else (32, 16, 2)
    label, starts = hardest(*models, count)
    most, stride = 10 if quick else MOST_STEPS, (COARSE_STRIDE if is_heavy else STRIDE) * prior_of(models[0]).scale
    found: dict[str, Any] = {part: {} for part in ("ready", "parity", "unavailable", "quality")}
    runs: dict[str, Run] = {}
    for name in names:
        begun = perf_counter()
        try:
            runs[name], found["parity"][name] = _way(*models, label, name, stride=stride, slots=slots)
        except BackendError as error:
            found["unavailable"][name] = str(error)
            continue
        runs[name](starts[:1], 1)  # allocates, and compiles what the gate did not call
        found["ready"][name] = perf_counter() - begun
    ends: dict[str, list[tuple[Tensor, int]]] = {}
    judge = judge_of(*models, label)

    def turn(name: str, number: int) -> int:
        if number or repeats > 1:
            ends[name] = runs[name](starts, most)
        return len(ends.get(name, ()))

    seconds = {name: [len(starts) / rate for rate in rates] for name, rates in _turns(runs, turn, repeats).items()}
    for name, codes in ends.items():
        over = [judge(code[None]).item() - start.goal for (code, _), start in zip(codes, starts, strict=True)]
        reached = sum(each >= -1e-3 for each in over)  # two float32 sums of one network differ by a rounding
        steps = [taken for _, taken in codes]
        found["quality"][name] = {"reached": reached / len(over), "steps": fmean(steps), "logit over goal": fmean(over)}
        seconds[name] = [reached / each for each in seconds[name]]
    about = {"codec": models[0].name, "classifier": models[1].name, "label": label, "films": len(starts), "slots": slots}
    about |= {"side": models[0].recipe.resolution, "gflop a step": round(gflop, 2), "stride": stride, "most_steps": most}
    about |= {"threads": torch.get_num_threads(), "median steps": median(taken for _, taken in ends[names[0]])}
    return found | {"rates": seconds, "about": about, "names": names}


def hardest(codec: Codec, classifier: Classifier, count: int) -> tuple[str, list[Start]]:
    """The label whose goals are furthest above what its starts show, and these starts."""
    prior, draws, far = prior_of(codec), Draws(), {}
    for label, threshold in zip(classifier.labels, classifier.thresholds, strict=True):
        starts, judge = [draws.start(prior, label, number, threshold) for number in range(count)], judge_of(codec, classifier, label)
        far[label] = fmean(start.goal - judge(start.code[None]).item() for start in starts[:3]), starts
    label = max(far, key=lambda name: far[name][0])
    return label, far[label][1]


def _turns(runs: dict[str, Run], turn: Callable[[str, int], int], repeats: int) -> dict[str, list[float]]:
    return take_turns({name: partial(turn, name) for name in runs}, repeats=repeats)


def _way(codec: Codec, classifier: Classifier, label: str, name: str, *, stride: float, slots: int) -> tuple[Run, dict[str, Any]]:
    """What runs starts, in their order, and the gate's figures."""
    if name == PUBLISHED:
        alone = copy.deepcopy(classifier)
        alone.network.to(memory_format=torch.contiguous_format)
        column = classifier.index(label)
        loop = PublishedClimb(codec.generator, lambda films: alone.logits(films)[:, column], codec.project)
        return lambda starts, steps: [loop.climb(start.code, start.goal, stride=stride, steps=steps) for start in starts], {}
    own, backend, precision = OURS[name]
    uphill = build_uphill(codec, classifier, backend=backend, precision=precision, slots=own or slots)

    def run(starts: Sequence[Start], steps: int) -> list[tuple[Tensor, int]]:
        found = climb(starts, uphill.ascent(label), codec.project, stride=stride, steps=steps, slots=own or slots)
        return [(each.code, each.steps) for each in sorted(found, key=lambda each: each.start.number)]

    return run, uphill.parity
